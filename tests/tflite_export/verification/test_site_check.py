"""Keras and a file, site by site: right files pass, wrong ones do not."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf
from tflite_export import ExportError
from tflite_export import export
from tflite_export import target_file
from tflite_export.flatbuffer import model as fb
from tflite_export.verification import keras_agreement

L = keras.layers


def quadrants(count=128, seed=0):
    """Images, and which quarter of each is the brightest."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 8, 8, 1)).astype(np.float32)
    y = x.reshape(-1, 2, 4, 2, 4).mean((2, 4)).reshape(-1, 4).argmax(-1)
    return x, y


def convolutional():
    return [
        L.Conv2D(6, 3, activation="relu"),
        L.Conv2D(6, 3, strides=2, use_bias=False),
        L.BatchNormalization(momentum=0.5),
        L.ReLU(),
        L.AveragePooling2D(2),
        L.Flatten(),
        L.Dense(4, activation="softmax"),
    ]


def perceptron():
    return [
        L.Flatten(),
        L.Dense(16, activation="tanh"),
        L.Dense(16, activation="sigmoid"),
        L.Dense(4),
        L.Softmax(),
    ]


def sequence():
    return [
        L.Reshape((8, 8)),
        L.Conv1D(6, 3, activation="relu"),
        L.Dense(6, activation="relu"),
        L.Flatten(),
        L.Dense(4, activation="softmax"),
    ]


def trained(layers, bits, seed, x, y, **config):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input(x.shape[1:]), *layers])
    qmodel = msq_tf.quantize_model(
        model, msq_tf.MSQConfig(activation_bits=8, **config)
    )
    qmodel.set_bits(dict.fromkeys(qmodel.bits, bits))
    loss = "mse" if y.dtype.kind == "f" else "sparse_categorical_crossentropy"
    qmodel.compile(keras.optimizers.Adam(1e-2), loss)
    qmodel.fit(x, y, epochs=3, verbose=0)
    return qmodel


@pytest.mark.slow
@pytest.mark.parametrize("layers", [convolutional, perceptron, sequence])
@pytest.mark.parametrize("bits", [8, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_what_was_trained_is_what_is_exported(layers, bits, seed, tmp_path):
    x, y = quadrants(seed=seed)
    ranges = "learned" if seed else "ema"
    qmodel = trained(layers(), bits, seed, x, y, activation_ranges=ranges)
    report = export(
        qmodel,
        tmp_path / "m",
        target="cpu_int8",
        representative_data=x[:32],
        min_agreement=1.0,
    )
    (note,) = [n for n in report.notes if n.startswith("against Keras with")]
    assert "the same class in 100.0% of 32" in note


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_sine(seed, tmp_path):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-3, 3, size=(256, 1)).astype(np.float32)
    layers = [
        L.Dense(16, activation="relu"),
        L.Dense(16, activation="relu"),
        L.Dense(1),
    ]
    qmodel = trained(layers, 4, seed, x, np.sin(x))
    report = export(
        qmodel, tmp_path / "m", target="cpu_int8", representative_data=x[:64]
    )
    assert not any("class" in note for note in report.notes)


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """The arguments with which a right file is checked against Keras."""
    x, y = quadrants()
    qmodel = trained(convolutional(), 4, 0, x, y)
    return arguments_of_the_check(qmodel, x, tmp_path_factory.mktemp("sites"))


def arguments_of_the_check(qmodel, x, folder):
    seen = []

    def spy(*arguments):
        seen.append(arguments)
        return right(*arguments)

    right = keras_agreement.against_keras
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target_file.keras_agreement, "against_keras", spy)
        export(
            qmodel,
            folder / "m",
            target="cpu_int8",
            representative_data=x[:32],
        )
    return seen[0]


@pytest.fixture(params=[2, -1], ids=["usual", "explained"])
def limit(request, monkeypatch):
    """The limit from end to end, and one that nothing keeps to."""
    monkeypatch.setitem(keras_agreement.END_UNITS, "int8", request.param)
    return request.param


@pytest.mark.slow
def test_a_right_file(checked, limit):
    data, source, samples, target, _, *rest = checked
    limits = keras_agreement.Limits(min_agreement=0.97 if limit > 0 else 0.0)
    notes = keras_agreement.against_keras(
        data, source, samples, target, limits, *rest
    )
    explained = [note for note in notes if "but right" in note]
    assert len(explained) == (limit < 0)
    assert all("at 6 sites" in note for note in explained)


def weights(model, op_name, number=0):
    graph = model.subgraphs[0]
    ops = [o for o in graph.operators if fb.op_name(model, o) == op_name]
    return graph, [graph.tensors[i] for i in fb.inputs(ops[number])[1:]]


def stored(model, tensor, dtype):
    return np.array(model.buffers[tensor.buffer].data, np.uint8).view(dtype)


def shifted_bias(model):
    graph, (weight, bias) = weights(model, "CONV_2D", 1)
    values = stored(model, bias, np.int32).copy()
    output = next(
        graph.tensors[fb.outputs(op)[0]]
        for op in graph.operators
        if fb.op_name(model, op) == "CONV_2D"
        and bias is graph.tensors[fb.inputs(op)[2]]
    )
    # Four units of what the operator writes.
    values[2] += round(
        4 * output.quantization.scale[0] / bias.quantization.scale[2]
    )
    model.buffers[bias.buffer].data = values.view(np.uint8)


def wrong_scale(model):
    _, (weight, _) = weights(model, "CONV_2D", 0)
    weight.quantization.scale = np.asarray(weight.quantization.scale) * 1.1


def permuted_channels(model):
    _, (weight, bias) = weights(model, "CONV_2D", 0)
    order = [1, 0, *range(2, 6)]
    codes = stored(model, weight, np.int8).reshape(6, -1)
    model.buffers[weight.buffer].data = codes[order].ravel().view(np.uint8)
    model.buffers[bias.buffer].data = stored(model, bias, np.int32)[order].view(
        np.uint8
    )
    for tensor in (weight, bias):
        scale = np.asarray(tensor.quantization.scale)[order]
        tensor.quantization.scale = scale


def one_code(model):
    _, (weight, _) = weights(model, "CONV_2D", 0)
    codes = stored(model, weight, np.int8).copy()
    codes[4] = 7 if codes[4] <= 0 else -7
    model.buffers[weight.buffer].data = codes.view(np.uint8)


@pytest.mark.first(1)
@pytest.mark.parametrize(
    "spoil", [shifted_bias, wrong_scale, permuted_channels, one_code]
)
def test_a_wrong_file(spoil, checked, monkeypatch):
    """Even if the output shows it by chance only."""
    monkeypatch.setitem(keras_agreement.END_UNITS, "int8", -1)
    data, source, samples, target, limits, *rest = checked
    model = fb.load(data)
    spoil(model)
    limits = keras_agreement.Limits(min_agreement=0.0)
    with pytest.raises(ExportError, match="something else.*CONV_2D") as error:
        keras_agreement.against_keras(
            fb.dump(model), source, samples, target, limits, *rest
        )
    assert "Received: on the very inputs" in str(error.value)


def test_wrong_files_are_refused_by_the_usual_limit(checked):
    data, *rest = checked
    model = fb.load(data)
    permuted_channels(model)
    with pytest.raises(ExportError):
        keras_agreement.against_keras(fb.dump(model), *rest)


def test_a_limit_of_the_users_own_is_not_explained_away(checked, monkeypatch):
    data, source, samples, target, _, *rest = checked
    limits = keras_agreement.Limits(max_units=-1)
    with pytest.raises(ExportError, match="max_units=-1"):
        keras_agreement.against_keras(
            data, source, samples, target, limits, *rest
        )


class Inside(L.Layer):
    """Averages in a layer that training sees from outside."""

    def __init__(self, *functions):
        super().__init__()
        self.functions = functions

    def call(self, x):
        for function in self.functions:
            x = function(x)
        return x


def resized(x):
    return keras.ops.image.resize(x, (5, 13))


def pooled(x):
    return keras.ops.average_pool(x, 2, 1, padding="same")


def aligned_corners(op):
    op.builtinOptions.alignCorners = True
    op.builtinOptions.halfPixelCenters = False


def other_columns(op):
    """A column of two."""
    op.builtinOptions.filterWidth = 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("functions", "kind", "spoil"),
    [
        ((resized,), "RESIZE_BILINEAR", aligned_corners),
        ((pooled,), "AVERAGE_POOL_2D", other_columns),
        ((resized, pooled), "AVERAGE_POOL_2D", other_columns),
    ],
)
def test_averages_that_the_file_rounds_and_keras_does_not(
    functions, kind, spoil, tmp_path, monkeypatch
):
    """What rounding explains is right, and another kernel is not."""
    x, _ = quadrants()
    layers = [
        Inside(*functions),
        L.Conv2D(4, 2),
        L.Flatten(),
        L.Dense(1),
    ]
    qmodel = trained(layers, 8, 0, x, x.mean((1, 2)))
    data, *rest = arguments_of_the_check(qmodel, x, tmp_path)
    monkeypatch.setitem(keras_agreement.END_UNITS, "int8", -1)
    notes = keras_agreement.against_keras(data, *rest)
    (note,) = [note for note in notes if "but right" in note]
    assert "can't be compared" not in note
    model = fb.load(data)
    for op in model.subgraphs[0].operators:
        if fb.op_name(model, op) == kind:
            spoil(op)
    with pytest.raises(ExportError, match="on the very inputs"):
        keras_agreement.against_keras(fb.dump(model), *rest)

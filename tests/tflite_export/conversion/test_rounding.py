"""The limit of float files: what rounding explains, and nothing else."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from tests.tflite_export.samples import quantized
from tflite_export import ExportError
from tflite_export import export
from tflite_export.conversion import float_file
from tflite_export.conversion import rounding
from tflite_export.conversion.source import from_model
from tflite_export.flatbuffer import model as fb
from tflite_export.verification import float_outputs

L = keras.layers
OFFSET = 20_000.0


def ill_conditioned(seed=0):
    """Inputs far from zero, which a bias brings back, through six layers."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [keras.Input((64,))]
        + [L.Dense(64, activation="tanh") for _ in range(5)]
        + [L.Dense(8)]
    )
    rng = np.random.default_rng(0)
    for layer in model.layers:
        layer.bias.assign(rng.normal(0, 0.1, layer.bias.shape))
    qmodel = msq_tf.quantize_model(model)
    kernel = qmodel.quantized_weights()[0].values
    model.layers[0].bias.assign(-OFFSET * kernel.astype("d").sum(0))
    return qmodel, (OFFSET + rng.normal(size=(32, 64))).astype("f")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_right_file_of_an_ill_conditioned_model_is_accepted(seed, tmp_path):
    qmodel, x = ill_conditioned(seed)
    path = tmp_path / "m.tflite"
    report = export(qmodel, path, target="cpu_float", representative_data=x)
    assert max(c.relative_error for c in report.checks) > 1e-4
    (note,) = report.notes
    assert "is rounding in this model" in note
    # What a user says is the limit is the limit.
    with pytest.raises(ExportError, match="argument max_relative_error"):
        export(
            qmodel,
            path,
            target="cpu_float",
            representative_data=x,
            max_relative_error=1e-4,
        )


def changed(data, layer, change):
    """A file with another constant in one of its dense layers."""
    model = fb.load(data)
    graph = model.subgraphs[0]
    op = [o for o in graph.operators if len(fb.inputs(o)) == 3][layer]
    weight, bias = fb.inputs(op)[1:]
    for index in (weight, bias):
        tensor = graph.tensors[index]
        value = change(fb.constant(model, tensor).copy())
        model.buffers[tensor.buffer].data = value.reshape(-1).view(np.uint8)
    return fb.dump(model)


def swapped(value):
    value[[0, 1]] = value[[1, 0]]
    return value


def code_off(value):
    if value.ndim == 2:
        value[0, 0] += np.abs(value).max() / 7
    return value


def bias_off(value):
    if value.ndim == 1:
        value[0] += 0.5
    return value


# One code deep inside moves outputs by less than rounding does in the model
# that is ill-conditioned: codes are compared bit for bit, not by outputs.
WRONG = [
    (change, layer, ill)
    for change in (swapped, code_off, bias_off)
    for layer in (0, 3, 5)
    for ill in (True, False)
    if not (ill and layer and change is code_off)
]


@pytest.mark.first(1)
@pytest.mark.parametrize(("change", "layer", "ill"), WRONG)
def test_a_wrong_file_is_refused(change, layer, ill):
    qmodel, x = ill_conditioned()
    if not ill:
        qmodel.base.layers[0].bias.assign(np.full(64, 0.1))
        x = x - np.float32(OFFSET)
    found = float_file.to_float_file(from_model(qmodel))
    right = bytes(found.data)
    check = (right, found.source, [x], None, found.graph)
    float_outputs.check_outputs(right, *check)
    with pytest.raises(ExportError, match="computes other numbers"):
        float_outputs.check_outputs(changed(right, layer, change), *check)


def test_what_is_no_kernel_in_float64_is_measured_by_small_changes():
    """Resized images are float32 whatever goes in."""
    inputs = keras.Input((4, 4, 2))
    x = L.Resizing(8, 8)(L.Conv2D(3, 3, padding="same")(inputs))
    qmodel = quantized(keras.Model(inputs, L.Conv2D(2, 3)(x)))
    source = from_model(qmodel)
    graph = float_file.to_float_file(source).graph()
    images = np.random.default_rng(0).normal(size=(2, 4, 4, 2)).astype("f")
    expected = source.predict([[images]])
    reference, (bound,) = rounding.bounds(graph, [[images]])
    assert 0 < bound < 1e-4 * np.ptp(expected[0][0])
    np.testing.assert_allclose(reference[0][0], expected[0][0], atol=1e-5)


def test_a_graph_in_float64_is_that_graph():
    qmodel, x = ill_conditioned()
    source = from_model(qmodel)
    graph = float_file.to_float_file(source).graph()
    (plain,) = graph.run([[x]])
    wide = dataclasses.replace(
        graph, definition=rounding.in_float64(graph.definition)
    )
    ((precise,),) = wide.run([[x]])
    assert precise.dtype == np.float64
    weights = {w.path: w.values for w in qmodel.quantized_weights()}
    y = x.astype("d")
    for layer in qmodel.base.layers:
        y = y @ weights[layer.name].astype("d") + np.asarray(layer.bias)
        y = y if layer is qmodel.base.layers[-1] else np.tanh(y)
    np.testing.assert_allclose(precise, y, rtol=1e-9)
    assert np.abs(plain[0] - y).max() > 1e-6


def test_not_a_number_explains_nothing():
    graph = float_file.to_float_file(
        from_model(keras.Sequential([keras.Input((2,)), L.Dense(2)]))
    ).graph()
    x = np.full((1, 2), np.nan, np.float32)
    _, (bound,) = rounding.bounds(graph, [[x]])
    assert bound == 0.0


def test_a_graph_that_keras_does_not_compute_explains_nothing(monkeypatch):
    """The file and its graph agree, and are both wrong."""
    qmodel, x = ill_conditioned()
    found = float_file.to_float_file(from_model(qmodel))
    honest = float_outputs._expected

    def shifted(*args):
        chunks, batches = honest(*args)
        return chunks, [[y + 1 for y in batch] for batch in batches]

    monkeypatch.setattr(float_outputs, "_expected", shifted)
    with pytest.raises(ExportError, match="computes other numbers"):
        float_outputs.check_outputs(
            bytes(found.data),
            bytes(found.data),
            found.source,
            [x],
            None,
            found.graph,
        )


def test_constants_that_give_sizes_are_not_moved():
    """`Range` to 4 and a bit has five numbers."""
    spec = tf.TensorSpec((None, 4), tf.float32)

    @tf.function(input_signature=[spec], autograph=False)
    def function(x):
        # What is known is not computed while tracing.
        four = tf.raw_ops.Range(start=0.0, limit=4.0, delta=1.0)
        half = tf.cast(tf.constant(8.0) * tf.constant(0.5), tf.int32)
        return x * four + tf.reshape(x, (-1, half)) * 0.1

    graph = function.get_concrete_function().graph.as_graph_def()
    shaken = rounding._shaken(graph, np.random.default_rng(0))
    values = {
        float(tf.make_ndarray(node.attr["value"].tensor))
        for node in shaken.node
        if node.op == "Const" and node.attr["dtype"].type == rounding._FLOAT
    }
    assert {4.0, 8.0, 0.5} <= values and 0.1 not in values

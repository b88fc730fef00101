"""Keras models of files: the same outputs, and all that a model can do."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import msq_tf
import tflite_export
from tests.tflite_export.importing.networks import NETWORKS
from tests.tflite_export.importing.networks import apart
from tests.tflite_export.importing.networks import convert
from tests.tflite_export.importing.networks import keyword
from tests.tflite_export.importing.networks import mobile
from tests.tflite_export.importing.networks import outputs_of_file
from tests.tflite_export.importing.networks import samples
from tests.tflite_export.importing.networks import settle
from tflite_export.flatbuffer import model as flat

L = keras.layers


@pytest.mark.parametrize(
    "network",
    [
        n if n in (keyword, mobile) else pytest.param(n, marks=pytest.mark.slow)
        for n in NETWORKS
    ],
)
def test_a_float_file(network, tmp_path):
    plain = settle(network())
    path = convert(plain, "float32", tmp_path / "m.tflite")
    model = msq_tf.from_tflite(path)
    assert model.name == "m"
    assert model.input_shape[0] is None
    assert model.input_shape[1:] == plain.input_shape[1:]
    assert max(apart(path, model)) <= 1e-5
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    x = samples(model, 1)
    for a, b in zip(
        keras.tree.flatten(model(x)), keras.tree.flatten(loaded(x)), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    ("kind", "most"),
    # Kernels round activations of these, to 8 bits, as they compute.
    [("float16", 1e-5), ("dynamic", 0.02), ("int8", 0.08)],
)
def test_files_of_other_types(network, kind, most, tmp_path):
    plain = settle(network())
    path = convert(plain, kind, tmp_path / "m.tflite")
    model = msq_tf.from_tflite(path)
    assert max(apart(path, model)) <= most


@pytest.mark.first(1)
@pytest.mark.parametrize("target", ["min_size", "cpu_float", "cpu_int8"])
def test_our_own_files_give_the_same_codes(target, tmp_path):
    config = msq_tf.MSQConfig(activation_bits=8)
    qmodel = msq_tf.quantize_model(settle(keyword()), config)
    x = samples(qmodel.base, 32)
    qmodel.set_bits(dict(zip(qmodel.paths, (8, 4, 2, 4), strict=True)))
    msq_tf.calibrate(qmodel, x)
    path = tmp_path / "m.tflite"
    tflite_export.export(
        qmodel, path, target=target, batch_size=1, representative_data=x
    )
    model = msq_tf.from_tflite(path)
    kernels = [
        np.asarray(v) for v in model.trainable_variables if len(v.shape) > 1
    ]
    assert len(kernels) == len(qmodel.paths)
    for weight, kernel in zip(qmodel.quantized_weights(), kernels, strict=True):
        # Batch norms are folded into scales, which divides by a channel.
        flat = kernel.reshape(weight.codes.shape)
        step = _steps(flat, weight)
        codes = flat / step
        np.testing.assert_allclose(codes, np.round(codes), atol=1e-3)
        np.testing.assert_array_equal(
            np.abs(np.round(codes)), np.abs(weight.codes)
        )


def _steps(kernel, weight):
    """What one code of each channel stands for in a file."""
    codes = weight.codes.astype(np.float64)
    axes = tuple(i for i, n in enumerate(weight.step.shape) if n == 1)
    own = np.sum(kernel * codes, axes, keepdims=True)
    squares = np.sum(codes * codes, axes, keepdims=True)
    return own / np.where(squares > 0, squares, 1.0) + (squares == 0)


@pytest.mark.slow
def test_it_trains_searches_and_exports(tmp_path):
    path = convert(settle(keyword()), "int8", tmp_path / "m.tflite")
    model = msq_tf.from_tflite(path)
    qmodel = msq_tf.quantize_model(model)
    qmodel.compile("adam", "sparse_categorical_crossentropy")
    x = samples(model, 64)
    y = np.argmax(outputs_of_file(path, x)[0], -1)
    qmodel.fit(
        x,
        y,
        epochs=4,
        verbose=0,
        callbacks=[msq_tf.MSQCallback(msq_tf.BudgetRule(target_compression=8))],
    )
    assert qmodel.compression >= 8
    report = tflite_export.export(
        qmodel, tmp_path / "q.tflite", target="min_size"
    )
    assert report.file_bytes < path.stat().st_size
    again = msq_tf.from_tflite(tmp_path / "q.tflite")
    np.testing.assert_allclose(
        again(x), qmodel.predict(x, verbose=0), atol=1e-5
    )


def test_what_is_missing_is_named(tmp_path):
    inputs = keras.Input((8,))
    path = convert(
        keras.Model(inputs, keras.ops.flip(keras.ops.sort(inputs))),
        "float32",
        tmp_path / "m.tflite",
    )
    model = flat.load(path.read_bytes())
    codes = [flat.code_name(code) for code in model.operatorCodes]
    at = codes.index("TOPK_V2")
    code = model.operatorCodes[at]
    code.builtinCode = schema.BuiltinOperator.UNIQUE
    code.deprecatedBuiltinCode = code.builtinCode
    path.write_bytes(flat.dump(model))
    with pytest.raises(ValueError, match=r"UNIQUE \(1, the first writes '.+'"):
        msq_tf.from_tflite(path)


def test_integers_of_a_grid_are_no_numbers(tmp_path):
    """As a table of a function in an integer file takes them."""
    inputs = keras.Input((4,), dtype="int32")
    x = L.Dense(2)(keras.ops.cast(inputs, "float32"))
    path = convert(keras.Model(inputs, x), "float32", tmp_path / "m.tflite")
    assert max(apart(path, msq_tf.from_tflite(path))) <= 1e-5
    model = flat.load(path.read_bytes())
    graph = model.subgraphs[0]
    grid = schema.QuantizationParametersT()
    grid.scale, grid.zeroPoint = [0.5], [0]
    graph.tensors[flat.inputs(graph)[0]].quantization = grid
    path.write_bytes(flat.dump(model))
    with pytest.raises(ValueError, match="CAST: it takes integers of a grid"):
        msq_tf.from_tflite(path)


def opened(path, axes):
    """Says in a file that axes of its input are open."""
    model = flat.load(path.read_bytes())
    graph = model.subgraphs[0]
    graph.tensors[flat.inputs(graph)[0]].shapeSignature = axes
    path.write_bytes(flat.dump(model))


def test_axes_that_are_open_stay_open(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = L.MaxPooling2D()(L.Conv2D(4, 3, activation="relu")(inputs))
    plain = keras.Model(inputs, L.GlobalAveragePooling2D()(x))
    path = convert(plain, "float32", tmp_path / "m.tflite")
    opened(path, [-1, -1, -1, 3])
    model = msq_tf.from_tflite(path)
    assert model.input_shape == (None, None, None, 3)
    x = np.random.default_rng(0).normal(size=(2, 12, 10, 3))
    assert model(x.astype(np.float32)).shape == (2, 4)
    small = samples(plain, 2)
    np.testing.assert_allclose(model(small), plain(small), atol=1e-5)


def test_a_graph_that_depends_on_an_open_axis_is_refused(tmp_path):
    inputs = keras.Input((8, 3))
    path = convert(
        keras.Model(inputs, L.Dense(2)(L.Flatten()(inputs))),
        "float32",
        tmp_path / "m.tflite",
    )
    opened(path, [-1, -1, 3])
    with pytest.raises(ValueError, match="depends on axes that are open"):
        msq_tf.from_tflite(path)


@pytest.mark.slow
def test_damaged_files_are_refused_or_read(tmp_path):
    """Whatever a byte says, there is a model or a ValueError."""
    path = convert(settle(keyword()), "float32", tmp_path / "m.tflite")
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    # Tables stand behind the weights.
    places = rng.integers(0, len(data), 150)
    refused = 0
    for place in places:
        changed = bytearray(data)
        changed[place] = rng.integers(256)
        path.write_bytes(changed)
        try:
            msq_tf.from_tflite(path)
        except ValueError as error:
            assert "Received" in str(error) or "expected" in str(error).lower()
            refused += 1
    assert 0 < refused < len(places)


def test_no_file_of_tflite(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(b"a text of some length")
    with pytest.raises(ValueError, match="Not a TFLite file"):
        msq_tf.from_tflite(path)
    with pytest.raises(ValueError, match="Received"):
        msq_tf.from_tflite(tmp_path / "none.tflite")


def test_inputs_have_the_names_of_the_signature(tmp_path):
    """Their order in the file is not that of the network."""
    left, right = (
        keras.Input((6,), name="left"),
        keras.Input((6,), name="apart"),
    )
    x = L.Concatenate()([left, 2.0 * right])
    plain = keras.Model([left, right], L.Dense(3)(x))
    path = convert(plain, "float32", tmp_path / "m.tflite")
    model = msq_tf.from_tflite(path)
    assert {x.name for x in model.inputs} == {"left", "apart"}
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 4, 6)).astype(np.float32)
    given = {"left": a, "apart": b}
    expected = plain([a, b])
    np.testing.assert_allclose(model(given), expected, atol=1e-5)
    qmodel = msq_tf.quantize_model(model)
    np.testing.assert_allclose(qmodel(given), expected, atol=0.1)
    again = tmp_path / "again.tflite"
    tflite_export.export(qmodel, again, target="min_size")
    same = msq_tf.from_tflite(again)
    assert {x.name for x in same.inputs} == {"left", "apart"}
    np.testing.assert_allclose(same(given), qmodel(given), atol=1e-5)


def test_names_that_keras_does_not_take(tmp_path):
    path = convert(settle(keyword()), "float32", tmp_path / "m.tflite")
    file = flat.load(path.read_bytes())
    (signature,) = file.signatureDefs
    (given,) = signature.inputs
    for name, expected in ((b"a b", "a_b"), (b"", None)):
        given.name = name
        path.write_bytes(flat.dump(file))
        (x,) = msq_tf.from_tflite(path).inputs
        assert x.name and expected in (None, x.name)

"""What TFLite has no operator for and still can be exported."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.tflite_export.samples import quantized
from tflite_export import ExportError
from tflite_export import export
from tflite_export import inspect_file
from tflite_export import run
from tflite_export.conversion.lowering import lowered

L = keras.layers


@pytest.mark.parametrize(
    ("shift", "axis"),
    [(1, 1), (-2, -1), ((3, -1), (1, 2)), ((1, 1), (1, 1)), (9, 1), (0, 1)],
)
def test_equals_roll(shift, axis):
    x = tf.reshape(tf.range(2 * 5 * 4), (2, 5, 4))
    with lowered():
        assert tf.roll is not original
        got = tf.roll(x, shift, axis)
    assert tf.roll is original
    np.testing.assert_array_equal(got, tf.roll(x, shift, axis))


original = tf.roll


def traced_map(function):
    spec = tf.TensorSpec((None, 3), tf.float32)

    def mapped(x):
        return tf.map_fn(function, x)

    traced = tf.function(mapped, input_signature=[spec], autograph=False)
    with lowered():
        found = traced.get_concrete_function()
    return found, {op.type for op in found.graph.get_operations()}


def test_a_map_over_samples_is_no_loop():
    traced, operations = traced_map(lambda row: tf.gather(row, [2, 0]) * 2.0)
    x = tf.reshape(tf.range(6.0), (2, 3))
    np.testing.assert_array_equal(traced(x), [[4, 0], [10, 6]])
    assert not operations & {"While", "StatelessWhile"}


def test_a_map_that_needs_its_loop_keeps_it():
    def halved(row):
        return tf.while_loop(
            lambda y: tf.reduce_sum(y) > 1.0, lambda y: [y / 2.0], [row]
        )[0]

    traced, _ = traced_map(halved)
    x = tf.constant([[1.0, 1.0, 2.0], [0.0, 0.5, 0.0]])
    np.testing.assert_allclose(traced(x), [[0.25, 0.25, 0.5], [0.0, 0.5, 0.0]])


def test_what_is_compiled_by_itself_is_traced_as_it_is():
    def traced():
        @tf.function(jit_compile=True)
        def doubled(x):
            return 2 * x

        @tf.function
        def halved(x):
            return x / 2

        graph = tf.Graph()
        with graph.as_default():
            halved(doubled(tf.ones(3)))
        functions = graph.as_graph_def().library.function
        return [f.signature.name.split("_")[3] for f in functions]

    assert len(traced()) == 2
    with lowered():
        (left,) = traced()
        decorate = tf.function(jit_compile=True)
        assert decorate(traced) is traced
    assert left == "halved"


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("kind", [L.MaxPooling3D, L.AveragePooling3D])
@pytest.mark.parametrize(
    ("size", "strides"), [(2, None), ((2, 3, 1), (1, 2, 3)), (3, 2)]
)
def test_equals_pooling_of_volumes(kind, size, strides, padding):
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 7, 3)).astype("f")
    layer = kind(size, strides, padding)
    with lowered():
        found = tf.function(layer).get_concrete_function(tf.constant(x))
    kinds = {op.type for op in found.graph.get_operations()}
    assert kinds & {"MaxPool", "AvgPool"} and not kinds & {
        "MaxPool3D",
        "AvgPool3D",
    }
    wanted = layer(x)
    np.testing.assert_allclose(found(tf.constant(x)), wanted, atol=1e-6)


@pytest.mark.first(1)
@pytest.mark.parametrize("kind", [L.MaxPooling3D, L.AveragePooling3D])
def test_layers_that_pool_volumes_are_exported(kind, tmp_path):
    x = inputs = keras.Input((4, 6, 6, 2))
    x = kind(2)(L.Conv3D(3, 2, padding="same", activation="relu")(x))
    qmodel = quantized(keras.Model(inputs, L.Dense(3)(L.Flatten()(x))))
    data = np.random.default_rng(0).normal(size=(9, 4, 6, 6, 2)).astype("f")
    path = tmp_path / "m.tflite"
    export(qmodel, path, "cpu_int8", data)
    export(qmodel, path, representative_data=data)
    np.testing.assert_allclose(
        run(path, data), qmodel(data, training=False), rtol=1e-3, atol=1e-4
    )


VOLUMES = {
    "groups": {"groups": 2},
    "groups, dilated": {"groups": 2, "dilation_rate": (1, 2, 2)},
    "channels first": {"data_format": "channels_first"},
    "both": {"groups": 2, "data_format": "channels_first"},
    "strides": {"strides": (1, 2, 3), "padding": "same"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", VOLUMES)
def test_convolutions_of_volumes_are_exported(name, tmp_path):
    options = VOLUMES[name]
    shape = (2, 4, 5, 6) if "data_format" in options else (4, 5, 6, 2)
    x = inputs = keras.Input(shape)
    x = L.Conv3D(4, 2, activation="relu", **options)(x)
    qmodel = quantized(keras.Model(inputs, L.Dense(3)(L.Flatten()(x))))
    data = np.random.default_rng(0).normal(size=(9, *shape)).astype("f")
    # Its gradient, too.
    qmodel.compile("sgd", "mse")
    qmodel.fit(data, np.zeros((9, 3)), verbose=0)
    path = tmp_path / "m.tflite"
    for target in ("min_size", "cpu_float", "cpu_int8"):
        export(qmodel, path, target, data)
        wanted = qmodel(data, training=False).numpy()
        close = 0.02 if target == "cpu_int8" else 1e-5
        assert np.abs(run(path, data) - wanted).max() < close * np.ptp(wanted)
    operators = {op.split()[0] for op in inspect_file(path).ops}
    assert {"CONV_3D"} <= operators
    assert ("CONCATENATION" in operators) == ("groups" in options)


@pytest.mark.slow
def test_layers_that_roll_are_exported(tmp_path):
    x = inputs = keras.Input((4, 6, 3))
    x = L.Lambda(lambda x: tf.roll(x, [1], [2]))(L.Conv2D(4, 3)(x))
    x = keras.ops.roll(x, (-1, 2), (1, 2))
    qmodel = quantized(keras.Model(inputs, L.Dense(3)(L.Flatten()(x))))
    data = np.random.default_rng(0).normal(size=(4, 4, 6, 3)).astype("f")
    path = tmp_path / "m.tflite"
    for target in ("min_size", "cpu_int8"):
        export(qmodel, path, target=target, representative_data=data)
        names = {name.split()[0] for name in inspect_file(path).ops}
        assert "CONCATENATION" in names
    export(qmodel, path, representative_data=data)
    np.testing.assert_allclose(
        run(path, data), qmodel(data, training=False), rtol=1e-3, atol=1e-4
    )


@pytest.mark.slow
def test_along_an_open_axis_it_needs_to_know_the_length(tmp_path):
    x = inputs = keras.Input((None, 3))
    x = keras.ops.roll(L.Dense(4)(x), 1, 1)
    qmodel = quantized(keras.Model(inputs, x))
    expected = r"no TFLite operator.*tf\.Roll.*`representative_data`"
    with pytest.raises(ExportError, match=expected):
        export(qmodel, tmp_path / "m.tflite")
    data = np.random.default_rng(0).normal(size=(4, 6, 3)).astype(np.float32)
    report = export(qmodel, tmp_path / "m.tflite", representative_data=data)
    assert any("fixed" in note and "6 x 3" in note for note in report.notes)

"""Dilated convolutions of a file are layers of Keras, and run on devices."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
import tflite_export
from tests.tflite_export.importing.networks import apart
from tests.tflite_export.importing.networks import convert
from tests.tflite_export.importing.networks import samples
from tests.tflite_export.importing.networks import settle
from tests.tflite_export.importing.networks import written
from tflite_export.flatbuffer import model as flat

L = keras.layers


def causal(kernel, rate):
    return L.Conv1D(4, kernel, dilation_rate=rate, padding="causal")


CASES = {
    "same": [(9, 12, 3), L.Conv2D(4, 3, dilation_rate=2, padding="same")],
    "valid": [(15, 16, 3), L.Conv2D(4, 3, dilation_rate=(2, 3))],
    "even": [(9, 10, 3), L.Conv2D(4, (2, 4), dilation_rate=3, padding="same")],
    "depthwise": [
        (9, 9, 3),
        L.DepthwiseConv2D((3, 2), dilation_rate=2, padding="same"),
        L.ReLU(),
    ],
    "causal": [(20, 3), causal(3, 2), L.ReLU(), causal(2, 4)],
    "one_axis": [(21, 3), L.Conv1D(4, 4, dilation_rate=2, padding="same")],
}


def network(name):
    shape, *layers = CASES[name]
    model = keras.Sequential([keras.Input(shape), *layers])
    # Layers are of one model each.
    return settle(keras.models.clone_model(model))


def rates(model):
    """The dilation of layers whose weights reach over several places."""
    return [
        max(layer.dilation_rate)
        for layer in model.layers
        if hasattr(layer, "dilation_rate")
    ]


@pytest.mark.first(2)
@pytest.mark.parametrize("kind", ["float32", "int8"])
@pytest.mark.parametrize("name", ["causal", *CASES])
def test_they_are_one_layer_each(name, kind, tmp_path):
    plain = network(name)
    path = convert(plain, kind, tmp_path / "m.tflite")
    model = msq_tf.from_tflite(path)
    assert rates(model) == rates(plain)
    assert model.input_shape == plain.input_shape
    assert max(apart(path, model)) <= (1e-5 if kind == "float32" else 0.01)
    kinds = {type(layer).__name__ for layer in model.layers}
    assert not kinds & {"Transpose", "Pad", "GetItem"}


def test_they_are_exported_to_kernels_without_such_batches(tmp_path):
    path = convert(network("same"), "int8", tmp_path / "m.tflite")
    model = msq_tf.from_tflite(path)
    config = msq_tf.MSQConfig(
        targets=("mcu",), dense_granularity=msq_tf.PerTensor()
    )
    qmodel = msq_tf.quantize_model(model, config)
    small = tmp_path / "mcu.tflite"
    tflite_export.export(
        qmodel,
        small,
        target="mcu",
        representative_data=samples(model, 8),
        verbose=False,
    )
    file = flat.read(small.read_bytes())
    kinds = [flat.op_name(file, op) for op in file.subgraphs[0].operators]
    assert set(kinds) <= {"QUANTIZE", "CONV_2D", "DEQUANTIZE"}


def test_what_is_padded_otherwise_stays_as_it_is(tmp_path):
    """No padding of Keras begins one place further out."""
    path = convert(network("same"), "float32", tmp_path / "m.tflite")
    file = flat.read(path.read_bytes())
    graph = file.subgraphs[0]
    (op,) = (
        op
        for op in graph.operators
        if flat.op_name(file, op) == "SPACE_TO_BATCH_ND"
    )
    buffer = file.buffers[graph.tensors[flat.inputs(op)[2]].buffer]
    added = np.frombuffer(bytes(buffer.data), np.int32).reshape(2, 2)
    buffer.data = np.frombuffer(
        (added + [[1, -1], [0, 0]]).astype(np.int32).tobytes(), np.uint8
    )
    path.write_bytes(flat.dump(file))
    model = msq_tf.from_tflite(path)
    assert rates(model) == [1]
    assert max(apart(path, model)) <= 1e-5


def test_what_is_read_twice_stays_as_it_is(tmp_path):
    def read_twice(x):
        places = tf.space_to_batch(x, [2, 2], [[2, 2], [2, 2]])
        y = tf.nn.conv2d(places, tf.ones((3, 3, 3, 2)), 1, "VALID")
        y = tf.batch_to_space(y, [2, 2], [[0, 0], [0, 0]])
        return y * tf.reduce_sum(places)

    traced = tf.function(read_twice).get_concrete_function(
        tf.TensorSpec((1, 8, 8, 3))
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced])
    path = written(converter, tmp_path / "m.tflite")
    model = msq_tf.from_tflite(path)
    assert set(rates(model)) <= {1}
    assert max(apart(path, model)) <= 1e-5


def test_a_constant_of_several_rows_is_read_by_a_layer(tmp_path):
    """As a recurrence on its first state, in a file of one sample."""

    def recurs(x):
        weights = tf.reshape(tf.range(12.0), (4, 3)) / 12.0
        state = tf.zeros((1, 4)) + tf.reduce_mean(x)
        table = tf.linalg.matmul(tf.ones((2, 4)), weights)
        return tf.matmul(state, weights) + tf.reduce_sum(table)

    traced = tf.function(recurs).get_concrete_function(tf.TensorSpec((1, 4)))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced])
    path = written(converter, tmp_path / "m.tflite")
    assert max(apart(path, msq_tf.from_tflite(path))) <= 1e-5

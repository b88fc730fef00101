"""Operators of files, each as the interpreter computes it."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from tests.tflite_export.importing.networks import outputs_of_file
from tests.tflite_export.importing.networks import quiet
from tflite_export.flatbuffer import model as flat

RAW = tf.raw_ops
IMAGE = (1, 6, 5, 4)
RNG = np.random.default_rng(5)
KERNEL = tf.constant(RNG.normal(size=(3, 3, 4, 4)).astype(np.float32))


def resized(kernel, size, corners, centers):
    return lambda x: kernel(
        images=x,
        size=size,
        align_corners=corners,
        half_pixel_centers=centers,
    )


def taken(axis, batch, shape=None):
    """What is taken by places that depend on the input."""

    def compute(x):
        index = tf.argsort(x[..., 0] if shape is None else shape(x), axis=-1)
        return tf.gather(x, index[..., :2], axis=axis, batch_dims=batch)

    return compute


def counted(x):
    """A loop of four rounds."""
    return tf.while_loop(
        lambda i, _: i < 4,
        lambda i, y: (i + 1, tf.tanh(tf.matmul(y, KERNEL[0, 0]))),
        (tf.constant(0), x),
        maximum_iterations=4,
    )[1]


def dilated(x):
    """A kernel between operators that the converter does not fold."""
    y = RAW.SpaceToBatchND(
        input=x, block_shape=[2, 2], paddings=[[2, 2], [2, 3]]
    )
    y = tf.nn.relu(tf.nn.conv2d(tf.abs(y), KERNEL, 1, "VALID"))
    return RAW.BatchToSpaceND(
        input=y, block_shape=[2, 2], crops=[[0, 0], [0, 1]]
    )


def up(size, padding):
    return lambda x: tf.nn.conv2d_transpose(
        x, KERNEL, [1, *size, 4], 2, padding
    )


CASES = {
    "ADD_N": ((1, 4), lambda x: RAW.AddN(inputs=[x, x * 2.0, tf.sin(x)])),
    "ARG_MAX": (IMAGE, lambda x: tf.argmax(x, -1, tf.int32)),
    "ARG_MIN": (IMAGE, lambda x: tf.argmin(x, -1, tf.int32)),
    "BATCH_MATMUL": (
        (1, 3, 4),
        lambda x: tf.matmul(x, tf.sin(x), transpose_b=True),
    ),
    "BATCH_TO_SPACE_ND": (IMAGE, dilated),
    "CAST": ((1, 4), lambda x: tf.cast(tf.cast(x * 3.0, tf.int32), tf.float32)),
    "FLOOR_MOD": ((1, 4), lambda x: tf.math.floormod(x, tf.constant(0.3))),
    "GATHER": ((1, 4, 3), taken(1, 1)),
    "GATHER of a later axis": (
        (1, 4, 5, 3),
        taken(2, 1, lambda x: x[:, 0, :, 0]),
    ),
    "GATHER by two batch axes": ((1, 4, 5, 3), taken(2, 2)),
    "GATHER of one axis": ((1, 4, 3), lambda x: tf.gather(x, [2, 0], axis=1)),
    "L2_NORMALIZATION": ((1, 8), lambda x: tf.math.l2_normalize(x, -1)),
    "ONE_HOT": ((1, 4), lambda x: tf.one_hot(tf.argmax(x, -1), 4, 2.0, -1.0)),
    "PACK": ((1, 4), lambda x: tf.stack([x, tf.sin(x)], 1)),
    "REDUCE_ANY": (
        (1, 4, 3),
        lambda x: tf.cast(tf.reduce_any(x > 1.0, -1), tf.float32),
    ),
    "RESIZE_BILINEAR": (
        IMAGE,
        resized(RAW.ResizeBilinear, [9, 7], False, False),
    ),
    "RESIZE_BILINEAR of corners": (
        IMAGE,
        resized(RAW.ResizeBilinear, [9, 7], True, False),
    ),
    "RESIZE_BILINEAR of centers": (
        IMAGE,
        resized(RAW.ResizeBilinear, [9, 7], False, True),
    ),
    "RESIZE_BILINEAR by a factor": (
        IMAGE,
        resized(RAW.ResizeBilinear, [12, 10], False, False),
    ),
    "RESIZE_NEAREST_NEIGHBOR": (
        IMAGE,
        resized(RAW.ResizeNearestNeighbor, [9, 7], False, False),
    ),
    "RESIZE_NEAREST_NEIGHBOR of corners": (
        IMAGE,
        resized(RAW.ResizeNearestNeighbor, [9, 7], True, False),
    ),
    "RESIZE_NEAREST_NEIGHBOR of centers": (
        IMAGE,
        resized(RAW.ResizeNearestNeighbor, [9, 7], False, True),
    ),
    "RSQRT": ((1, 4), lambda x: tf.math.rsqrt(tf.abs(x) + 0.1)),
    "SPACE_TO_DEPTH": ((1, 6, 4, 2), lambda x: tf.nn.space_to_depth(x, 2)),
    "SPLIT": (IMAGE, lambda x: tf.split(x, 2, -1)),
    "SPLIT_V": (IMAGE, lambda x: tf.split(x, [1, 3], -1)),
    "SQUARED_DIFFERENCE": (
        (1, 4),
        lambda x: tf.math.squared_difference(x, tf.sin(x)),
    ),
    "STRIDED_SLICE": (IMAGE, lambda x: x[:, 1:-1:2, 3, ::-1]),
    "STRIDED_SLICE with new axes": (IMAGE, lambda x: x[..., tf.newaxis, 1:3]),
    "TOPK_V2": ((1, 8), lambda x: list(tf.math.top_k(x, 3))),
    "TRANSPOSE_CONV": (IMAGE, up((12, 10), "SAME")),
    "TRANSPOSE_CONV of all": (IMAGE, up((13, 11), "VALID")),
    "TRANSPOSE_CONV of odd sizes": (IMAGE, up((11, 9), "SAME")),
    "UNPACK": ((1, 3, 4), lambda x: tf.unstack(x, axis=1)[1] * 2.0),
    "WHILE": ((1, 4), counted),
}


def written(shape, compute, path):
    function = tf.function(compute, autograph=False)
    concrete = function.get_concrete_function(tf.TensorSpec(shape, tf.float32))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    with quiet():
        path.write_bytes(converter.convert())
    return path


def kinds(path):
    model = flat.load(path.read_bytes())
    return {
        flat.op_name(model, op)
        for graph in model.subgraphs
        for op in graph.operators
    }


def agrees(path, model, shape, kind=np.float32):
    x = np.random.default_rng(3).normal(size=(3, *shape[1:])).astype(kind)
    wanted = outputs_of_file(path, x)
    size = model.inputs[0].shape[0] or 3
    parts = [
        keras.tree.flatten(model(x[i : i + size])) for i in range(0, 3, size)
    ]
    for place, expected in enumerate(wanted):
        got = np.concatenate([part[place] for part in parts])
        np.testing.assert_allclose(
            got.reshape(expected.shape), expected, 1e-5, 1e-5
        )


@pytest.mark.parametrize("case", CASES)
def test_an_operator_computes_what_the_file_does(case, tmp_path):
    shape, compute = CASES[case]
    path = written(shape, compute, tmp_path / "m.tflite")
    assert case.partition(" ")[0] in kinds(path)
    model = msq_tf.from_tflite(path)
    agrees(path, model, shape)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    agrees(path, loaded, shape)


def two_graphs(path):
    """A file with a signature for each of two functions."""

    class Two(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([1, 4], tf.float32)])
        def twice(self, x):
            return {"y": x * 2.0}

        @tf.function(input_signature=[tf.TensorSpec([1, 3], tf.float32)])
        def less(self, x):
            return {"y": tf.tanh(x) - 1.0}

    module = Two()
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [f.get_concrete_function() for f in (module.twice, module.less)],
        module,
    )
    with quiet():
        path.write_bytes(converter.convert())
    return path


def test_the_graph_of_a_signature(tmp_path):
    path = two_graphs(tmp_path / "m.tflite")
    model = flat.load(path.read_bytes())
    keys = [flat.text(entry.signatureKey) for entry in model.signatureDefs]
    assert len(keys) == 2
    x = np.float32([[0.1, 0.2, 0.3]])
    for key in keys:
        graph = msq_tf.from_tflite(path, signature=key)
        if graph.input_shape == (None, 3):
            np.testing.assert_allclose(graph(x), np.tanh(x) - 1.0, 1e-5)
        else:
            assert graph.input_shape == (None, 4)
    assert msq_tf.from_tflite(path).name == "m"
    with pytest.raises(ValueError, match="Received: signature='none'"):
        msq_tf.from_tflite(path, signature="none")


def test_a_loop_that_inputs_end_is_refused(tmp_path):
    def compute(x):
        return tf.while_loop(
            lambda y: tf.reduce_sum(y) < 9.0, lambda y: (y + 1.0,), (x,)
        )[0]

    path = written((1, 4), compute, tmp_path / "m.tflite")
    with pytest.raises(ValueError, match="WHILE: its inputs decide"):
        msq_tf.from_tflite(path)


@pytest.mark.slow
@pytest.mark.parametrize("layer", [keras.layers.GRU, keras.layers.LSTM])
def test_a_recurrent_layer_that_is_a_loop(layer, tmp_path):
    inputs = keras.Input((5, 3), batch_size=1)
    plain = keras.Model(inputs, keras.layers.Dense(2)(layer(4)(inputs)))
    path = written(
        (1, 5, 3), lambda x: plain(x, training=False), tmp_path / "m.tflite"
    )
    assert "WHILE" in kinds(path)
    agrees(path, msq_tf.from_tflite(path), (1, 5, 3))

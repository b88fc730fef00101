"""Operators on slices, and functions without comparisons, on an Edge TPU."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from tests.tflite_export.integer.networks import see
from tflite_export import ExportError
from tflite_export import export
from tflite_export import inspect_file

L = keras.layers


class Apply(L.Layer):
    """A function in a layer."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


def blocks(size):
    return Apply(lambda x: tf.nn.depth_to_space(x, size))


def unstacked(axis):
    def rows(x):
        first, *others = keras.ops.unstack(x, axis=axis)
        return keras.ops.concatenate([*others, first], axis=-1)

    return Apply(rows)


def exported(shape, layer, path):
    keras.utils.set_random_seed(0)
    first = L.Conv2D(shape[-1], 1) if len(shape) == 3 else L.Dense(shape[-1])
    model = keras.Sequential(
        [keras.Input(shape), first, layer, L.Flatten(), L.Dense(3)]
    )
    config = msq_tf.MSQConfig(activation_bits=8)
    qmodel = msq_tf.quantize_model(model, config)
    x = np.random.default_rng(0).normal(size=(16, *shape)).astype("f")
    see(qmodel, x)
    report = export(qmodel, path, "edgetpu", x)
    return report, [name.split()[0] for name in inspect_file(path).ops]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "layer", "without"),
    [
        ((3, 5, 8), lambda: blocks(2), "DEPTH_TO_SPACE"),
        ((4, 3, 18), lambda: blocks(3), "DEPTH_TO_SPACE"),
        ((4, 6), lambda: unstacked(1), "UNPACK"),
        ((4, 6), lambda: unstacked(-1), "UNPACK"),
        ((3, 2, 4), lambda: unstacked(2), "UNPACK"),
        ((4, 6), L.Softmax, ""),
        ((4, 6), lambda: L.Softmax(axis=1), ""),
        ((3, 3, 4), L.Softmax, ""),
        ((8,), lambda: L.Activation("soft_shrink"), "SELECT_V2"),
        (
            (8,),
            lambda: L.Activation(lambda x: keras.ops.soft_shrink(x, 0.1)),
            "SELECT_V2",
        ),
    ],
)
def test_what_an_edge_tpu_lacks(shape, layer, without, tmp_path):
    report, ops = exported(shape, layer(), tmp_path / "m")
    assert any("by up to 0 units" in note for note in report.notes)
    assert without not in ops


@pytest.mark.slow
def test_too_many_vectors(tmp_path):
    with pytest.raises(ExportError, match="isn't one-dimensional"):
        exported((9, 8, 4), L.Softmax(), tmp_path / "m")

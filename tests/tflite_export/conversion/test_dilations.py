"""Dilated convolutions of an open batch are one operator."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf
from tflite_export import export
from tflite_export import run
from tflite_export.flatbuffer import model as fb

L = keras.layers
CONFIG = msq_tf.MSQConfig(activation_bits=8)


def names(path):
    model = fb.read(path.read_bytes())
    return [fb.op_name(model, op) for op in model.subgraphs[0].operators]


@pytest.mark.first(1)
@pytest.mark.parametrize("target", ["cpu_float", "cpu_int8"])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: L.Conv2D(4, 3, dilation_rate=2, padding="same"), (9, 8, 3)),
        (lambda: L.Conv2D(4, (3, 2), dilation_rate=(2, 3)), (9, 8, 3)),
        (lambda: L.Conv2D(4, 4, dilation_rate=2, padding="same"), (9, 8, 3)),
        (lambda: L.DepthwiseConv2D(3, dilation_rate=2), (9, 8, 3)),
        (
            lambda: L.SeparableConv2D(4, 3, dilation_rate=2, padding="same"),
            (9, 8, 3),
        ),
        (lambda: L.Conv1D(4, 3, dilation_rate=2, padding="causal"), (15, 3)),
        (lambda: L.Conv1D(4, 3, dilation_rate=4), (15, 3)),
        (lambda: L.Conv1D(4, 3, dilation_rate=4, padding="same"), (15, 3)),
        (lambda: L.DepthwiseConv1D(3, dilation_rate=2), (15, 3)),
        (lambda: L.SeparableConv1D(4, 3, dilation_rate=2), (15, 3)),
    ],
)
def test_what_follows_is_fused(layer, shape, target, tmp_path):
    model = keras.Sequential(
        [keras.Input(shape), layer(), L.BatchNormalization(), L.ReLU()]
        + [L.Flatten(), L.Dense(2)]
    )
    rng = np.random.default_rng(0)
    for variable in model.layers[1].variables:
        variable.assign(rng.uniform(0.5, 2.0, variable.shape))
    x = rng.normal(size=(32, *shape)).astype(np.float32)
    qmodel = msq_tf.quantize_model(model, CONFIG)
    msq_tf.calibrate(qmodel, x)
    path = tmp_path / "m.tflite"
    report = export(qmodel, path, target=target, representative_data=x)
    assert "no site of training" not in " ".join(report.notes)
    left = {"SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND", "MUL", "ADD", "RELU"}
    assert not left & set(names(path))
    if target == "cpu_int8":
        wanted = qmodel(x, training=False).numpy()
        assert np.abs(run(path, x) - wanted).max() < 0.02 * np.ptp(wanted)


def test_copies_that_are_no_convolution_stay(tmp_path):
    class Copies(L.Layer):
        def call(self, x):
            import tensorflow as tf

            x = tf.space_to_batch(x, [2, 2], [[0, 0], [0, 0]])
            return tf.batch_to_space(x * 2.0, [2, 2], [[0, 0], [0, 0]])

    model = keras.Sequential(
        [keras.Input((8, 8, 3)), Copies(), L.Flatten(), L.Dense(2)]
    )
    path = tmp_path / "m.tflite"
    export(msq_tf.quantize_model(model), path)
    assert "SPACE_TO_BATCH_ND" in names(path)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, (3, 1, 2)])
@pytest.mark.parametrize(
    ("rate", "padding"),
    [
        (2, "valid"),
        ((2, 3, 3), "valid"),
        ((1, 2, 3), "valid"),
        ((3, 2, 1), "valid"),
        ((1, 2, 2), "same"),
        ((2, 1, 3), "same"),
        ((2, 1, 1), "same"),
    ],
)
def test_a_volume_is_one_operator_too(rate, padding, size, tmp_path):
    """Else there is none: the copies of a volume are not in TFLite."""
    model = keras.Sequential(
        [
            keras.Input((7, 6, 8, 2)),
            L.Conv3D(4, size, dilation_rate=rate, padding=padding),
            L.GlobalAveragePooling3D(),
            L.Dense(3),
        ]
    )
    x = np.random.default_rng(0).normal(size=(8, 7, 6, 8, 2))
    x = x.astype(np.float32)
    qmodel = msq_tf.quantize_model(model)
    path = tmp_path / "m.tflite"
    for target in ("min_size", "cpu_float", "cpu_int8"):
        export(qmodel, path, target=target, representative_data=x)
        assert names(path).count("CONV_3D") == 1
        wanted = qmodel(x, training=False).numpy()
        close = 0.02 * np.ptp(wanted) if target == "cpu_int8" else 1e-5
        np.testing.assert_allclose(run(path, x), wanted, atol=close)

"""What a report says of codes that use little of their widths."""

import json

import keras
import numpy as np
import pytest

import msq_tf
from msq_tf.core.quantized_weight import entropy
from msq_tf.reports.code_use import CodeUse
from msq_tf.reports.code_use import remarks
from tests.msq_tf.samples import new_model


def test_entropy_is_that_of_the_shares():
    assert entropy(np.zeros(8, np.int8)) == 0.0
    assert entropy(np.array([-127, 127], np.int8)) == 1.0
    codes = np.array([0, 0, 1, -1], np.int8)
    assert entropy(codes) == pytest.approx(1.5)


def test_only_a_width_that_can_fall_is_remarked_on():
    low = {"size": 100, "entropy": 0.9, "dead": 0}
    assert CodeUse("a", bits=4, **low).low
    assert not CodeUse("a", bits=2, **low).low
    assert not CodeUse("a", bits=4, **low | {"entropy": 2.1}).low
    assert not CodeUse("a", bits=4, **low | {"size": 9}).low
    assert remarks([CodeUse("a", 100, 4, 2.1, 0, 8)]) == []


def quiet_model():
    """A convolution of which three of eight channels are dead."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            keras.layers.Conv2D(8, 3, name="conv"),
            keras.layers.Flatten(),
            keras.layers.Dense(4, name="head"),
        ]
    )
    kernel = np.array(model.get_layer("conv").kernel)
    kernel[..., 5:] = 0.0
    model.get_layer("conv").kernel.assign(kernel)
    # One large weight, and all others at its rounding noise.
    head = np.zeros((288, 4), np.float32)
    head[0] = 1.0
    head[1:] = np.random.default_rng(0).normal(0.0, 1e-3, (287, 4))
    model.get_layer("head").kernel.assign(head)
    return model


def test_a_report_names_dead_channels_and_low_entropy():
    qmodel = msq_tf.quantize_model(quiet_model())
    report = msq_tf.precision_report(qmodel)
    text = " ".join(str(report).split())
    assert "all zero: conv (3 of 8)" in text
    assert "less than half of their width: head (" in text
    (conv, head) = json.loads(report.to_json())["layers"]
    assert (conv["use"]["dead"], head["use"]["dead"]) == (3, 0)
    assert "all zero" not in str(msq_tf.precision_report(new_model()))


def test_a_report_says_what_a_packed_file_stores():
    qmodel = new_model()
    assert "packed file" not in str(msq_tf.precision_report(qmodel))
    qmodel.set_bits({"conv": 3, "head": 5})
    report = msq_tf.precision_report(qmodel)
    sizes = dict(zip(qmodel.paths, qmodel.sizes, strict=True))
    expected = sizes["conv"] // 2 + sizes["dw"] + sizes["head"]
    assert report.container_bytes == expected
    assert f"in 8: {expected:,} bytes" in " ".join(str(report).split())


def test_a_weight_that_is_not_finite_still_has_a_report():
    qmodel = new_model()
    qmodel.kernels[0].assign(np.full(qmodel.kernels[0].shape, np.nan))
    report = msq_tf.precision_report(qmodel)
    assert report.layers[0].use is None
    json.loads(report.to_json())

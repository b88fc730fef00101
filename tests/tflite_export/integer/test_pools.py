"""Pools of small images, whose windows are larger than the image."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.tflite_export.samples import quantized
from tflite_export import export
from tflite_export import inspect_file
from tflite_export.devices import qualcomm_tools

L = keras.layers
SHAPES = {"pixel": (3, 3, 4), "row": (3, 6, 4), "column": (6, 3, 4)}


def pooled(kind, shape, strides):
    x = inputs = keras.Input(shape)
    kernel = [3 if size == 3 else 1 for size in shape[:2]]
    x = L.Conv2D(8, kernel, activation="relu", name="conv")(x)
    x = kind(3, strides=strides, padding="same", name="pool")(x)
    return keras.Model(inputs, L.Conv2D(4, 1, name="last")(x))


def exported(tmp_path, target="cpu_int8", name="pixel", **options):
    kind, strides = options.pop("kind", L.AveragePooling2D), 1
    strides = options.pop("strides", strides)
    shape = SHAPES[name]
    x = np.random.default_rng(0).normal(size=(16, *shape)).astype("f")
    path = tmp_path / "m.tflite"
    model = quantized(pooled(kind, shape, strides))
    # Its checks run the file on several kernels, and compare with Keras.
    report = export(model, path, target, representative_data=x, **options)
    return report, {op.split()[0] for op in inspect_file(path).ops}


@pytest.mark.parametrize("name", SHAPES)
def test_a_window_is_no_larger_than_the_image(name, tmp_path):
    _, operators = exported(tmp_path, name=name)
    assert ("AVERAGE_POOL_2D" in operators) == (name != "pixel")


@pytest.mark.parametrize("strides", [1, 2])
def test_one_pixel_is_its_own_maximum(strides, tmp_path):
    _, found = exported(tmp_path, kind=L.MaxPooling2D, strides=strides)
    assert "MAX_POOL_2D" not in found


@pytest.mark.slow
@pytest.mark.skipif(
    qualcomm_tools.folder() is None, reason="needs make setup-qnn"
)
@pytest.mark.parametrize("name", SHAPES)
def test_the_npu_computes_the_same(name, tmp_path):
    options = {"device_options": {"socs": ["SM8650"]}}
    report, _ = exported(tmp_path, "qualcomm_npu", name, **options)
    assert report.device["socs"]["SM8650"]["max_units"] <= 2

"""Ranges of activations, measured on the quickest kernels that can."""

import keras
import numpy as np
import pytest

from tflite_export import float_tflite
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import model as fb
from tflite_export.integer import calibrate
from tflite_export.runtime import interpreter

L = keras.layers
X = np.random.default_rng(0).normal(size=(20, 9, 9, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def parsed():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((9, 9, 2))
    x = L.Conv2D(5, 3, activation="relu")(inputs)
    x = L.Add()([L.DepthwiseConv2D(3, padding="same")(x), x])
    x = L.GlobalAveragePooling2D()(L.MaxPooling2D()(x))
    return fb.load(float_tflite(keras.Model(inputs, L.Dense(3)(x))))


def computed(model):
    """All tensors that operators write, and the inputs."""
    graph = model.subgraphs[0]
    return [
        *fb.inputs(graph),
        *(index for op in graph.operators for index in fb.outputs(op)),
    ]


def test_ranges_are_those_of_kept_tensors(parsed):
    data = fb.dump(parsed)
    session = interpreter.Session(data, "builtin", keep_all=True)
    session([X])
    tensors = computed(parsed)
    found = calibrate.calibrate(parsed, tensors, [X])
    assert list(found) == tensors
    for index, ends in found.items():
        values = session.tensor(index)
        np.testing.assert_allclose(
            ends, (values.min(), values.max()), rtol=1e-5, atol=1e-6
        )
    # The model is as it was.
    assert fb.dump(parsed) == data


def test_what_xnnpack_cannot_run_the_builtin_kernels_do(parsed, monkeypatch):
    tensors = computed(parsed)
    wanted = calibrate.calibrate(parsed, tensors, [X])
    tried = []

    class Session(interpreter.Session):
        def __init__(self, data, kernels, **options):
            tried.append(kernels)
            if kernels == "xnnpack":
                raise RuntimeError("failed to create XNNPACK runtime")
            super().__init__(data, kernels, **options)

    monkeypatch.setattr(interpreter, "Session", Session)
    found = calibrate.calibrate(parsed, tensors, [X])
    assert tried[-2:] == ["xnnpack", "builtin"]
    for index, ends in wanted.items():
        np.testing.assert_allclose(found[index], ends, rtol=1e-5, atol=1e-6)


def test_nan_of_any_batch_is_refused(parsed):
    samples = X.copy()
    samples[17, 4, 4] = np.nan
    with pytest.raises(ExportError, match="computes NaN"):
        calibrate.calibrate(parsed, computed(parsed), [samples])

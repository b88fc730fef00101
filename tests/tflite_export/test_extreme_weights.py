"""Weights at the ends of float32 leave as files, or with a clear reason."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf
from tflite_export import ExportError
from tflite_export import export

MOST = float(np.finfo(np.float32).max)


def network(kernel):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            keras.layers.Conv2D(4, 1, name="conv"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, name="head"),
        ]
    )
    layer = model.layers[0]
    layer.kernel.assign(np.broadcast_to(kernel, layer.kernel.shape))
    qmodel = msq_tf.quantize_model(model)
    qmodel.set_bits({"conv": 4, "head": 3})
    return qmodel


def images():
    rng = np.random.default_rng(0)
    return rng.normal(size=(8, 4, 4, 2)).astype(np.float32)


def drawn(factors):
    rng = np.random.default_rng(1)
    return (rng.normal(size=(1, 1, 2, 4)) * factors).astype(np.float32)


WEIGHTS = {
    "zero": 0.0,
    "constant": -0.3,
    "denormal": 1e-40,
    "1e-30": drawn(1e-30),
    "least scale": drawn(2.0**-92),
    "1e-20": drawn(1e-20),
    "1e30": drawn(1e30),
    "all at once": drawn(np.array([1e-30, 1e30, 0.0, 1.0])),
    "one weight": drawn(1.0) * (np.arange(8) == 3).reshape(1, 1, 2, 4),
}


@pytest.mark.first(1)
@pytest.mark.parametrize("target", ["min_size", "cpu_int8"])
@pytest.mark.parametrize("name", WEIGHTS)
def test_files_hold_what_was_trained(name, target, tmp_path):
    """`export` compares every code in the file, and runs it."""
    qmodel = network(WEIGHTS[name])
    path = tmp_path / "m.tflite"
    report = export(qmodel, path, target, representative_data=images())
    assert path.stat().st_size == report.file_bytes
    conv, _ = qmodel.quantized_weights()
    assert np.isfinite(conv.values).all() and (conv.step >= 2.0**-100).all()


@pytest.mark.first(1)
@pytest.mark.parametrize("target", ["min_size", "cpu_int8"])
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_what_overflows_is_refused_by_name(target, tmp_path):
    with pytest.raises(ExportError, match="computes NaN|NaN or infinite"):
        export(
            network(MOST),
            tmp_path / "m.tflite",
            target,
            representative_data=images(),
        )
    assert not any(tmp_path.iterdir())


def test_weights_that_became_no_numbers_are_named(tmp_path):
    qmodel = network(1.0)
    qmodel.kernels[0].assign(np.full((1, 1, 2, 4), np.nan))
    with pytest.raises(ValueError, match="Weight 'conv' is not finite"):
        export(qmodel, tmp_path / "m.tflite", representative_data=images())
    assert not any(tmp_path.iterdir())


def test_steps_that_runtimes_flush_are_named(tmp_path):
    qmodel = network(1.0)
    weights = qmodel.quantized_weights()
    weights[0].step[...] = 2.0**-101

    class Tiny:
        base = qmodel.base
        quantized_scope = qmodel.quantized_scope
        skipped_weights = qmodel.skipped_weights

        def quantized_weights(self):
            return weights

    with pytest.raises(ExportError, match="Layer 'conv': its steps are so"):
        export(Tiny(), tmp_path / "m.tflite", representative_data=images())

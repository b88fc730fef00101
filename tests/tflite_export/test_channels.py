"""Files of models without channels: smaller, and verified like any other."""

import keras
import numpy as np
import pytest

import msq_tf
from tests.msq_tf.channel_samples import draw
from tests.msq_tf.channel_samples import residual_model
from tests.msq_tf.channel_samples import settle
from tests.msq_tf.channel_samples import zero
from tests.msq_tf.samples import compile_model
from tflite_export import export


@pytest.fixture(scope="module")
def pair():
    """A trained model with zeros, the same without them, and data."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 8, 8, 3)).astype(np.float32)
    config = msq_tf.MSQConfig(start_bits=4, activation_bits=8)
    qmodel = compile_model(
        msq_tf.quantize_model(settle(residual_model()), config)
    )
    qmodel.fit(x, rng.integers(0, 5, 64), epochs=2, verbose=0)
    channels = draw(qmodel, 0.5)
    smaller = msq_tf.remove_channels(qmodel, channels)
    return zero(qmodel, channels), smaller, x


@pytest.mark.slow
@pytest.mark.parametrize("target", ["min_size", "cpu_int8", "mcu"])
def test_the_file_shrinks_and_computes_the_same(pair, target, tmp_path):
    if target == "mcu":
        pytest.importorskip("tflite_micro")
    reports = [
        export(model, tmp_path / f"{i}.tflite", target, representative_data=x)
        for x in pair[2:]
        for i, model in enumerate(pair[:2])
    ]
    before, after = reports
    assert after.file_bytes < before.file_bytes
    for one, other in zip(before.tensors, after.tensors, strict=True):
        assert one.name == other.name
        assert np.prod(other.shape) < np.prod(one.shape)
    assert all(check.ran for check in after.checks)

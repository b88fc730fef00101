"""No batch spoils a range: NaN, infinite numbers, outliers."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from msq_tf.keras3.activations import ActivationQuantizers

L = keras.layers
F32 = np.finfo(np.float32)


def trained(batches, bits=8, ranges="ema"):
    """Low and high end after some batches of one site."""
    quantizers = ActivationQuantizers(["site"], bits, ranges)
    for batch in batches:
        quantizers(tf.constant(batch, tf.float32), index=0, training=True)
    (found,) = quantizers.trained_ranges()
    return found.low, found.high


@pytest.mark.parametrize("ranges", ["ema", "learned"])
@pytest.mark.parametrize(
    "bad", [[np.nan, 1.0], [np.inf, np.nan], [-np.inf, np.inf], [np.nan]]
)
def test_a_batch_that_is_no_number_changes_nothing(ranges, bad):
    good = [[-1.0, 2.0]] * 3
    assert trained([*good, bad], ranges=ranges) == trained(good, ranges=ranges)
    assert trained([bad, *good], ranges=ranges) == trained(good, ranges=ranges)


def test_what_is_infinite_is_clipped_and_the_rest_counts():
    low, high = trained([[-1.0, 2.0], [np.inf, -3.0, 2.0]])
    assert low == pytest.approx(0.95 * -1 + 0.05 * -3)
    assert high == pytest.approx(2.0)


@pytest.mark.first(1)
@pytest.mark.parametrize("size", [1e3, 1e10, 3e38, F32.max / 2])
def test_an_outlier_moves_an_end_by_a_width_and_leaves_it(size):
    good = [-1.0, 2.0]
    low, high = trained([good, [-size, size]])
    assert -4.0 <= low <= -1.0 and 2.0 <= high <= 5.0
    low, high = trained([good, [-size, size], *[good] * 100])
    assert (low, high) == pytest.approx((-1.0, 2.0), rel=0.1)


@pytest.mark.first(1)
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
@pytest.mark.parametrize("ranges", ["ema", "learned"])
def test_an_outlier_that_comes_first_is_left_behind(bits, ranges):
    batches = [[-3e38, 3e38], *[[-1.0, 2.0]] * 300]
    low, high = trained(batches, bits, ranges)
    most = 3.0 if ranges == "ema" else 2.0 ** (max(bits, 8) + 1) * 3
    assert 2.0 <= high - low <= 2 * most


def test_a_quiet_batch_is_no_reason():
    """At 16 bits what is a thousandth of the range still has codes."""
    loud, quiet = [-1.0, 1.0], [-1e-3, 1e-3]
    assert trained([loud, quiet], 16)[1] == pytest.approx(0.95, rel=1e-2)
    # At 8 bits it has none; one such batch takes a part of the range.
    assert trained([loud, quiet], 8)[1] == pytest.approx(0.25, rel=1e-2)


@pytest.mark.slow
def test_a_range_follows_where_data_goes():
    high = trained([[0.0, 1.0], *[[0.0, 1000.0]] * 150])[1]
    assert high == pytest.approx(1000.0, rel=0.05)
    low = trained([[0.0, 1000.0], *[[0.0, 1.0]] * 250])[1]
    assert low == pytest.approx(1.0, rel=0.05)


def test_a_range_that_was_spoiled_before_heals():
    quantizers = ActivationQuantizers(["site"], 8)
    quantizers.low[0].assign(np.nan)
    quantizers.high[0].assign(np.nan)
    quantizers.seen[0].assign(1.0)
    quantizers(tf.constant([-1.0, 2.0]), index=0, training=True)
    (found,) = quantizers.trained_ranges()
    assert (found.low, found.high) == (-1.0, 2.0)


def classifier(**config):
    model = keras.Sequential(
        [
            keras.Input((12,)),
            L.Dense(24, activation="relu", name="a"),
            L.Dense(24, activation="relu", name="b"),
            L.Dense(4, name="c"),
        ]
    )
    qmodel = msq_tf.quantize_model(model, msq_tf.MSQConfig(**config))
    qmodel.compile(
        keras.optimizers.Adam(1e-2),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return qmodel


def data(count=512):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 12)).astype(np.float32)
    return x, (x[:, :4] + 0.5 * x[:, 4:8]).argmax(1)


@pytest.fixture
def mixed():
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    yield
    keras.mixed_precision.set_dtype_policy("float32")


def poisoned_and_clean(qmodel, value):
    """Some clean epochs, one with a batch that overflows, clean ones again."""
    x, y = data()
    keras.utils.set_random_seed(0)
    qmodel.fit(x, y, epochs=4, batch_size=64, verbose=0)
    poisoned = x.copy()
    poisoned[100] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        warnings.filterwarnings("ignore", "A sample of `x` is not finite")
        qmodel.fit(poisoned, y, batch_size=64, shuffle=False, verbose=0)
    history = qmodel.fit(x, y, epochs=20, batch_size=64, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    return qmodel.evaluate(x, y, verbose=0, return_dict=True)["accuracy"]


@pytest.mark.slow
@pytest.mark.parametrize("value", [1e5, np.nan])
def test_training_goes_on_after_a_step_that_was_skipped(mixed, value):
    qmodel = classifier(activation_bits=8)
    assert poisoned_and_clean(qmodel, value) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranges", "value"), [("ema", 3e38), ("ema", 1e4), ("learned", 3e38)]
)
def test_training_goes_on_after_an_outlier(ranges, value):
    qmodel = classifier(activation_bits=8, activation_ranges=ranges)
    assert poisoned_and_clean(qmodel, value) > 0.9
    for found in qmodel.activation_quantizers.trained_ranges():
        assert found.high - found.low < 100.0


def test_calibration_leaves_an_outlier_out():
    x, _ = data()
    qmodel, clean = classifier(activation_bits=8), classifier(activation_bits=8)
    clean.set_weights(qmodel.get_weights())
    msq_tf.calibrate(clean, x)
    x[7] = 1e6
    with pytest.warns(UserWarning, match="1 of the samples are outliers"):
        msq_tf.calibrate(qmodel, x)
    for a, b in zip(
        qmodel.activation_quantizers.trained_ranges(),
        clean.activation_quantizers.trained_ranges(),
        strict=True,
    ):
        assert a.high - a.low == pytest.approx(b.high - b.low, rel=0.2)

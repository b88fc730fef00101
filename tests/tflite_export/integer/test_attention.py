"""Attention in integer files: trained inside, and with masks."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf
from tests.tflite_export.integer import networks
from tflite_export import export
from tflite_export import run

L = keras.layers


def attend(layer, shape=(6, 8), **named):
    x = inputs = keras.Input(shape)
    x = layer(x, x, **named)
    return keras.Model(inputs, L.Dense(3)(L.Flatten()(x)))


def without_weights(layer, **named):
    inputs = keras.Input((6, 8))
    x = layer([L.Dense(8)(inputs), inputs], **named)
    return keras.Model(inputs, L.Dense(3)(L.Flatten()(x)))


def padded(make):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,), dtype="int32")
    wide = keras.initializers.RandomNormal(stddev=2.0)
    masks = make is by_mask
    x = L.Embedding(20, 8, mask_zero=masks, embeddings_initializer=wide)(inputs)
    x = make(inputs, x)
    return keras.Model(inputs, L.Dense(3)(x[:, 0]))


def by_mask(inputs, x):
    return L.MultiHeadAttention(2, 4)(x, x)


@keras.saving.register_keras_serializable(package="tests")
class Added(L.Layer):
    """Attention that adds a large negative number where it masks."""

    def call(self, x, ids):
        mask = keras.ops.cast(keras.ops.equal(ids, 0), "float32") * -1e9
        scores = keras.ops.matmul(x, keras.ops.swapaxes(x, -2, -1)) * 0.35
        weights = keras.ops.softmax(scores + mask[:, None])
        return keras.ops.matmul(weights, x)


def by_addition(inputs, x):
    return Added()(L.Dense(8)(x), inputs)


def tokens():
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 20, (64, 6))
    kept = np.arange(6) < rng.integers(2, 7, (64, 1))
    return np.where(kept, ids, 0).astype(np.int32)


def trained(model, x, bits=8):
    qmodel = msq_tf.quantize_model(
        model, msq_tf.MSQConfig(activation_bits=bits)
    )
    msq_tf.calibrate(qmodel, x)
    return qmodel


@pytest.mark.slow
@pytest.mark.parametrize(
    "build",
    [
        lambda: attend(L.MultiHeadAttention(2, 4)),
        lambda: attend(L.MultiHeadAttention(2, 4), use_causal_mask=True),
        lambda: attend(
            L.MultiHeadAttention(2, 4, dropout=0.1), use_causal_mask=True
        ),
        lambda: attend(L.MultiHeadAttention(2, 4, value_dim=5)),
        lambda: attend(
            L.MultiHeadAttention(2, 4, attention_axes=(1, 2)), (3, 4, 8)
        ),
        lambda: attend(L.GroupQueryAttention(4, 4, 2)),
        lambda: attend(L.MultiHeadAttention(2, 4, use_gate=True)),
        lambda: attend(L.GroupQueryAttention(4, 4, 2, use_gate=True)),
        lambda: without_weights(
            L.Attention(use_scale=True), use_causal_mask=True
        ),
        lambda: without_weights(
            L.Attention(use_scale=True, score_mode="concat")
        ),
        lambda: without_weights(L.AdditiveAttention()),
        lambda: without_weights(
            L.AdditiveAttention(use_scale=False), use_causal_mask=True
        ),
    ],
    ids=[
        *("plain", "causal", "dropout", "values", "axes", "groups"),
        *("gated", "gated groups", "bare", "concat", "additive", "unscaled"),
    ],
)
def test_what_is_trained_is_what_is_exported(build, tmp_path):
    keras.utils.set_random_seed(0)
    model = build()
    x = networks.samples(model)
    report = export(trained(model, x), tmp_path / "m", target="cpu_int8")
    notes = " ".join(report.notes)
    assert "no site of training" not in notes
    qmodel = trained(model, x)
    report = export(
        qmodel, tmp_path / "m", target="cpu_int8", representative_data=x
    )
    notes = " ".join(report.notes)
    assert "with its trained ranges" in notes
    assert "no site of training" not in notes


@pytest.mark.first(1)
@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize("weight", [0.7, -0.7])
def test_the_sum_of_concatenated_scores_has_a_weight(weight, bits, tmp_path):
    """Training moves it from one; then it is joined with the sum's count."""
    keras.utils.set_random_seed(0)
    model = without_weights(L.Attention(use_scale=True, score_mode="concat"))
    layer = next(x for x in model.layers if isinstance(x, L.Attention))
    layer.scale.assign(1.3)
    layer.concat_score_weight.assign(weight)
    x = networks.samples(model)
    if bits:
        qmodel = trained(model, x)
    else:
        qmodel = msq_tf.quantize_model(model)
    path = tmp_path / "m.tflite"
    export(qmodel, path, target="cpu_int8", representative_data=x)
    wanted = qmodel.predict(x, verbose=0)
    np.testing.assert_allclose(run(path, x), wanted, atol=0.1 * np.ptp(wanted))


@pytest.mark.first(1)
@pytest.mark.parametrize("target", ["cpu_int8", "mcu"])
@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize("make", [by_mask, by_addition])
def test_masks_leave_scores_their_codes(make, bits, target, tmp_path):
    model, x = padded(make), tokens()
    qmodel = (
        trained(model, x, bits)
        if bits
        else msq_tf.quantize_model(model, msq_tf.MSQConfig())
    )
    path = tmp_path / "m"
    export(qmodel, path, target=target, representative_data=x)
    got, wanted = run(path, x), qmodel(x, training=False).numpy()
    assert np.abs(got - wanted).max() < 0.05 * np.ptp(wanted)
    # They are what the model would tell by its mask.
    wanted = model(x).numpy()
    assert np.abs(got - wanted).max() < 0.1 * np.ptp(wanted)


@pytest.mark.slow
def test_so_they_do_in_16_bits(tmp_path):
    model, x = padded(by_mask), tokens()
    path = tmp_path / "m"
    export(
        trained(model, x, 16), path, target="cpu_int16", representative_data=x
    )
    got, wanted = run(path, x), model(x).numpy()
    assert np.abs(got - wanted).max() < 0.05 * np.ptp(wanted)

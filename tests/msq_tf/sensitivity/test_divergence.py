"""Divergences of outputs against formulas in float64."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from msq_tf.core.compiled_losses import CompiledLosses
from msq_tf.sensitivity.divergence import output_divergence

RNG = np.random.default_rng(0)
A = RNG.normal(size=(6, 5)).astype(np.float32)
B = A + 0.3 * RNG.normal(size=(6, 5)).astype(np.float32)


def compiled(loss, weights=None, names=None):
    return CompiledLosses(loss, keras.losses, weights, names)


def softmax(x):
    e = np.exp(x.astype(np.float64))
    return e / e.sum(-1, keepdims=True)


def kl(p, q):
    return (p * (np.log(p) - np.log(q))).sum(-1).mean()


def sigmoid(x):
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def bernoulli(p, q):
    return (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean()


P, Q = softmax(A), softmax(B)
S, T = sigmoid(A), sigmoid(B)


@pytest.mark.parametrize(
    ("loss", "a", "b", "expected"),
    [
        (
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            A,
            B,
            kl(P, Q),
        ),
        ("sparse_categorical_crossentropy", P, Q, kl(P, Q)),
        (keras.losses.CategoricalCrossentropy(), P, Q, kl(P, Q)),
        (keras.losses.KLDivergence(), P, Q, kl(P, Q)),
        (
            keras.losses.BinaryCrossentropy(from_logits=True),
            A,
            B,
            bernoulli(S, T),
        ),
        ("binary_crossentropy", S, T, bernoulli(S, T)),
        ("mse", A, B, np.mean((A - B) ** 2)),
        (keras.losses.MeanSquaredError(), A, B, np.mean((A - B) ** 2)),
        ("mae", A, B, np.mean(np.abs(A - B))),
        (
            keras.losses.Huber(delta=0.2),
            A,
            B,
            np.where(
                np.abs(A - B) < 0.2,
                0.5 * (A - B) ** 2,
                0.2 * np.abs(A - B) - 0.02,
            ).mean(),
        ),
    ],
)
def test_formulas(loss, a, b, expected):
    divergence = output_divergence(compiled(loss))
    a, b = tf.constant(a, tf.float32), tf.constant(b, tf.float32)
    assert divergence(a, b).numpy() == pytest.approx(expected, rel=1e-4)
    assert divergence(a, a).numpy() == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize(
    "loss",
    [
        None,
        lambda y_true, y_pred: y_pred,
        keras.losses.Hinge(),
        type("Own", (keras.losses.MeanSquaredError,), {})(),
        [None, None],
        ["mse", lambda y_true, y_pred: y_pred],
    ],
    ids=["none", "function", "hinge", "subclass", "no losses", "one own"],
)
def test_losses_of_which_nothing_is_known(loss):
    assert output_divergence(compiled(loss)) is None


def test_several_outputs_and_their_weights():
    first, second = np.mean((A - B) ** 2), kl(P, Q)
    a, b = tf.constant(A), tf.constant(B)
    losses = [
        "mse",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    ]
    both = output_divergence(compiled(losses, [2.0, 0.5]))([a, a], [b, b])
    assert both.numpy() == pytest.approx(2 * first + 0.5 * second, rel=1e-4)
    only = output_divergence(compiled([None, losses[1]]))([a, a], [b, b])
    assert only.numpy() == pytest.approx(second, rel=1e-4)
    named = dict(zip(("y", "x"), losses, strict=True))
    weights = {"y": 2.0, "x": 0.5}
    for outputs in (lambda v: {"x": v, "y": v}, lambda v: [v, v]):
        divergence = output_divergence(compiled(named, weights, ["y", "x"]))
        both = divergence(outputs(a), outputs(b))
        assert both.numpy() == pytest.approx(2 * first + 0.5 * second, rel=1e-4)

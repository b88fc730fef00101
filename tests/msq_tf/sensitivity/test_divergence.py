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


LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
VALUES, CLASSES = np.mean((A - B) ** 2), kl(P, Q)


@pytest.mark.parametrize(
    ("loss", "weights", "outputs", "expected"),
    [
        # One loss of all outputs.
        ("mse", None, lambda v: [v, v, v], 3 * VALUES),
        ("mse", None, lambda v: {"x": v, "y": (v, v)}, 3 * VALUES),
        # Several losses of one output.
        (["mse", LOGITS], None, lambda v: v, VALUES + CLASSES),
        (["mse", LOGITS], [2.0, 0.5], lambda v: v, 2 * VALUES + CLASSES / 2),
        # A list for a dict, in the order of its keys.
        (
            ["mse", LOGITS],
            [3.0, 1.0],
            lambda v: {"b": v, "a": 2 * v},
            3 * 4 * VALUES + CLASSES,
        ),
        # Nested, and not for all.
        (
            {"x": {"b": LOGITS, "a": "mse"}, "z": None},
            {"x": {"b": 0.5, "a": 2.0}, "z": None},
            lambda v: {"x": {"a": v, "b": v}, "y": v, "z": v},
            2 * VALUES + CLASSES / 2,
        ),
        (
            [["mse", LOGITS], None],
            None,
            lambda v: [[v, v], v],
            VALUES + CLASSES,
        ),
        # Weights in another structure, by the order of the keys.
        (
            {"y": LOGITS, "x": "mse"},
            [2.0, 0.5],
            lambda v: {"x": v, "y": v},
            2 * VALUES + CLASSES / 2,
        ),
    ],
)
def test_losses_belong_to_outputs_as_in_keras(loss, weights, outputs, expected):
    divergence = output_divergence(compiled(loss, weights))
    a, b = outputs(tf.constant(A)), outputs(tf.constant(B))
    assert divergence(a, b).numpy() == pytest.approx(expected, rel=1e-4)


STRUCTURES = [
    ("mse", None, False),
    (["mse", "mae", "mse"], [1.0, 2.0, 3.0], False),
    ({"b": "mae", "c": None}, {"b": 3.0, "c": None}, False),
    ({"a": "mse", "c": {"d": "mae"}}, None, True),
]


@pytest.mark.parametrize(("loss", "weights", "nested"), STRUCTURES)
def test_losses_sum_up_as_keras_sums_them(loss, weights, nested):
    def outputs(v):
        last = {"d": 3 * v} if nested else 3 * v
        return {"c": last, "a": v, "b": 2 * v}

    a, b = outputs(tf.constant(A)), outputs(tf.constant(B))
    model = keras.Model()
    model.compile(loss=loss, loss_weights=weights)
    total = model.compute_loss(None, a, b)
    divergence = output_divergence(compiled(loss, weights))
    assert divergence(a, b).numpy() == pytest.approx(float(total), rel=1e-5)

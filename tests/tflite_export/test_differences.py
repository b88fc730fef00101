"""The one definition of agreement and of the range that errors are in."""

from __future__ import annotations

import math

import numpy as np
import pytest

from msq_tf.sensitivity import divergence as of_graphs
from tflite_export import differences


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([-1.0, 3.0], 4.0),
        ([100.0, 101.0], 10.1),  # a narrow band far from zero
        ([5.0, 5.0], 0.5),
        ([0.0, 0.0], 1e-6),
        ([], 1e-6),
        ([-1.0, 3.0, math.inf, math.nan], 4.0),
    ],
)
def test_range(values, wanted):
    found = differences.spread(np.array(values, np.float32))
    assert found == pytest.approx(wanted, rel=1e-6)


def test_agreement_is_the_share_of_choices_that_are_as_good():
    wanted = np.array([[0.1, 0.9], [0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])
    got = np.array([[0.4, 0.6], [0.4, 0.6], [0.1, 0.9], [0.7, 0.3]])
    assert differences.agreement(got, wanted) == 0.5
    assert differences.agreement(wanted, wanted) == 1.0


@pytest.mark.parametrize(
    ("decision", "values"),
    [
        (differences.Decision(), "logits"),
        (differences.Decision(), "shares"),
        (differences.Decision(0.0), "logits"),
        (differences.Decision(0.5), "shares"),
    ],
)
def test_divergence_is_that_of_training(decision, values):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 6, 3, 4)).astype(np.float32)
    logits = values == "logits"
    if not logits:
        a, b = (np.exp(v) / np.exp(v).sum(-1, keepdims=True) for v in (a, b))
        # What eight bits leave of a distribution.
        b = np.round(256 * b) / 256
    logarithms = (
        of_graphs.log_probabilities
        if decision.threshold is None
        else of_graphs.log_both
    )
    wanted = of_graphs.kl(logarithms(a, logits), logarithms(b, logits))
    found = differences.divergence(decision, a, b)
    assert found == pytest.approx(float(np.mean(wanted)), rel=1e-4) != 0.0


def test_numbers_are_apart_by_their_squares():
    a, b = np.array([[1.0], [2.0]]), np.array([[1.5], [2.0]])
    # Nor are there classes in a column.
    for decision in (None, differences.Decision()):
        assert differences.divergence(decision, a, b) == 0.125

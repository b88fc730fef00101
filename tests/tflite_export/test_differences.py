"""The one definition of agreement and of the range that errors are in."""

from __future__ import annotations

import math

import numpy as np
import pytest

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

"""Float outputs of two runtimes: how far apart they are, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from tflite_export.devices import beside
from tflite_export.errors import ExportError


def runs(*batches):
    """Batches of one output each, as a runtime gives them."""
    return [[np.array(batch, np.float32)] for batch in batches]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_never_close(wrong):
    got, wanted = runs([[wrong, 1.0]]), runs([[0.0, 1.0]])
    for a, b in ((got, wanted), (wanted, got)):
        with pytest.raises(ExportError, match="something else.*Received: inf"):
            beside.relative(a, b, "it")


def test_the_same_infinities_are_no_difference():
    same = runs([[np.inf, -np.inf, np.nan, 1.0, 2.0]])
    assert beside.relative(same, same, "it") == 0.0
    flipped = runs([[-np.inf, -np.inf, np.nan, 1.0, 2.0]])
    with pytest.raises(ExportError):
        beside.relative(flipped, same, "it")


def test_an_output_of_one_number_a_batch_has_the_range_of_all():
    wanted = runs([[1000.0]], [[3000.0]])
    got = runs([[1000.02]], [[3000.0]])
    assert beside.relative(got, wanted, "it") == pytest.approx(1e-5, rel=0.01)
    with pytest.raises(ExportError, match="Received: 0.001"):
        beside.relative(runs([[1002.0]], [[3000.0]]), wanted, "it")


def test_outputs_that_hardly_vary_are_measured_by_their_size():
    # float32 has no finer steps there than 0.0078.
    assert beside.relative(runs([[1e5 + 0.01]]), runs([[1e5]]), "it") < 1e-6
    with pytest.raises(ExportError):
        beside.relative(runs([[2e-4]]), runs([[1e-4]]), "it")


def test_each_output_has_its_own_range():
    wanted = [[np.array([[0.0, 1.0]]), np.array([[0.0, 1000.0]])]]
    got = [[np.array([[0.01, 1.0]]), np.array([[0.0, 1000.0]])]]
    with pytest.raises(ExportError, match="Received: 0.01$"):
        beside.relative(got, wanted, "it")


def test_booleans_and_outputs_without_numbers():
    booleans = [[np.array([True, False])]]
    assert beside.relative(booleans, booleans, "it") == 0.0
    with pytest.raises(ExportError):
        beside.relative([[np.array([True, True])]], booleans, "it")
    empty = [[np.zeros((0, 3), np.float32)]]
    assert beside.relative(empty, empty, "it") == 0.0

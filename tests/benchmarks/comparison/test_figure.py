"""What stands in the picture of all methods."""

from __future__ import annotations

import pytest

from benchmarks.comparison import figure
from benchmarks.harness import record


def test_every_method_has_its_rows_with_all_seeds(tmp_path):
    peers, targets = record.load("peers"), record.load("time_to_target")
    found = figure.points(peers, targets)
    assert {p.series for p in found} == {"float", *figure._STYLES}
    assert all(len(p.accuracies) == 3 for p in found)
    assert all(5 < p.kib < 80 for p in found if p.series != "float")
    figure.draw(peers, targets, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_methods_of_two_budgets_are_not_compared():
    peers, targets = record.load("peers"), record.load("time_to_target")
    targets["results"]["budget"]["epochs"] += 1
    with pytest.raises(ValueError, match="need one budget"):
        figure.points(peers, targets)

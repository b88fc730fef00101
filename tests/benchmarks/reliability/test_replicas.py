"""How the benchmark of several devices compares two runs."""

from __future__ import annotations

import numpy as np

from benchmarks.reliability import replicas
from benchmarks.reliability import replicas_run


def run(changes, start):
    weights = [np.full(3, start)] * max(replicas_run.STEPS)
    return replicas_run.Trained(weights, changes, [4, 8], 8.004)


def test_changes_in_common_end_at_the_first_that_differs():
    first = [3, 0.1, "a", 8, 7]
    one = run([first, [6, 0.2, "b", 8, 7], [9, 0.3, "c", 8, 7]], 1.0)
    later = [[7, 0.2, "b", 8, 7], [9, 0.3, "c", 8, 7]]
    other = replicas_run.compared(run([first, *later], 1.5), one)
    assert other["first_changes_in_common"] == 1
    assert other["changes"] == 3
    assert set(other["apart"].values()) == {0.5}
    assert other["compression"] == 8.0
    same = replicas_run.compared(one, one)
    assert same["first_changes_in_common"] == 3
    assert max(same["apart"].values()) == 0.0


def test_the_table_has_a_row_for_each_run():
    one = run([], 1.0)
    compared = replicas_run.compared(one, one)
    # As it comes back from JSON.
    compared["apart"] = {str(k): v for k, v in compared["apart"].items()}
    runs = dict.fromkeys(("one", "nudged", "two"), compared)
    content = {"environment": {"date": "d"}, "results": {"float32": runs}}
    text = replicas.markdown(content)
    assert text.count("| float32 | ") == 2
    assert "| two devices | 0e+00 |" in text

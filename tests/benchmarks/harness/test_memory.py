"""Memory of a process: its own, and the peak of a stretch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from benchmarks.harness import memory


def test_a_childs_peak_is_not_its_parents(root):
    # What getrusage says of a child is at least what its parent held.
    held = np.ones(1 << 26, np.float32)
    code = "from benchmarks.harness import memory; print(memory.peak())"
    child = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert held.nbytes == 256 << 20
    assert 1 < float(child.stdout) < 128


@pytest.mark.slow
def test_the_peak_of_a_stretch():
    held, found = memory.over(lambda: np.ones(1 << 23, np.float32))
    assert held.nbytes == 32 << 20
    assert 30 < found["peak_mib"] - found["before_mib"] < 60
    assert 30 < found["after_mib"] - found["before_mib"] < 60
    _, found = memory.over(lambda: float(np.ones(1 << 23, np.float32)[0]))
    assert 30 < found["peak_mib"] - found["before_mib"] < 60
    assert found["after_mib"] - found["before_mib"] < 10


@pytest.mark.slow
def test_the_peak_without_the_kernels_help(monkeypatch):
    def held():
        array = np.ones(1 << 23, np.float32)
        end = memory.time.perf_counter() + 0.2
        while memory.time.perf_counter() < end:
            array[0] += 1
        return float(array[0])

    monkeypatch.setattr(memory, "reset_peak", lambda: False)
    _, found = memory.over(held)
    assert 30 < found["peak_mib"] - found["before_mib"] < 60

"""The benchmark of files that are made to cost much."""

from __future__ import annotations

import pytest

from benchmarks.reliability import crafted
from benchmarks.reliability import crafted_files


@pytest.mark.slow
def test_one_kind_is_read_at_both_sizes(monkeypatch):
    monkeypatch.setattr(crafted, "SIZES", (20, 200))
    kinds = {"outputs": crafted_files.outputs}
    monkeypatch.setattr(crafted_files, "KINDS", kinds)
    results = crafted.measure()
    found = results["kinds"]["outputs"]
    assert [run["outcome"] for run in found["runs"]] == ["accepted"] * 2
    assert found["runs"][1]["bytes"] > 3 * found["runs"][0]["bytes"]
    environment = {"command": "c", "date": "d", "cores": 1}
    content = {"environment": environment, "results": results}
    assert "| outputs | " in crafted.markdown(content)

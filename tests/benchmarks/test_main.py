"""`python -m benchmarks`: what it prints is what the page shows."""

from __future__ import annotations

import re

import pytest

from benchmarks.__main__ import BENCHMARKS
from benchmarks.__main__ import main
from benchmarks.harness import record

RECORDED = [
    name for name in BENCHMARKS if (record.RESULTS / f"{name}.json").exists()
]


@pytest.mark.parametrize("name", RECORDED)
def test_the_terminal_shows_the_pages_tables(
    name, tmp_path, monkeypatch, capsys
):
    results = record.read(name)
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(BENCHMARKS[name], "measure", lambda: results)
    monkeypatch.setenv("COLUMNS", "300")
    assert main([name]) == 0
    shown = re.sub(r"\s", "", capsys.readouterr().out)
    assert record.read(name) == results
    table = [
        line
        for line in BENCHMARKS[name].markdown(record.load(name)).splitlines()
        if line.startswith("| ")
    ]
    assert len(table) > 3
    for cell in " | ".join(table).split(" | "):
        plain = re.sub(r"[\s`|]|---:?", "", cell)
        assert plain in shown, cell
    assert f"writtento{name}.json" in shown


def test_a_benchmark_that_is_not_there(capsys):
    assert main(["cost", "strength"]) == 2
    assert "Received: strength" in capsys.readouterr().err

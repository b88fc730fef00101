"""What exports take beside TensorFlow's converter: cells and ratios."""

from __future__ import annotations

import pytest

from benchmarks.files import export_cost


def entry(**times):
    return {
        "name": "tiny",
        "parameters": 796,
        "runs": {
            kind: {
                "seconds": seconds,
                "cpu_seconds": seconds,
                "above_mib": 10.0 * seconds,
                "bytes": 1234,
            }
            for kind, seconds in times.items()
        },
    }


def test_ratios_are_to_the_converter_of_the_same_kind():
    kinds = {export_cost.FLOAT: 2.0, export_cost.INTEGER: 4.0}
    found = entry(**kinds, min_size=3.0, cpu_int8=6.0)
    rows = {row[1]: row[6:] for row in export_cost.rows([found])}
    assert rows["min_size"] == ["1.5x", "1.5x", "1.5x"]
    assert rows["cpu_int8"] == ["3.0x", "1.5x", "3.0x"]
    assert rows[export_cost.FLOAT] == ["", "", ""]
    page = export_cost.markdown(
        {
            "environment": {
                "command": "python -m benchmarks export_cost",
                "date": "2026-11-28",
                "cores": 2,
            },
            "results": [found],
        }
    )
    assert "| tiny | cpu_int8 | 6.0 |" in page


@pytest.mark.slow
def test_a_cell_makes_a_file():
    for kind in (export_cost.FLOAT, export_cost.INTEGER, "min_size"):
        found = export_cost.run("tiny", kind)
        assert found["bytes"] > 1000 and found["seconds"] > 0

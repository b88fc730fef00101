from __future__ import annotations

import copy
import json
from importlib import resources

import pytest

from tflite_export import ExportError
from tflite_export import targets
from tflite_export.targets import catalog


@pytest.fixture
def table():
    folder = resources.files("tflite_export.targets") / "tables"
    return json.loads((folder / "min_size.json").read_text())


def test_every_target_loads():
    assert {"cpu_float", "cpu_int8", "min_size"} <= set(targets.names())
    for name in targets.names():
        assert targets.load(name).name == name


def test_containers():
    small, fast = targets.load("min_size"), targets.load("cpu_float")
    assert [small.container(n) for n in range(2, 9)] == [
        "INT2",
        *["INT4"] * 2,
        *["INT8"] * 4,
    ]
    assert {fast.container(n) for n in range(2, 9)} == {"INT8"}
    with pytest.raises(ExportError, match="no container for 9 bits"):
        small.container(9)


def test_unknown_target_lists_the_known_ones():
    with pytest.raises(ValueError, match="cpu_float, cpu_int.*min_size.*'tpu'"):
        targets.load("tpu")


def test_lint_refuses_what_runtimes_get_wrong(table, monkeypatch):
    for row in targets.known_bad():
        monkeypatch.setattr(catalog, "_MODES", (row["mode"],))
        bad = copy.deepcopy(table)
        bad["mode"] = row["mode"]
        granularity = row["granularity"]
        if granularity == "any":
            granularity = "per_channel"
        bad["cells"] = [
            {
                "ops": [row["op"]],
                "weights": row["weights"],
                "granularities": [granularity],
                "kernels": {"xnnpack": "?"},
                "evidence": "none",
            }
        ]
        with pytest.raises(ValueError, match=f"refused. {row['verdict']}"):
            targets.parse(bad)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"mode": "int7"}, "mode 'int7'"),
        ({"containers": ["INT8", "INT4"]}, "rising width"),
        ({"containers": ["INT3"]}, "rising width"),
    ],
)
def test_bad_tables(table, change, message):
    with pytest.raises(ValueError, match=message):
        targets.parse({**table, **change})


def test_incomplete_table(table):
    del table["cells"]
    with pytest.raises(ValueError, match="lacks cells"):
        targets.parse(table)


def test_cells_need_evidence(table):
    table["cells"][0]["evidence"] = ""
    with pytest.raises(ValueError, match="without evidence"):
        targets.parse(table)


@pytest.mark.parametrize("name", ["min_size", "cpu_int16", "mcu"])
def test_what_is_slow_is_what_was_measured(name, root):
    folder = root / "benchmarks" / "results"
    runs = json.loads((folder / "targets.json").read_text())["results"]["runs"]
    times = [run["of_int8"] for run in runs if run["file"] == name]
    slow = targets.load(name).slow
    assert len(times) == 3 and slow is not None
    least, most = slow.of_int8
    assert least <= min(times) < least + 1 and most - 1 < max(times) <= most

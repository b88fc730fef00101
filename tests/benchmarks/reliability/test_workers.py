"""Workers that are lost, and what a long training leaves behind."""

from __future__ import annotations

import copy
import json

import pytest

from benchmarks.reliability import worker_losses
from benchmarks.reliability import worker_soak
from benchmarks.reliability import workers


@pytest.fixture
def content(root):
    path = root / "benchmarks" / "results" / "workers.json"
    return json.loads(path.read_text())


# Two starts of all workers, and one more, on whatever else runs beside them.
@pytest.mark.timeout(1800)
@pytest.mark.slow
def test_a_frozen_worker_is_lost(tmp_path):
    (frozen,) = [
        loss
        for loss in worker_losses.LOSSES
        if loss.name == "frozen (SIGSTOP)" and loss.worker
    ]
    run = worker_losses.run(tmp_path, [frozen], timeout=300)
    (record,) = run["losses"]
    assert record["statuses"] == [2, 2] and record["victim"] == 2
    assert all(record["told"])
    assert record["epochs"] == 1
    assert all(run["equal"].values()), run["equal"]
    assert not run["left"]


def test_what_was_recorded_holds_what_is_claimed(content):
    results = content["results"]
    losses = results["losses"]
    assert [loss["name"] for loss in losses["losses"]] == [
        loss.name for loss in worker_losses.LOSSES
    ]
    assert all(losses["equal"].values())
    assert not losses["left"]
    for loss in losses["losses"]:
        assert loss["statuses"] == [2, 2] and all(loss["told"])
    assert [soak["workers"] for soak in results["soaks"]] == [2, 3]
    for soak in results["soaks"]:
        assert soak["seconds"] >= 600
        first, *_, last = soak["parts"]
        assert last["threads"] <= first["threads"] + 10
        assert last["mib"] <= first["mib"] * 1.05


def test_the_page_tells_what_went_wrong(content):
    assert "`--worker_timeout=60`" in workers.markdown(content)
    broken = copy.deepcopy(content)
    losses = broken["results"]["losses"]
    losses["equal"]["bits"] = False
    losses["losses"][0] |= {"statuses": [2, -6], "told": [True, False]}
    text = workers.markdown(broken)
    assert "Not the same: bits." in text
    assert "| -6, 2 | 1 of 2 |" in text


def test_parts_of_a_training_are_compared():
    samples = [
        {
            "second": float(second),
            "steps": 10 + 2 * second,
            "threads": [5, 5 + second],
            "mib": [90.0 + second, 50.0],
        }
        for second in range(101)
    ]
    found = worker_soak.summary(samples)
    assert (found["seconds"], found["steps"]) == (100.0, 200)
    first, *_, last = found["parts"]
    assert first == {"threads": 25, "mib": 100.0, "step_ms": 500.0}
    assert last == {"threads": 105, "mib": 180.0, "step_ms": 500.0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nerror: Another worker stopped.\n", True),
        ("error: The cluster did not come together.", True),
        ("error: Another worker stopped.\nmore", False),
        ("Traceback\nerror: Another worker stopped.", False),
        ("", False),
    ],
)
def test_one_line_of_error_is_the_last(text, expected):
    assert worker_losses.told(text) is expected

"""Kills by the benchmark's own code, and what its page makes of them."""

from __future__ import annotations

import builtins
import copy
import io
import itertools
import json

import keras
import numpy as np
import pytest

from benchmarks.reliability import kills as faults
from benchmarks.reliability import kills_check
from benchmarks.reliability import kills_child
from benchmarks.reliability import kills_cluster
from benchmarks.reliability import kills_folders
from benchmarks.reliability import kills_process
from benchmarks.reliability import kills_run
from benchmarks.reliability.kills_process import STEPS


@pytest.fixture
def content(root):
    path = root / "benchmarks" / "results" / "faults.json"
    return json.loads(path.read_text())


# Seven processes in a row, on whatever else runs beside them.
@pytest.mark.timeout(1800)
@pytest.mark.slow
def test_one_kill_of_each_kind_and_the_same_end(tmp_path):
    (run,) = faults.one_process(tmp_path, len(faults.KINDS), seed=1)
    kills = run["kills"]
    assert {kill["kind"] for kill in kills} == set(faults.KINDS)
    for kill in kills:
        assert not kill["torn"]
        assert 0 <= kill["lost"] <= kill["since"] <= STEPS
    assert any(kill["lost"] for kill in kills)
    assert any(kill["left"] for kill in kills)
    assert all(run["equal"].values()), run["equal"]
    assert not run["left"]


@pytest.mark.timeout(1800)
@pytest.mark.slow
def test_a_worker_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(kills_cluster, "KILLS", ((1, "moment"),))
    run = kills_cluster.run(tmp_path, seed=1)
    (kill,) = run["kills"]
    assert kill["statuses"] == [2] and kill["told"]
    assert not kill["torn"]
    assert all(run["equal"].values()), run["equal"]
    assert not run["left"]


@pytest.mark.timeout(1800)
@pytest.mark.slow
def test_folders_that_something_else_befalls(tmp_path):
    cases = kills_folders.run(tmp_path)
    damaged = {"the newest checkpoint cut", "4 KiB of it zeroed"}
    for name, case in cases.items():
        assert case["told"] == 1, name
        if name in damaged:
            assert case["status"] in (0, 1), name
            assert case["equal"] and case["again"] == 1, name
        else:
            assert case["status"] == 2, name
            assert case["equal"] == (name == "a second process"), name


def test_the_page_tells_of_folders(content):
    case = {"status": 2, "told": 1, "equal": False, "again": None}
    content["results"]["folders"] = {"no run.json": case}
    text = faults.markdown(content)
    assert "| no run.json | 2 | 1 | - | no |" in text


def test_what_was_recorded_holds_what_is_claimed(content):
    results = content["results"]
    kinds = faults.by_kind(results)
    assert set(kinds) == set(faults.KINDS)
    assert sum(kind["kills"] for kind in kinds.values()) == 30
    for run in [*results["runs"], results["cluster"]]:
        assert all(run["equal"].values())
        assert not run["left"]
        for kill in run["kills"]:
            assert not kill["torn"]
            assert 0 <= kill["lost"] <= STEPS


def test_the_page_tells_what_went_wrong(content):
    assert " | 0 |\n" in faults.markdown(content)
    broken = copy.deepcopy(content)
    first, *_ = broken["results"]["runs"]
    first["equal"]["bits"] = False
    first["kills"][0] |= {"lost": 99, "torn": ["model.keras: BadZipFile"]}
    broken["results"]["cluster"]["equal"]["workers"] = False
    text = faults.markdown(broken)
    count = len(broken["results"]["runs"])
    assert f"of {count} runs: bits {count - 1}, history {count}" in text
    assert "| 99 |" in text and " | 1 |\n" in text
    assert "Not the same: the workers' hashes." in text


def test_steps_are_counted_beyond_the_end_of_a_process(tmp_path):
    progress = kills_child.Progress(tmp_path / "steps", new=True)
    assert progress.read()["phase"] == ""
    progress.begin("msq", done=3, steps=10)
    for _ in range(12):
        progress.step()
    progress.save()
    progress.step()
    assert kills_child.Progress(tmp_path / "steps").read() == {
        "phase": "msq",
        "done": 3,
        "steps": 10,
        "taken": 13,
        "saved": 12,
    }


def test_a_file_ends_the_process_at_its_byte(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def kill():
        raise Killed

    usual = io.open
    monkeypatch.setattr(kills_child, "kill", kill)
    monkeypatch.setattr(io, "open", usual)
    monkeypatch.setattr(builtins, "open", usual)
    kills_child._in_write("a/m.h5", 5)
    (tmp_path / "a").mkdir()
    whole = tmp_path / "a" / "m.h5"
    whole.write_bytes(b"0123456789")
    partial = tmp_path / "a" / "partial-0123abcd-m.h5"
    with pytest.raises(Killed):
        partial.write_bytes(b"0123456789")
    assert partial.read_bytes() == b"01234"
    assert whole.read_bytes() == b"0123456789"


def saved(path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    model.save(path / "model.keras")
    model.save_weights(path / "epoch-0002.weights.h5")
    (path / "m.tflite").write_bytes(b"TFL3" * 10)
    (path / "run.json").write_text("{}")
    (path / "history.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')


@pytest.fixture
def folders(tmp_path):
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
        saved(tmp_path / name)
    return tmp_path / "ours", tmp_path / "theirs"


def test_what_a_kill_may_leave_is_not_torn(folders):
    ours, theirs = folders
    (ours / "partial-0123abcd-epoch-0003.weights.h5").write_bytes(b"half")
    (ours / ".m.tflite.0123abcd.tmp").write_bytes(b"half")
    (ours / "m.tflite").unlink()
    (ours / "history.jsonl").write_text('{"epoch": 1}\n{"epo')
    assert kills_check.torn(ours, theirs) == []
    assert kills_check.temporary(ours) == [
        ".m.tflite.0123abcd.tmp",
        "partial-0123abcd-epoch-0003.weights.h5",
    ]


@pytest.mark.parametrize(
    "name",
    [
        *("model.keras", "epoch-0002.weights.h5", "m.tflite", "run.json"),
        "history.jsonl",
    ],
)
def test_a_torn_file_is_found(folders, name):
    ours, theirs = folders
    data = (ours / name).read_bytes()
    (ours / name).write_bytes(data[: len(data) // 2].replace(b"1", b"7"))
    (found,) = kills_check.torn(ours, theirs)
    assert found.startswith(f"{name}: ")


def test_arrays_are_compared_bit_by_bit(folders):
    ours, theirs = (
        kills_check.arrays(folder / "model.keras") for folder in folders
    )
    assert kills_check._same_arrays(ours, theirs)
    name = next(name for name in ours if ours[name].size == 6)
    ours[name] = np.nextafter(ours[name], np.float32(9))
    assert not kills_check._same_arrays(ours, theirs)


def test_lost_steps_are_those_taken_again():
    run = kills_run.Run.__new__(kills_run.Run)
    run._job = kills_process.Job("x", (), {"float": 2, "msq": 4})
    records = [{"lost": None} for _ in range(4)]
    ends = itertools.chain(
        [("float", 17, "float", 1, 7), ("float", 20, "msq", 0, 0)],
        [("msq", 35, "msq", 3, 5), ("msq", 40, "msq", 4, 0)],
    )
    for record, (was, at, phase, done, lost) in zip(records, ends, strict=True):
        run._open = [(record, was, at)]
        run._settle(phase, done)
        assert record["lost"] == lost

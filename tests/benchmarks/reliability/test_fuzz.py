"""The fuzzing benchmark counts what it should, also what ends a process."""

from __future__ import annotations

import json
import random
import subprocess
from types import SimpleNamespace

import pytest

from benchmarks.reliability import fuzz
from benchmarks.reliability import fuzz_cases
from benchmarks.reliability import fuzz_seeds
from benchmarks.reliability import fuzz_worker


@pytest.fixture
def folder(tmp_path):
    for name, data in fuzz_seeds.seeds().items():
        (tmp_path / f"{name}.tflite").write_bytes(data)
    return tmp_path


def test_a_case_is_decided_by_its_seed():
    files = fuzz_seeds.seeds()
    made = [
        [fuzz_cases.case(random.Random(f"0/{n}"), files) for n in range(40)]
        for _ in range(2)
    ]
    assert made[0] == made[1]
    assert {engine for engine, _, _ in made[0]} == {
        engine.__name__ for engine in fuzz_cases.ENGINES
    }


def test_every_case_is_counted_once(folder):
    results = fuzz_worker.run(folder, seed=0, first=100, count=150)
    assert sum(results["counts"].values()) == 150
    refused = sum(
        count
        for name, count in results["counts"].items()
        if name.endswith("refused")
    )
    assert sum(results["reasons"].values()) == refused
    assert not results["broken"]
    # Every reason has a class.
    assert "other" not in results["reasons"]


def test_what_is_no_reason_is_broken(monkeypatch):
    def read(data, shown):
        raise {b"i": IndexError, b"e": ValueError, b"m": MemoryError}[data]

    monkeypatch.setattr(fuzz_cases, "read", read)
    for data in (b"i", b"e", b"m"):
        found, why = fuzz_worker.outcome(data)
        assert found == "broken" and "Error at test_fuzz.py:" in why


def test_the_benchmark_goes_on_behind_a_case_that_kills(tmp_path, monkeypatch):
    started = []

    def run(command, **_):
        folder, _, first, count = command[-4:]
        started.append((int(first), int(count)))
        if len(started) == 1:
            (tmp_path / f"{first}.now").write_text("13")
            return SimpleNamespace(returncode=-11, stderr="")
        done = {"counts": {"cut refused": 6}, "seconds": 1.0}
        (tmp_path / f"{first}.json").write_text(json.dumps(done))
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    found = fuzz._chunk(tmp_path, 10, 10)
    assert started == [(10, 10), (14, 6)]
    assert found["died"] == [{"case": 13, "status": -11}]
    assert found["counts"] == {"cut refused": 6}


def test_a_worker_that_does_not_start_is_no_result(tmp_path, monkeypatch):
    done = SimpleNamespace(returncode=1, stderr="no module")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    with pytest.raises(RuntimeError, match="no module"):
        fuzz._chunk(tmp_path, 0, 10)


def test_the_page_tells_what_was_found(root):
    path = root / "benchmarks" / "results" / "fuzz.json"
    content = json.loads(path.read_text())
    results = content["results"]
    counted = sum(sum(e.values()) for e in results["engines"].values())
    assert counted + len(results["died"]) >= results["cases"] >= 100_000
    results["engines"]["cut"]["broken"] = 3
    results["died"] = [{"case": 5, "status": -11}]
    results["atheris"] = {"installed": False}
    text = fuzz.markdown(content)
    assert "| 3 |" in text and "Processes that died: 1," in text
    assert "atheris was not installed." in text
    results["atheris"] = {
        "installed": True,
        "version": "1",
        "status": 77,
        "message": "AssertionError",
    }
    assert "atheris 1 stopped: AssertionError" in fuzz.markdown(content)

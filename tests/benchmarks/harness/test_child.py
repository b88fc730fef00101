"""Children of benchmarks: what they write, where they run, what they say."""

from __future__ import annotations

import concurrent.futures
import json
import os
import subprocess

import pytest

from benchmarks.harness import child


def test_what_a_child_writes_comes_back(tmp_path, capfd):
    given = tmp_path / "given.json"
    child.write(given, {"a": [1, 2.5]})
    assert child.measured("json.tool", given) == {"a": [1, 2.5]}
    given.write_text("{")
    with pytest.raises(subprocess.CalledProcessError):
        child.measured("json.tool", given)
    assert capfd.readouterr().err == ""
    with pytest.raises(subprocess.CalledProcessError):
        child.measured("json.tool", given, shown=True)
    assert "property name" in capfd.readouterr().err


def test_a_benchmark_goes_on_where_it_was(tmp_path):
    given, kept = tmp_path / "given.json", tmp_path / "kept"
    child.write(given, 1)
    assert child.measured_once(kept, "json.tool", given) == 1
    child.write(given, 2)
    assert child.measured_once(kept, "json.tool", given) == 1
    child.finished(kept)
    assert child.measured_once(kept, "json.tool", given) == 2


def test_a_child_has_one_thread_and_one_core(tmp_path):
    log = tmp_path / "log"
    core = max(os.sched_getaffinity(0))
    code = (
        "import json, os; print(json.dumps([sorted(os.sched_getaffinity(0)), "
        "os.environ['TF_NUM_INTRAOP_THREADS']]))"
    )
    words = ("-n1", "-r1", "-s", code, "pass")
    child.logged("timeit", *words, log=log)
    child.logged("timeit", *words, log=log, core=core)
    # Appended: what a child printed before one that went on is kept.
    anywhere, pinned = (
        json.loads(line)
        for line in log.read_text().splitlines()
        if line.startswith("[")
    )
    assert anywhere == [sorted(os.sched_getaffinity(0)), "1"]
    assert pinned == [[core], "1"]


def test_no_core_is_given_to_two(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    cores = child.Cores()
    assert cores.count == 2

    def third():
        with cores.one() as core:
            return core

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with cores.one() as first:
            with pytest.raises(KeyError), cores.one() as second:
                assert {first, second} == {3, 5}
                waiting = pool.submit(third)
                with pytest.raises(TimeoutError):
                    waiting.result(0.05)
                raise KeyError
            # An error gives a core back, too.
            assert waiting.result(60) == second

"""One process at a time works in the folder of a run."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys

import pytest

from train.folder import lock
from train.folder.workspace import Workspace

_HOLDS = """
import pathlib, sys, time
from train.folder import lock
with lock.held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def other(root, tmp_path):
    """Another process, which holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDS, str(tmp_path)],
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.slow
def test_another_process_is_named(other, tmp_path):
    with pytest.raises(ValueError) as caught:
        with Workspace(tmp_path).held():
            pass
    host = os.uname().nodename
    assert str(caught.value) == (
        "Another process works in the output folder. Expected that it has "
        f"ended, or another folder. Received: output_dir={tmp_path}, held by "
        f"process {other.pid} on {host!r}"
    )
    # Still the other's.
    owner = json.loads((tmp_path / lock.LOCK).read_text())
    assert owner["pid"] == other.pid


@pytest.mark.slow
def test_what_a_killed_process_held_is_free(other, tmp_path):
    (tmp_path / "checkpoints" / "msq").mkdir(parents=True)
    partial = "partial-0123abcd-epoch-0001.weights.h5"
    for folder in (".", "checkpoints", "checkpoints/msq"):
        (tmp_path / folder / partial).write_text("half")
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    assert (tmp_path / lock.LOCK).exists()
    for _ in range(2):
        with Workspace(tmp_path).held():
            assert not list(tmp_path.rglob("partial-*"))
        assert not (tmp_path / lock.LOCK).exists()


def test_it_is_given_back_when_the_block_raises(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), lock.held(tmp_path):
            raise KeyError
    assert not list(tmp_path.iterdir())


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock.held(tmp_path), lock.held(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        with Workspace(tmp_path / "file" / "run").held():
            pass

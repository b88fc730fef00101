"""How the workers of a cluster find each other."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from tests import launching
from train import pipeline
from train.distribution import cluster
from train.distribution import deadline
from train.distribution import rendezvous


def config(workers=("a:1", "b:1"), kind="worker", index=0, **more):
    return json.dumps(
        {
            "cluster": {"worker": list(workers), **more},
            "task": {"type": kind, "index": index},
        }
    )


def test_the_chief_is_the_first_of_the_cluster():
    text = config(chief=["c:1"], index="1")
    assert cluster.read_config(text) == (["c:1", "a:1", "b:1"], 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "Received: TF_CONFIG=None"),
        ("", "which workers there are"),
        ("{", "cannot be read"),
        ('{"cluster": {}}', "KeyError: 'task'"),
        ("[]", "cannot be read"),
        (config(ps=["p:1"]), r"take no part in training \(ps\)"),
        (config(index=2), "a place that the cluster does not have"),
        (config(index=-1), "a place that the cluster does not have"),
        (config(kind="chief"), "a place that the cluster does not have"),
        (config(["a:1", "a:1"]), "names an address twice"),
        (config(["a:1", "b"]), r"without a port \(b\)"),
    ],
)
def test_a_wrong_cluster_is_refused_with_an_example(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        cluster.read_config(text)
    assert '"index": 0' in str(caught.value)


def test_a_missing_cluster_ends_the_run(tiny_settings, console, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    settings = tiny_settings(distribution="multi_worker")
    with pytest.raises(ValueError, match="TF_CONFIG"):
        pipeline.run(settings, console)
    assert not os.path.exists(settings.output_dir)


@pytest.fixture
def addresses():
    return launching.addresses(3)


def met(addresses, index, timeout):
    """Meets in a thread; the list tells how it ended."""
    ended = []

    def meet():
        try:
            rendezvous.meet(addresses, index, timeout)
            ended.append(None)
        except ValueError as error:
            ended.append(str(error))

    thread = threading.Thread(target=meet)
    thread.start()
    return thread, ended


def test_workers_meet_in_any_order(addresses):
    threads = []
    for index in (2, 0):
        threads.append(met(addresses, index, 20.0))
        time.sleep(0.3)
    # Something else that comes by, and says nothing we know.
    host, _, port = addresses[0].rpartition(":")
    with socket.create_connection((host, int(port))) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        threads.append(met(addresses, 1, 20.0))
        for thread, ended in threads:
            thread.join(20.0)
            assert ended == [None]
    # The port is free for TensorFlow.
    socket.create_server(("", int(port))).close()


def test_missing_workers_are_named(addresses):
    chief, told = met(addresses, 0, 1.5)
    guest, heard = met(addresses, 2, 1.5)
    chief.join(20.0)
    guest.join(20.0)
    assert "3 workers within --worker_timeout=1.5 seconds" in told[0]
    assert told[0].endswith(f"nothing from worker 1 ({addresses[1]})")
    assert heard[0].endswith(f"nothing from worker 0 ({addresses[0]})")


def test_a_port_in_use_is_told(addresses):
    port = int(addresses[0].rpartition(":")[2])
    with socket.create_server(("", port)):
        with pytest.raises(ValueError, match="cannot take its port"):
            rendezvous.meet(addresses, 0, 1.0)


def test_a_workers_own_port_in_use_is_told_to_all(addresses):
    port = int(addresses[1].rpartition(":")[2])
    with socket.create_server(("", port)):
        waiting = [met(addresses, index, 30.0) for index in (0, 2)]
        time.sleep(0.5)
        with pytest.raises(ValueError, match="Worker 1 cannot take its port"):
            rendezvous.meet(addresses, 1, 30.0)
        for thread, _ in waiting:
            thread.join(20.0)
    (_, (chief,)), (_, (other,)) = waiting
    assert chief.startswith("Worker 1 cannot take its port")
    assert chief.endswith(f"Received: {addresses[1]}")
    assert "whose own output says why" in other


def test_one_that_comes_late_is_told_of_a_port_in_use(addresses):
    """It would wait for a chief that has ended, to its timeout."""
    port = int(addresses[1].rpartition(":")[2])
    with socket.create_server(("", port)):
        chief, told = met(addresses, 0, 30.0)
        with pytest.raises(ValueError, match="Worker 1 cannot take its port"):
            rendezvous.meet(addresses, 1, 30.0)
        time.sleep(0.5)
        late, heard = met(addresses, 2, 30.0)
        chief.join(20.0)
        late.join(20.0)
    assert told[0].startswith("Worker 1 cannot take its port")
    assert "whose own output says why" in heard[0]


@pytest.mark.first(2)
@pytest.mark.parametrize("stays", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_a_false_greeting_is_no_worker(addresses, monkeypatch, stays, first):
    monkeypatch.setattr(rendezvous, "_ANSWER", 1.0)
    host, _, port = addresses[0].rpartition(":")
    threads = [met(addresses, 0, 30.0), met(addresses, 1, 30.0)]
    if not first:
        threads.append(met(addresses, 2, 30.0))
    time.sleep(0.5)
    with contextlib.suppress(ConnectionError):
        with socket.create_connection((host, int(port))) as stranger:
            stranger.sendall(b"msq_tf worker        2\n")
            time.sleep(2.0 if stays else 0.0)
    if first:
        threads.append(met(addresses, 2, 30.0))
    for thread, ended in threads:
        thread.join(30.0)
        assert ended == [None]


@pytest.mark.parametrize(
    ("seconds", "status", "text"), [(0.3, 2, "error: late\n"), (60.0, 0, "")]
)
def test_native_code_that_holds_pythons_lock_is_ended(
    root, seconds, status, text
):
    program = (
        "import ctypes, signal; from train.distribution import deadline\n"
        # Where a shell started it in the background, it is ignored.
        "before = signal.getsignal(2)\n"
        f"with deadline.within({seconds}, 'error: late'):\n"
        # Unlike `CDLL`, it keeps the lock.
        "    ctypes.PyDLL(None).usleep(900_000)\n"
        "    if " + str(status) + ": ctypes.PyDLL(None).sleep(60)\n"
        "assert signal.getsignal(2) is before\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (done.returncode, done.stderr) == (status, text)


def test_a_deadline_in_a_thread():
    ended = []

    def wait():
        with deadline.within(60.0, "late"):
            ended.append(True)

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(30.0)
    assert ended == [True]

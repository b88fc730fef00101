"""The cluster that `TF_CONFIG` describes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from train.distribution import deadline
from train.distribution import rendezvous

_EXAMPLE = (
    'TF_CONFIG=\'{"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
    '"task": {"type": "worker", "index": 0}}\', with the index of each worker '
    "in its own"
)
_JOBS = ("chief", "worker")


def connect(timeout: float) -> tf.distribute.MultiWorkerMirroredStrategy:
    """Joins the cluster; waits so many seconds for other workers.

    Raises:
        ValueError: If `TF_CONFIG` is missing or wrong, or workers are missing
            after that time.
    """
    addresses, index = read_config(os.environ.get("TF_CONFIG"))
    rendezvous.meet(addresses, index, timeout)
    # All were there a moment ago. If one is gone, TensorFlow waits for ever,
    # with Python's lock in its hand.
    silent = (
        "error: The cluster did not come together. Expected all "
        f"{len(addresses)} workers, which were there when TensorFlow started, "
        f"within --worker_timeout={timeout:g} seconds more. Received, by "
        f"worker {index}: nothing"
    )
    with deadline.within(timeout, silent), _kept_handler(signal.SIGTERM):
        # Without `timeout_seconds`: TensorFlow starts a thread for every
        # collective that sleeps so long, thousands in a minute. How long
        # exchanges take is watched by `watchdog`.
        return tf.distribute.MultiWorkerMirroredStrategy()


@contextlib.contextmanager
def _kept_handler(number: signal.Signals) -> Iterator[None]:
    """Has a signal do what it did before.

    TensorFlow takes SIGTERM for the notice of a preemption, tells no one who
    has not asked for it, and goes on: a scheduler would wait in vain.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(number)
    yield
    signal.signal(number, handler)


def read_config(text: str | None) -> tuple[list[str], int]:
    """Checks what `TF_CONFIG` says; `None` if it is not set.

    Returns the addresses of all workers, the chief first, and the number of
    this one.

    Raises:
        ValueError: If TensorFlow could not start a cluster from it.
    """
    if not text:
        raise ValueError(
            "TF_CONFIG does not say which workers there are. Expected "
            f"{_EXAMPLE}. Received: TF_CONFIG={text}"
        )
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        kind, index = task["type"], int(task["index"])
        addresses = {job: [str(a) for a in cluster[job]] for job in cluster}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"TF_CONFIG cannot be read. Expected {_EXAMPLE}. Received: "
            f"TF_CONFIG={text} ({type(error).__name__}: {error})"
        ) from error
    wrong = _wrong(addresses, kind, index)
    if wrong:
        raise ValueError(
            f"TF_CONFIG {wrong}. Expected {_EXAMPLE}. Received: "
            f"TF_CONFIG={text}"
        )
    every = [(job, a) for job in _JOBS for a in addresses.get(job, [])]
    place = every.index((kind, addresses[kind][index]))
    return [address for _, address in every], place


def _wrong(addresses: dict[str, list[str]], kind: Any, index: int) -> str:
    others = sorted(set(addresses) - set(_JOBS))
    if others:
        return f"has tasks that take no part in training ({', '.join(others)})"
    if kind not in addresses or not 0 <= index < len(addresses[kind]):
        return "gives this process a place that the cluster does not have"
    every = [a for job in addresses.values() for a in job]
    if len(set(every)) < len(every):
        return "names an address twice"
    bad = [a for a in every if not a.rpartition(":")[2].isdigit()]
    return f"has addresses without a port ({', '.join(bad)})" if bad else ""

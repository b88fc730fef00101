"""The devices on which a run trains, and the messages of its workers.

With `multi_worker` every worker runs the same command. All compute the same
steps. Only the chief reads and writes the output folder, and sends the others
what it read, so they need no common file system.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from msq_tf import atomic_files
from msq_tf import distribute
from train.data.batches import Share
from train.distribution import cluster
from train.distribution.watchdog import Watchdog
from train.errors import WorkerLostError
from train.settings import Settings

# What collectives end with when a peer is gone.
_LOST = (
    tf.errors.DeadlineExceededError,
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
)


class Distribution:
    """The devices and processes that a run trains on.

    Without a strategy that is one device. The timeout is the number of seconds
    to wait for other workers.

    Attributes:
        distributed: Whether there is a strategy.
        strategy: As given, or TensorFlow's own for one device.
        replicas: Number of devices that train together.
        workers: Number of processes.
        worker: Number of this process; the chief is 0.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy | None = None,
        timeout: float = 0.0,
    ) -> None:
        self.distributed = strategy is not None
        self.strategy = strategy or tf.distribute.get_strategy()
        self.replicas = self.strategy.num_replicas_in_sync
        self.workers = distribute.workers(self.strategy)
        self.worker = distribute.worker_index(self.strategy)
        self._timeout = timeout
        self._copies: dict[pathlib.Path, pathlib.Path] = {}
        self._removals: list[weakref.finalize[Any, Any]] = []
        self._watchdog = Watchdog(timeout, self._give_up)

    def __str__(self) -> str:
        return f"worker {self.worker} of {self.workers}"

    @property
    def chief(self) -> bool:
        """Whether this process reads and writes the output folder."""
        return self.worker == 0

    @property
    def share(self) -> Share:
        """The part of every batch that is to be made here.

        With one worker Keras's `fit` splits whole batches by itself.
        """
        if self.workers == 1:
            return Share()
        local = self.replicas // self.workers
        return Share(self.replicas, self.worker * local, local)

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """The scope in which variables of a model that is trained are made."""
        if not self.distributed:
            yield
            return
        # Every variable is an exchange: all begin with the chief's values.
        with self.exchange(), self.strategy.scope():
            yield

    def exchange(self) -> contextlib.AbstractContextManager[None]:
        """Surrounds what waits for other workers, for no longer than agreed.

        Those of `msq_tf` are surrounded in `losses_of_workers`.
        """
        return self._watchdog.exchange()

    def check(self, settings: Settings) -> None:
        """Refuses what cannot be split, and workers that do not agree.

        Raises:
            ValueError: If a batch has no equal parts for all replicas, or
                the workers were started with different settings.
        """
        batch_size = settings.recipe.batch_size
        if batch_size % self.replicas:
            raise ValueError(
                "A batch cannot be split evenly over the replicas. Expected "
                f"a multiple of {self.replicas}. Received: "
                f"batch_size={batch_size}"
            )
        if self.workers == 1:
            return
        text = json.dumps(settings.identity(), sort_keys=True).encode()
        # Three bytes, which a sum of float32 holds exactly.
        digest = int.from_bytes(hashlib.sha256(text).digest()[:3], "big")
        held = distribute.of_all_workers(self.strategy, np.array(digest))
        if (held != held[0]).any():
            raise ValueError(
                "The workers were started with different settings. Expected "
                "the same flags everywhere. Received, other than the chief's: "
                f"workers {np.flatnonzero(held != held[0]).tolist()}"
            )

    def chiefs(self, value: int) -> int:
        """A number that the chief has found; that of others is ignored."""
        (held,) = distribute.from_chief(
            self.strategy, [np.array(value, np.int64)]
        )
        return int(held)

    def take_over(self, variables: Sequence[Any]) -> None:
        """Gives the values that the chief's variables have to all workers'."""
        if self.workers > 1:
            distribute.align(self.strategy, variables)

    def file(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """A file of the chief's, by its path there, as this worker can read it.

        A copy lasts as long as this object. It is made once: the file must not
        change from then on.

        Raises:
            ValueError: On the chief, if it cannot be read.
            NotWrittenError: If a copy cannot be written.
        """
        path = pathlib.Path(path)
        if self.workers == 1:
            return path
        if path in self._copies:
            return self._copies[path]
        content = b""
        if self.chief:
            try:
                content = path.read_bytes()
            except OSError as error:
                raise ValueError(
                    "The file cannot be read. Expected one on the chief. "
                    f"Received: {path} ({error.strerror})"
                ) from error
        size = self.chiefs(len(content))
        sent = np.frombuffer(content, np.uint8)
        if not self.chief:
            sent = np.zeros(size, np.uint8)
        (received,) = distribute.from_chief(self.strategy, [sent])
        copy = path
        if not self.chief:
            folder = tempfile.mkdtemp()
            self._removals.append(
                weakref.finalize(
                    self, shutil.rmtree, folder, ignore_errors=True
                )
            )
            copy = pathlib.Path(folder) / path.name
            with atomic_files.writing(copy):
                copy.write_bytes(received.tobytes())
        self._copies[path] = copy
        return copy

    @contextlib.contextmanager
    def losses_of_workers(self) -> Iterator[None]:
        """Says in plain words what collectives say when a worker is gone.

        A worker that lives and does not answer makes no collective say
        anything: from here on the process ends when an exchange takes longer
        than the timeout.

        Raises:
            WorkerLostError: Instead of what TensorFlow raises.
        """
        if self.workers == 1:
            yield
            return
        with self._watchdog.watching(), distribute.watched(self.exchange):
            try:
                yield
            except _LOST as error:
                raise WorkerLostError(self._lost(error)) from error

    def _lost(self, error: tf.errors.OpError) -> str:
        reasons = re.findall(r"aborted by: (.*)", str(error))
        # The first line of many, whose ends may be spelled out.
        reason, *_ = re.split(r"\\+n|\n", (reasons or [error.message])[-1])
        tasks = sorted(set(re.findall(r"/task:\d+", str(error))))
        return self._told(
            "stopped or cannot be reached",
            f"{type(error).__name__}, {reason} "
            f"({', '.join(tasks) or 'no task named'})",
        )

    def _give_up(self) -> str:
        """Leaves nothing behind, and returns what is to be said."""
        for remove in self._removals:
            remove()
        return self._told(
            f"did not answer within --worker_timeout={self._timeout:g} s",
            "no end of an exchange",
        )

    def _told(self, what: str, received: str) -> str:
        return (
            f"Another worker {what}. Expected all {self.workers} workers up to "
            "the end of training; what went wrong is in its own output. Start "
            "all of them again, with --resume. Received, by worker "
            f"{self.worker}: {received}"
        )


def start(settings: Settings) -> Distribution:
    """Makes ready the devices, and finds the other workers.

    Has to come before anything else that TensorFlow does in the process.

    Raises:
        ValueError: If there are no such devices, or `TF_CONFIG` does not say
            what the cluster is.
    """
    if settings.distribution == "mirrored":
        return Distribution(_mirrored(settings.devices))
    if settings.distribution == "multi_worker":
        strategy = cluster.connect(settings.worker_timeout)
        return Distribution(strategy, settings.worker_timeout)
    return Distribution()


def _mirrored(devices: Sequence[str] | None) -> tf.distribute.Strategy:
    if not devices:
        return tf.distribute.MirroredStrategy()
    names = [device.upper() for device in devices]
    on_cpu = [name for name in names if re.fullmatch(r"CPU:\d+", name)]
    if on_cpu:
        _split_cpu(1 + max(int(name.partition(":")[2]) for name in on_cpu))
    there = {
        ":".join(device.name.split(":")[-2:])
        for device in tf.config.list_logical_devices()
    }
    if not set(names) <= there or len(set(names)) < len(names):
        raise ValueError(
            "There are no such devices. Expected some of "
            f"{', '.join(sorted(there))}, each once. Received: "
            f"devices={','.join(devices)}"
        )
    # Parts of one CPU share their memory; its collectives would copy, and
    # two strategies of one process take each other's.
    operations = tf.distribute.ReductionToOneDevice() if on_cpu else None
    return tf.distribute.MirroredStrategy(names, operations)


def _split_cpu(count: int) -> None:
    """Makes logical devices of the CPU, to try without several GPUs."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    # Another process may have done so, or TensorFlow may have started.
    with contextlib.suppress(RuntimeError):
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * count
        )

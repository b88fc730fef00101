"""The commands that are killed: what they train, and how they are started."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import keras

from benchmarks.reliability.kills_child import NOTHING
from benchmarks.reliability.kills_child import Progress

_ROOT = Path(__file__).resolve().parent.parent.parent
# Seconds that one process may take, whatever shares the machine.
PATIENCE = 900.0
STEPS = 10
_BATCH = 32


@dataclasses.dataclass(frozen=True)
class Job:
    """A command, its folder aside.

    Attributes:
        name: What is trained, in words.
        flags: Of `python -m train`.
        phases: Epochs of every phase of training, by its name.
        targets: The files that it exports, besides the float one.
    """

    name: str
    flags: tuple[str, ...]
    phases: dict[str, int]
    targets: tuple[str, ...] = ("min_size", "cpu_float")

    def command(self, folder: Path) -> list[str]:
        """The flags that make a run in a folder, or go on with it."""
        epochs = {"float": "float_epochs", "msq": "epochs"}
        return [
            "--resume",
            f"--output_dir={folder}",
            f"--train_examples={STEPS * _BATCH}",
            "--test_examples=100",
            f"--batch_size={_BATCH}",
            "--target_compression=12",
            f"--targets={','.join(self.targets)}",
            *(f"--{epochs[name]}={n}" for name, n in self.phases.items()),
            *self.flags,
        ]

    @property
    def exported(self) -> tuple[str, ...]:
        """Names of the files, in the order in which they are written."""
        names = ("float", *self.targets)
        return tuple(f"{name}.tflite" for name in names)


def jobs(folder: Path) -> dict[str, Job]:
    """What is trained: all phases of a ResNet-8, and a small network's search.

    Args:
        folder: Where the small network's file is, or is put.
    """
    path = folder / "small.keras"
    if not path.exists():
        _small().save(path)
    return {
        "resnet8": Job("resnet8", (), {"float": 4, "msq": 8}),
        "small": Job("small", (f"--start_from={path}",), {"msq": 10}),
    }


def _small() -> keras.Model:
    """Six layers, with all that has a state of its own in training."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((28, 28, 1), name="image")
    x = layers.Conv2D(8, 3, strides=2, use_bias=False, name="a")(inputs)
    x = layers.BatchNormalization(momentum=0.5, name="a_bn")(x)
    x = layers.ReLU(name="a_relu")(x)
    x = layers.Conv2D(16, 3, strides=2, name="b")(x)
    x = layers.Conv2D(16, 3, strides=2, name="c")(x)
    x = layers.Flatten(name="flat")(x)
    x = layers.Dropout(0.2, name="drop")(x)
    x = layers.Dense(32, activation="relu", name="hidden")(x)
    outputs = layers.Dense(10, name="logits")(x)
    return keras.Model(inputs, outputs, name="small")


class Process:
    """A command of this repository, with its output in a file.

    Args:
        module: Of `python -m`.
        arguments: What comes behind it.
        log: Where its output goes.
        **environment: What its environment has besides this one's.
    """

    def __init__(
        self, module: str, arguments: list[str], log: Path, **environment: str
    ):
        self._log = log
        # Seconds that it may take.
        self.patience = PATIENCE
        self.started = time.monotonic()
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=_ROOT,
                env={
                    **os.environ,
                    "TF_CPP_MIN_LOG_LEVEL": "3",
                    "KERAS_BACKEND": "tensorflow",
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                # As on machines of their own: what ends the benchmark's
                # session is not what ends it.
                start_new_session=True,
            )
        atexit.register(self.kill)

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self.started

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def text(self) -> str:
        """What it has printed."""
        return self._log.read_text(errors="replace")

    def alive(self) -> bool:
        """Whether it still runs.

        Raises:
            RuntimeError: If it has run for too long; it is killed then.
        """
        if self._process.poll() is not None:
            return False
        if self.seconds > self.patience:
            self.kill()
            raise RuntimeError(f"it does not end:\n{self.text[-2000:]}")
        return True

    def kill(self) -> None:
        """Kills it, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def status(self) -> int:
        """Its exit status, once it has ended."""
        while self.alive():
            time.sleep(0.02)
        atexit.unregister(self.kill)
        return self._process.returncode

    def expect(self, status: int) -> None:
        """Waits for its end.

        Raises:
            RuntimeError: If that is another one.
        """
        if self.status() != status:
            raise RuntimeError(
                f"it ended with {self.status()}, not {status}:\n"
                f"{self.text[-2000:]}"
            )


def plain(job: Job, folder: Path, *flags: str, **environment: str) -> Process:
    """The command as a user gives it."""
    log = folder.with_name(f"{folder.name}.log")
    return Process("train", [*job.command(folder), *flags], log, **environment)


def doomed(
    job: Job, folder: Path, point: dict[str, Any], *flags: str, **more: str
) -> Process:
    """The command in a process that ends at a point, see `faults_child`.

    Its counters are in a file beside the folder, `progress_of(folder)`.
    """
    log = folder.with_name(f"{folder.name}.log")
    progress = progress_of(folder)
    progress.unlink(missing_ok=True)
    return Process(
        "benchmarks.reliability.kills_child",
        [str(progress), json.dumps(point), *job.command(folder), *flags],
        log,
        **more,
    )


def progress_of(folder: Path) -> Path:
    """Where the steps are counted of a run that is killed."""
    return folder.with_name(f"{folder.name}.steps")


def progress(folder: Path) -> dict[str, Any]:
    """The steps that are counted of a run so far, see `Progress.read`."""
    path = progress_of(folder)
    if not path.exists() or not path.stat().st_size:
        return NOTHING
    return Progress(path).read()

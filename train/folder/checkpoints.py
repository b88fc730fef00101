"""Checkpoints at the end of every epoch, and the history of the epochs.

`keras.callbacks.BackupAndRestore` writes weights and epoch number to two files,
one after the other. After a kill in between, it repeats an epoch on weights
that were already trained with it. Here the number is in the file's name, and
the file appears whole, by a rename. Optimizer state, bits and schedule state
are variables in the weights file, and its end is a seal, see `seals`.
"""

from __future__ import annotations

import io
import json
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from msq_tf import atomic_files
from msq_tf.distribute import worker_index
from train.folder import seals
from train.folder.workspace import CHECKPOINTS
from train.folder.workspace import HISTORY
from train.folder.workspace import Workspace

# Draws of a seed generator that one epoch may take.
_DRAWS = 1 << 20
# The last one, and one before it in case the disk lost the last.
_KEPT = 2


class _Memory(io.BytesIO):
    """A file in memory, with a name such as Keras wants for weights."""

    def __str__(self) -> str:
        return "memory.weights.h5"


class EpochCheckpoint(keras.callbacks.Callback):
    """Saves the weights of model and optimizer after every epoch.

    Place it last in the list of callbacks, so that it sees what the others
    did and logged.
    """

    def __init__(self, workspace: Workspace, phase: str) -> None:
        super().__init__()
        self._workspace = workspace
        self._phase = phase

    def on_epoch_end(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Appends to the history, then saves.

        Raises:
            NotWrittenError: If the disk is full or may not be written.
        """
        row = {"phase": self._phase, "epoch": epoch + 1}
        row |= {name: float(value) for name, value in (logs or {}).items()}
        path = self._workspace.path(HISTORY)
        with atomic_files.writing(path), path.open("a") as file:
            file.write(json.dumps(row) + "\n")
            # No checkpoint shall be on the disk before its row is.
            file.flush()
            os.fsync(file.fileno())
        name = _name(self._phase, epoch + 1)
        with self._workspace.sealing(name) as path:
            path.write_bytes(_weights(self.model))
        kept = sorted(_epochs(self._workspace, self._phase), reverse=True)
        for number in kept[_KEPT:]:
            self._workspace.path(_name(self._phase, number)).unlink()


class EpochSeeds(keras.callbacks.Callback):
    """Makes the draws of dropout a function of the run's seed and the epoch.

    Keras saves no state of its seed generators, so a resumed run would
    otherwise drop other units than an uninterrupted one. And it has all
    replicas draw alike; here they draw apart.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    def on_epoch_begin(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Sets the state of every seed generator of the model."""
        del logs
        states = [
            variable
            for variable in self.model.variables
            if variable.path.endswith("seed_generator_state")
        ]
        strategy = self.model.distribute_strategy
        replicas = strategy.num_replicas_in_sync
        for index, state in enumerate(states):
            parts = strategy.experimental_local_results(state.value)
            first = worker_index(strategy) * len(parts)
            for replica, part in enumerate(parts, first):
                key = (self._seed * len(states) + index) * replicas + replica
                words = np.array((key, epoch * _DRAWS), np.int64)
                part.assign(words.astype(np.uint32))


def restore(
    workspace: Workspace,
    phase: str,
    model: keras.Model,
    epochs: int | None = None,
    say: Callable[[str], None] = print,
) -> int:
    """Loads the last whole checkpoint of a phase into a compiled model.

    Rows of the history that lie after it are removed: those epochs will be
    trained again. `say` is told of each checkpoint that is damaged. Returns
    the number of epochs that the model has behind it.

    Raises:
        ValueError: If a checkpoint is another run's, of an epoch that the
            phase does not have or of another model, or the history cannot be
            read.
    """
    rows = history(workspace)
    model.optimizer.build(model.trainable_variables)
    numbers = sorted(_epochs(workspace, phase), reverse=True)
    epoch = 0
    for place, number in enumerate(numbers):
        name = _name(phase, number)
        path = workspace.path(name)
        if epochs is not None and number > epochs:
            raise ValueError(
                "There is a checkpoint of an epoch that the run does not have. "
                f"Expected at most {epochs}. Received: {path}"
            )
        try:
            workspace.check(name)
            _load(model, path, last=place == len(numbers) - 1)
        except seals.DamagedError as error:
            say(f"A checkpoint is damaged and left out: {path} ({error})")
            continue
        epoch = number
        break
    kept = [
        row for row in rows if row["phase"] != phase or row["epoch"] <= epoch
    ]
    with workspace.replacing(HISTORY) as path:
        path.write_text("".join(json.dumps(row) + "\n" for row in kept))
    return epoch


def history(workspace: Workspace) -> list[dict[str, Any]]:
    """Returns the logs of all epochs, in order.

    A last line that was cut short by a kill is left out.

    Raises:
        ValueError: If another line is none that a run writes.
    """
    path = workspace.path(HISTORY)
    rows = []
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ValueError(
            f"The history cannot be read. Expected a file. Received: {path} "
            f"({error.strerror})"
        ) from error
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            break
        try:
            row = json.loads(line)
            if type(row["phase"]) is not str or type(row["epoch"]) is not int:
                raise TypeError("it names no phase and epoch")
            numbers = [row[name] for name in row if name != "phase"]
            if not all(isinstance(number, int | float) for number in numbers):
                raise TypeError("it holds something else than numbers")
        except (KeyError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(
                "The history cannot be read. Expected the rows that a run "
                f"writes, or no such file. Received: {path}, line {number} "
                f"({type(error).__name__}: {error})"
            ) from error
        rows.append(row)
    return rows


def _load(model: keras.Model, path: pathlib.Path, last: bool) -> None:
    try:
        model.load_weights(path)
    # What was written by an earlier version has no seal: a file that HDF5
    # reads may still make Keras raise whatever comes.
    except Exception as error:
        reason = seals.reason(error)
        if not last:
            # The one before replaces whatever was loaded.
            raise seals.DamagedError(reason) from error
        raise ValueError(
            "A checkpoint cannot be loaded. Expected one of the model that is "
            f"trained. Received: {path} ({type(error).__name__}: {reason})"
        ) from error


def _weights(model: keras.Model) -> memoryview:
    """What `save_weights` writes.

    HDF5 1.14 ends the process where its own write to a disk fails, at a full
    one for example, so it is given memory to write to.
    """
    memory = _Memory()
    model.save_weights(memory)
    return memory.getbuffer()


def _name(phase: str, epoch: int) -> str:
    return f"{CHECKPOINTS}/{phase}/epoch-{epoch:04d}.weights.h5"


def _epochs(workspace: Workspace, phase: str) -> list[int]:
    """Epochs that there are files of."""
    folder = workspace.path(f"{CHECKPOINTS}/{phase}")
    names = [path.name for path in folder.glob("epoch-*.weights.h5")]
    found = [re.fullmatch(r"epoch-(\d+)\.weights\.h5", n) for n in names]
    numbers = {int(match[1]) for match in found if match}
    return [n for n in numbers if workspace.path(_name(phase, n)).exists()]

"""Checkpoints at the end of every epoch, and the history of the epochs.

`keras.callbacks.BackupAndRestore` writes weights and epoch number to two
files, one after the other: a kill in between repeats an epoch on weights that
have it behind them. Here the number is in the file's name, and the file
appears whole, by a rename. Optimizer state, bits and schedule state are
variables that the weights file holds.
"""

from __future__ import annotations

import io
import json
import os
import pathlib
import re
from typing import Any

import keras
import numpy as np

from msq_tf import files
from msq_tf.replicas import worker_index
from train.workspace import HISTORY
from train.workspace import Workspace

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

    Args:
        workspace: Folder of the run.
        phase: Name of the phase of training.
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
        with files.writing(path), path.open("a") as file:
            file.write(json.dumps(row) + "\n")
            # No checkpoint shall be on the disk before its row is.
            file.flush()
            os.fsync(file.fileno())
        name = f"checkpoints/{self._phase}/epoch-{epoch + 1:04d}.weights.h5"
        with self._workspace.replacing(name) as path:
            path.write_bytes(_weights(self.model))
        for old in _files(self._workspace, self._phase)[_KEPT:]:
            old.unlink()


class EpochSeeds(keras.callbacks.Callback):
    """Makes the draws of dropout a function of the seed and the epoch.

    Keras saves no state of its seed generators, so a resumed run would
    otherwise drop other units than an uninterrupted one. And it has all
    replicas draw alike; here they draw apart.

    Args:
        seed: Seed of the run.
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


def restore(workspace: Workspace, phase: str, model: keras.Model) -> int:
    """Loads the last checkpoint of a phase into a compiled model.

    Rows of the history that lie after it are removed: those epochs will be
    trained again.

    Args:
        workspace: Folder of the run.
        phase: Name of the phase of training.
        model: The compiled model.

    Returns:
        The number of epochs that the model has behind it.
    """
    model.optimizer.build(model.trainable_variables)
    epoch = 0
    for path in _files(workspace, phase):
        try:
            model.load_weights(path)
        except OSError:  # torn by a crash of the machine
            continue
        epoch = int(re.findall(r"\d+", path.name)[0])
        break
    kept = [
        row
        for row in history(workspace)
        if row["phase"] != phase or row["epoch"] <= epoch
    ]
    with workspace.replacing(HISTORY) as path:
        path.write_text("".join(json.dumps(row) + "\n" for row in kept))
    return epoch


def history(workspace: Workspace) -> list[dict[str, Any]]:
    """Returns the logs of all epochs, in order.

    A last line that was cut short by a kill is left out.
    """
    path = workspace.path(HISTORY)
    rows = []
    if path.exists():
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                rows.append(json.loads(line))
    return rows


def _weights(model: keras.Model) -> memoryview:
    """What `save_weights` writes.

    HDF5 1.14 ends the process where its own write to a disk fails, at a full
    one for example, so it is given memory to write to.
    """
    memory = _Memory()
    model.save_weights(memory)
    return memory.getbuffer()


def _files(workspace: Workspace, phase: str) -> list[pathlib.Path]:
    folder = workspace.path(f"checkpoints/{phase}")
    return sorted(folder.glob("epoch-*.weights.h5"), reverse=True)

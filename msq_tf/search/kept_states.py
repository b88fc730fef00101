"""Weights that a search may go back to, and its journal."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Container
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from msq_tf.atomic_files import PARTIAL
from msq_tf.atomic_files import left_over
from msq_tf.atomic_files import replacing

JOURNAL = "tolerance.json"
_OURS = re.compile(r"epoch-(\d+)\.npz")


class KeptStates:
    """The states of a model after some epochs, in memory or in a folder.

    Files appear by renames, the journal last: after a kill at any point the
    states that it names are there.

    Args:
        directory: Folder; `None` for memory.
        writes: Whether this process keeps them, as one of several workers.
    """

    def __init__(self, directory: str | None, writes: bool = True):
        self._folder = None if directory is None else pathlib.Path(directory)
        self._writes = writes
        self._in_memory: dict[int, list[np.ndarray]] = {}

    def save(self, epoch: int, arrays: Sequence[np.ndarray]) -> None:
        """Keeps the state after an epoch."""
        if not self._writes:
            return
        if self._folder is None:
            # Copies: an array may be a view of the variable itself.
            self._in_memory[epoch] = [np.array(array) for array in arrays]
        else:
            with replacing(_path(self._folder, epoch)) as path:
                with open(path, "wb") as file:
                    np.savez(file, *map(_as_bytes, arrays))

    def load(
        self, epoch: int, like: Sequence[np.ndarray]
    ) -> list[np.ndarray] | None:
        """The state after an epoch; `None` where this process has none.

        Args:
            epoch: The epoch.
            like: Arrays of the shapes and dtypes to expect. What was made
                since, as slots of a second optimizer, comes last, and is in
                the result as it is here.

        Raises:
            ValueError: If it is not there, or is that of another model.
        """
        if not self._writes:
            return None
        if self._folder is None:
            kept = self._in_memory[epoch]
            return [*kept, *like[len(kept) :]]
        path = _path(self._folder, epoch)
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = [file[f"arr_{i}"] for i in range(len(file.files))]
            if len(arrays) > len(like):
                raise ValueError(f"{len(arrays)} arrays")
            kept = [
                np.frombuffer(a.tobytes(), w.dtype).reshape(w.shape)
                for a, w in zip(arrays, like, strict=False)
            ]
            return [*kept, *like[len(kept) :]]
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                "The stored weights of a search cannot be read. Expected those "
                f"of this model, as the search wrote them. Received: {path} "
                f"({error})"
            ) from error

    def holds(self, epoch: int, arrays: Sequence[np.ndarray]) -> bool:
        """Whether arrays are what is kept; True where this process has none."""
        kept = self.load(epoch, arrays)
        return kept is None or all(
            a.tobytes() == b.tobytes()
            for a, b in zip(kept, arrays, strict=True)
        )

    def keep_only(self, epochs: Container[int]) -> None:
        """Forgets the states after all other epochs."""
        for epoch in list(self._in_memory):
            if epoch not in epochs:
                del self._in_memory[epoch]
        if self._folder is None or not self._writes:
            return
        for path in self._folder.iterdir():
            found = _OURS.fullmatch(path.name)
            if found and int(found[1]) not in epochs:
                path.unlink()

    def write_journal(self, journal: Mapping[str, Any]) -> None:
        """Writes the journal, where there is a folder."""
        if self._folder is not None and self._writes:
            with replacing(self._folder / JOURNAL) as path:
                path.write_text(json.dumps(journal, indent=1) + "\n")

    def read_journal(self) -> dict[str, Any] | None:
        """The journal in the folder, if any.

        Raises:
            ValueError: If it cannot be read.
        """
        if self._folder is None or not self._writes:
            return None
        try:
            journal = json.loads((self._folder / JOURNAL).read_text())
            if not isinstance(journal, dict):
                raise ValueError("no mapping")
            return journal
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{JOURNAL} cannot be read. Expected what a search for a "
                f"tolerance wrote. Received: directory={self._folder} ({error})"
            ) from error

    def clear(self) -> None:
        """Removes what earlier searches, and kills, have left."""
        self._in_memory.clear()
        if self._folder is None or not self._writes:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        self.keep_only(())
        (self._folder / JOURNAL).unlink(missing_ok=True)
        for path in left_over(self._folder):
            name = PARTIAL.sub("", path.name, count=1)
            if name == JOURNAL or _OURS.fullmatch(name):
                path.unlink(missing_ok=True)


def give_back(
    variables: Sequence[Any],
    arrays: Sequence[np.ndarray],
    lasting: Sequence[Any],
) -> None:
    """Gives variables the values of an earlier state.

    Args:
        variables: The variables.
        arrays: Their values then.
        lasting: Those that go on as they are, unless they are zero or no
            finite numbers: see `QuantizedNetwork.second_moments`.
    """
    stays = set(map(id, lasting))
    for variable, array in zip(variables, arrays, strict=True):
        if id(variable) in stays:
            value = np.asarray(variable.numpy(), np.float32)
            if value.any() and np.isfinite(value).all():
                continue
        variable.assign(array)


def _path(folder: pathlib.Path, epoch: int) -> pathlib.Path:
    return folder / f"epoch-{epoch:04d}.npz"


def _as_bytes(array: np.ndarray) -> np.ndarray:
    # NumPy's files know no bfloat16.
    array = np.ascontiguousarray(array)
    return np.frombuffer(array.tobytes(), np.uint8)

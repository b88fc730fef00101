"""The inputs that a network is trained, chosen and measured on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from msq_tf import atomic_files

FOLDER = Path("out/mlperf_tiny")


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Examples, in the scale of the float network, float32.

    Attributes:
        train: What outputs of the float model are learned on.
        choose: What a search measures on.
        test: What the table is measured on.
        choose_labels: Classes of `choose`; empty where there are none.
        test_labels: Classes of `test`; empty where there are none.
        windows: How many examples in a row are one recording; 1 where each
            counts by itself.
    """

    train: np.ndarray
    choose: np.ndarray
    test: np.ndarray
    choose_labels: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros(0, np.int64)
    )
    test_labels: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros(0, np.int64)
    )
    windows: int = 1


def save(path: Path, made: Inputs) -> None:
    """Keeps inputs for the processes of the other rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_files.replacing(path) as partial:
        np.savez(partial, **dataclasses.asdict(made))


def load(path: Path) -> Inputs:
    """What `save` kept."""
    with np.load(path) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    return Inputs(**found | {"windows": int(found["windows"])})

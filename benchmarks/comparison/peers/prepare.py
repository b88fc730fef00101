"""Writes what the peers' drivers fine-tune: base weights, batches, budget.

    python -m benchmarks.comparison.peers.prepare FOLDER SEED

Plain arrays, since a driver may run where neither `msq_tf` nor `train` is.
They are those of the accuracy benchmark's study `fashion_mnist_mini`: the same
float baseline, order of examples, augmentation, steps and learning rates.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy import run
from benchmarks.accuracy.study import STUDIES
from benchmarks.harness import peer_network
from msq_tf import atomic_files
from train.data import batches
from train.data.datasets import Examples
from train.data.datasets import ImageDataset
from train.settings import PIXELS

STUDY = STUDIES["fashion_mnist_mini"]
# Training examples that a search takes its statistics on, the first ones.
_STATISTICS = 512


def budget() -> dict[str, Any]:
    """What all rows share; results with another budget are stale."""
    scale, offset = PIXELS[STUDY.pixels]
    if offset:
        raise ValueError(
            "The drivers only scale images. Expected an offset of zero. "
            f"Received: pixels={STUDY.pixels}"
        )
    return STUDY.budget() | {"pixel_scale": scale}


def prepare(folder: Path, seed: int) -> None:
    """Writes the files of one seed, and what seeds share, where missing.

    Args:
        folder: Where to.
        seed: Seed of the order of the data and of its augmentation.
    """
    folder.mkdir(parents=True, exist_ok=True)
    forget_stale(folder)
    base = run.FOLDER / STUDY.name
    run.make_base(STUDY, base)
    data = run.load_data(STUDY)
    if not (folder / "base.npz").exists():
        model = run.float_model(STUDY, data)
        model.load_weights(base / run.BASE)
        _save(
            folder / "base.npz",
            {
                name: variable.numpy()
                for name, variable in peer_network.variables(model).items()
            },
        )
    if not (folder / "data.npz").exists():
        _save(folder / "data.npz", _shared(data))
    if not (folder / f"batches-{seed}.npz").exists():
        _save(folder / f"batches-{seed}.npz", _batches(data, seed))


def forget_stale(folder: Path) -> None:
    """Removes what was written for another budget; notes the present one."""
    note = folder / "budget.json"
    if note.exists() and json.loads(note.read_text()) != budget():
        for stale in folder.glob("*.npz"):
            stale.unlink()
    with atomic_files.replacing(note) as partial:
        partial.write_text(json.dumps(budget(), indent=2))


def _shared(data: ImageDataset) -> dict[str, np.ndarray]:
    train, test, held_out = data.train, data.test, STUDY.held_out
    return {
        "test_images": test.images,
        "test_labels": test.labels,
        "statistics_images": train.images[:_STATISTICS],
        "statistics_labels": train.labels[:_STATISTICS],
        "held_out_images": train.images[-held_out:],
        "held_out_labels": train.labels[-held_out:],
    }


def _batches(data: ImageDataset, seed: int) -> dict[str, np.ndarray]:
    """The batches that `accuracy_run.run` trains on, as uint8."""
    fitted = Examples(
        data.train.images[: -STUDY.held_out],
        data.train.labels[: -STUDY.held_out],
    )
    steps = STUDY.epochs * STUDY.steps
    epoch = batches.steps_per_epoch(fitted, STUDY.batch_size)
    made = batches.training_batches(
        fitted,
        STUDY.batch_size,
        range(-(-steps // epoch)),
        seed,
        batches.Augmentation(STUDY.shift, flip=True),
        "raw",
    ).take(steps)
    images, labels = zip(*made.as_numpy_iterator(), strict=True)
    return {
        # Whole numbers: shifts and flips move pixels only.
        "images": np.stack(images).astype(np.uint8),
        "labels": np.stack(labels),
    }


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with atomic_files.replacing(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), int(sys.argv[2]))

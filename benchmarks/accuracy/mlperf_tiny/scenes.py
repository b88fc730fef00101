"""Images of 96 x 96 pixels, for the network that looks for persons.

The images of Visual Wake Words are not at hand. A scene here is a mosaic of
one, four or nine images of CIFAR-10, scaled up and shifted: several things at
several sizes, as in photos.
"""

from __future__ import annotations

import numpy as np

from benchmarks.accuracy.mlperf_tiny.inputs import Inputs

SIZE = 96
TRAIN, CHOOSE, TEST = 2560, 1000, 1000


def scene(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One scene, `(SIZE, SIZE, 3)` from 0 to 1.

    Args:
        images: To choose from, `(images, 32, 32, 3)` from 0 to 255.
        rng: What chooses.
    """
    across = rng.integers(1, 4)
    chosen = images[rng.integers(0, len(images), across**2)]
    rows = chosen.reshape(across, across, *images.shape[1:])
    board = np.concatenate(np.concatenate(rows, axis=1), axis=1)
    return shifted(enlarged(board, 108), rng) / np.float32(255.0)


def enlarged(image: np.ndarray, size: int) -> np.ndarray:
    """A square image at another size, linear between pixels, float32."""
    at = np.linspace(0.0, len(image) - 1.0, size)
    low = np.minimum(at.astype(int), len(image) - 2)
    part = (at - low).astype(np.float32)
    for _ in range(2):  # rows, then columns
        weight = part[:, None, None]
        mixed = image[low] * (1 - weight) + image[low + 1] * weight
        image = mixed.swapaxes(0, 1)
    return image


def shifted(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A piece of `SIZE` pixels, half of the time mirrored."""
    y, x = rng.integers(0, len(image) - SIZE + 1, 2)
    piece = image[y : y + SIZE, x : x + SIZE]
    return piece[:, ::-1] if rng.random() < 0.5 else piece


def make(train: np.ndarray, test: np.ndarray, seed: int = 0) -> Inputs:
    """Scenes of training images, and of test images.

    Args:
        train: Images of CIFAR-10's training set.
        test: Images of its test set, for the scenes to measure on.
        seed: Of all that is random.
    """
    rng = np.random.default_rng(seed)
    parts = (
        (train[:-5000], TRAIN),
        (train[-5000:], CHOOSE),
        (test, TEST),
    )
    learned, chosen, tested = (
        np.stack([scene(images, rng) for _ in range(count)])
        for images, count in parts
    )
    return Inputs(learned, chosen, tested)

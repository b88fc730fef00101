"""Inputs from a folder of images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

_COLORS = {1: "grayscale", 3: "rgb", 4: "rgba"}


def inputs(
    folder: str | os.PathLike[str], specs: Sequence[Any], limit: int
) -> tuple[np.ndarray, str]:
    """Images for the one input of a model, and a sentence for the report.

    Raises:
        ValueError: If there are no images, or the model takes none.
    """
    if len(specs) != 1:
        raise ValueError(
            "A folder of images is for a model with one input. Received: "
            f"inputs {[spec.name for spec in specs]}, "
            f"representative_data='{os.fspath(folder)}'"
        )
    (spec,) = specs
    images = read(folder, spec.shape, limit)
    if not spec.dtype.is_floating:
        images = np.round(images).astype(spec.dtype.as_numpy_dtype)
    height, width = images.shape[1:3]
    return images, (
        f"representative_data are {len(images)} images of "
        f"'{os.fspath(folder)}', resized to {height} x {width} and nothing "
        f"else: numbers from {images.min():g} to {images.max():g}"
    )


def read(
    folder: str | os.PathLike[str],
    shape: Sequence[int | None] | None,
    limit: int,
) -> np.ndarray:
    """Reads images, of all classes alike if they lie in folders of them.

    float32 of 0..255, resized to the model's input, whose shape has the batch.

    Raises:
        ValueError: If there are no images, or the input is none.
    """
    if not os.path.isdir(folder):
        hint = "a folder of images"
        if os.fspath(folder).endswith((".npy", ".npz")):
            hint = "the arrays themselves, as `numpy.load` returns them"
        raise ValueError(
            f"There is no such folder of images. Expected {hint}. Received: "
            f"representative_data='{os.fspath(folder)}'"
        )
    sizes = [] if shape is None else list(shape)
    if len(sizes) != 4 or None in sizes[1:] or sizes[3] not in _COLORS:
        raise ValueError(
            "A folder of images is for an input of the shape (batch, height, "
            "width, channels) with 1, 3 or 4 channels. Expected other "
            f"representative_data. Received: an input of shape {tuple(sizes)}"
        )
    import keras

    _, height, width, channels = sizes
    try:
        found = keras.utils.image_dataset_from_directory(
            os.fspath(folder),
            labels=None,
            color_mode=_COLORS[channels],  # type: ignore[index]
            batch_size=1,
            image_size=(height, width),
            # Files stand in the order of their names, a class after another.
            shuffle=True,
            seed=0,
            verbose=False,
        )
        rows = [batch.numpy() for batch in found.take(limit)]
    except Exception as error:
        # TensorFlow's own for a damaged image has lines of nodes in it.
        words = " ".join(str(error).split())[:200]
        raise ValueError(
            f"The images can't be read: {words}. Expected JPEG, PNG, BMP or "
            f"GIF. Received: representative_data='{os.fspath(folder)}'"
        ) from error
    return np.concatenate(rows)

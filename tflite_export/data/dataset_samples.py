"""Representative data by name, for the command line."""

from __future__ import annotations

import contextlib
import math
import os
import re
import stat
import zipfile
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np

from tflite_export import files
from tflite_export.data import image_folder
from tflite_export.data import tfds_sets

# Input range of a model: the value of one step of a pixel, and of 0.
PIXELS = {
    "unit": (1.0 / 255.0, 0.0),
    "signed": (2.0 / 255.0, -1.0),
    "raw": (1.0, 0.0),
}
# Bytes of arrays for one of a compressed archive, and what is free.
_SHARING = 64
_SLACK = 1 << 26
# With a version, and a split behind it.
_NAME = re.compile(
    rf"(?P<name>{tfds_sets.NAME}(?::\d+\.\d+\.\d+)?)"
    r"(?::(?P<split>[a-z_]\S*))?"
)


def read(
    where: str,
    shape: Sequence[int | None] | None = None,
    pixels: str = "unit",
    data_dir: str | None = None,
    limit: int = 256,
) -> Any:
    """Reads inputs from a file of arrays, a folder or a TensorFlow data set.

    Args:
        where: Path of an `.npy` (one input) or `.npz` (one array per input
            name), of a folder of images, or the name of a data set of images
            in TFDS, with a split behind a colon: `cifar10`, `cifar10:test`,
            `cifar10:3.0.2:train`.
        shape: Shape of the model's input with the batch; images of another
            size are resized to it.
        pixels: Input range of the model: a key of `PIXELS`.
        data_dir: Folder of prepared data sets.
        limit: Largest number of images.

    Raises:
        ValueError: If there is no such file, data set or split, or it is not
            one of images.
    """
    if where.endswith((".npy", ".npz")):
        return _arrays(where)
    if os.path.isdir(where):
        images = image_folder.read(where, shape, limit)
        return _scaled(images, shape, pixels)
    rows = _rows(*_named(where), data_dir, limit)
    return _scaled(_stacked(rows), shape, pixels)


def read_labelled(
    where: str,
    shape: Sequence[int | None] | None = None,
    pixels: str = "unit",
    data_dir: str | None = None,
    limit: int | None = None,
) -> tuple[Any, np.ndarray]:
    """Reads inputs, as an array or a dict of arrays, and targets.

    `where` is the path of an `.npz` with `y` and `x`, or `y` and one array per
    input name; or the name of a data set as in `read`, whose split is `test`
    if it has none. Other arguments are those of `read`; without a limit all
    samples are read.

    Raises:
        ValueError: As `read` raises, or if there are no targets.
    """
    if where.endswith((".npy", ".npz")):
        arrays = _arrays(where)
        if not isinstance(arrays, dict) or "y" not in arrays or len(arrays) < 2:
            names = sorted(arrays) if isinstance(arrays, dict) else "one array"
            raise ValueError(
                "Expected an .npz with the arrays x and y, or one array per "
                f"input name and y. Received: {names} in '{where}'"
            )
        arrays = {name: array[:limit] for name, array in arrays.items()}
        y = arrays.pop("y")
        return arrays["x"] if list(arrays) == ["x"] else arrays, y
    name, split = _named(where)
    rows = _rows(name, split or "test", data_dir, limit)
    if "label" not in rows[0]:
        raise ValueError(
            f"The data set '{name}' holds no 'label'. Expected one of images "
            f"with classes. Received: {sorted(rows[0])}"
        )
    labels = np.array([row["label"] for row in rows])
    return _scaled(_stacked(rows), shape, pixels), labels


def _named(where: str) -> tuple[str, str | None]:
    """The name of a data set and its split."""
    found = _NAME.fullmatch(where)
    if found is None or os.sep in where and os.path.exists(where):
        raise ValueError(
            "Expected a path ending in .npy or .npz, a folder of images, or "
            "the name of a data set, with or without :split. Received: "
            f"'{where}'"
        )
    return found["name"], found["split"]


def _arrays(path: str) -> Any:
    _check_file(path)
    try:
        if path.endswith(".npy"):
            # A header may claim any shape; mapped, nothing makes room for it.
            return np.array(np.load(path, mmap_mode="r", allow_pickle=False))
        with open(path, "rb") as file:
            with zipfile.ZipFile(file) as archive:
                _check_archive(archive, os.fstat(file.fileno()).st_size)
            file.seek(0)
            with np.load(file, allow_pickle=False) as loaded:
                return dict(loaded)
    except OSError as error:
        raise ValueError(
            f"The data can't be read ({error.strerror or error}). Received: "
            f"'{path}'"
        ) from error
    # NumPy reads headers with Python's parser, and archives with zipfile.
    except Exception as error:
        raise ValueError(
            f"The data can't be read ({error}). Expected arrays of numbers "
            f"saved by NumPy. Received: '{path}'"
        ) from error


def _check_file(path: str) -> None:
    """Refuses what is there and is no file; opening a pipe would not end."""
    with contextlib.suppress(OSError):
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(
                "Expected a file of arrays. Received: a folder, pipe, socket "
                f"or device, '{path}'"
            )
        # A file with holes is as large as it likes.
        if found.st_size > files.physical_memory():
            raise ValueError(
                "The data does not fit into memory. Received: "
                f"{found.st_size:,} bytes, '{path}'"
            )


def _check_archive(archive: zipfile.ZipFile, size: int) -> None:
    """Refuses an archive that asks for memory out of proportion to its size.

    Zeros pack a thousand to one, entries may share their bytes, and headers
    claim what they like.
    """
    most = _SHARING * size + _SLACK
    claimed = 0
    for entry in archive.infolist():
        claimed += max(entry.file_size, _claimed(archive, entry))
        if claimed > most:
            raise ValueError(
                f"it asks for {claimed:,} bytes or more, over {_SHARING} times "
                f"its size of {size:,}; numpy.savez, which does not compress, "
                "has no such limit"
            )


def _claimed(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> int:
    """Bytes of the array that an entry's header describes."""
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(file)
    return math.prod(shape) * dtype.itemsize


def _rows(
    name: str, split: str | None, data_dir: str | None, limit: int | None
) -> list[dict[str, Any]]:
    """Rows of a data set, each with its image."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        from msq_tf import extras

        raise ValueError(
            "Data sets by name need TensorFlow Datasets: "
            f"{extras.install('train')}. Received: '{name}'"
        ) from error
    received = f"name={name}, split={split}, data_dir={data_dir}"
    with _in_words(received):
        builder = tfds.builder(name, data_dir=data_dir)
    tfds_sets.prepare(builder, name, data_dir)
    with _in_words(received):
        wanted = builder.as_dataset(split=split or "train")
        wanted = wanted.take(-1 if limit is None else limit)
        rows = list(tfds.as_numpy(wanted))
    if not rows:
        raise ValueError(
            f"The data set holds no image. Received: name={name}, split={split}"
        )
    if "image" not in rows[0]:
        raise ValueError(
            "The data set holds no images. Expected them under 'image'. "
            f"Received: '{name}' with {', '.join(map(str, rows[0]))}"
        )
    return rows


@contextlib.contextmanager
def _in_words(received: str) -> Iterator[None]:
    """Raises a ValueError for errors of TFDS, of many kinds and some long."""
    try:
        yield
    except Exception as error:
        words = " ".join(str(error).split())[:300].rstrip(" .")
        # What follows is all that TFDS has, of which the first few stayed.
        words, *unknown = words.split(" Available datasets:")
        if unknown:
            words += (
                " Expected a set of TFDS, or one that was prepared in the "
                "folder that --data_dir names"
            )
        raise ValueError(
            f"The data set can't be read: {words}. Received: {received}"
        ) from error


def _stacked(rows: Sequence[dict[str, Any]]) -> np.ndarray:
    images = [row["image"] for row in rows]
    if len({image.shape for image in images}) == 1:
        return np.stack(images)
    result = np.empty(len(images), object)
    result[:] = images
    return result


def _scaled(
    images: np.ndarray, shape: Sequence[int | None] | None, pixels: str
) -> np.ndarray:
    if pixels not in PIXELS:
        raise ValueError(
            f"Expected one of {', '.join(PIXELS)}. Received: pixels='{pixels}'"
        )
    factor, offset = PIXELS[pixels]
    size = None if shape is None or len(shape) != 4 else shape[1:3]
    if size is not None and None not in size:
        import tensorflow as tf

        resized = [
            image
            if image.shape[:2] == tuple(size)
            else tf.image.resize(image, size, antialias=True).numpy()
            for image in images
        ]
        images = np.stack(resized)
    elif images.dtype == object:
        raise ValueError(
            "The images of the data set have several sizes. Expected one, or "
            "a model with an input of a fixed height and width, to which they "
            f"are resized. Received: {sorted({i.shape for i in images})[:3]}"
        )
    return images.astype(np.float32) * np.float32(factor) + np.float32(offset)

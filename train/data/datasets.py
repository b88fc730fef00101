"""Image classification data sets, decoded once into memory."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from tflite_export.data import tfds_sets
from tflite_export.files import physical_memory

# With a version.
_NAME = re.compile(rf"{tfds_sets.NAME}(?::[\w.*]+)?")
EMBEDDED = pathlib.Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Images and labels of one split.

    Attributes:
        images: uint8 array (example, height, width, channel).
        labels: int32 array (example,).
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True, eq=False)
class ImageDataset:
    """A data set for image classification.

    Attributes:
        name: Its name and version.
        classes: Number of classes.
        train: Examples to learn from.
        test: Examples to measure with.
        held_out: Examples to choose a size by, which are neither.
    """

    name: str
    classes: int
    train: Examples
    test: Examples
    held_out: Examples | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels


def with_held_out(data: ImageDataset) -> ImageDataset:
    """Holds back a tenth of the training examples, evenly spread.

    Of few examples it is up to a fifth, for 1,000 that are held back.
    """
    count = len(data.train)
    wanted = max(count // 10, min(1000, count // 5), 1)
    held = np.zeros(count, bool)
    held[np.linspace(0, count - 1, wanted).astype(np.int64)] = True

    def part(chosen: np.ndarray) -> Examples:
        return Examples(data.train.images[chosen], data.train.labels[chosen])

    return dataclasses.replace(data, train=part(~held), held_out=part(held))


def load(
    name: str,
    data_dir: str | None = None,
    image_size: int | None = None,
    train_examples: int | None = None,
    test_examples: int | None = None,
) -> ImageDataset:
    """Loads a TensorFlow data set of images with one label each, into memory.

    A data set that travels with this package is read from there. Any other is
    read from `data_dir`, or from TFDS's own folder, to which it is downloaded
    when it is not there yet and `data_dir` is not given.

    Args:
        name: Name in TFDS, with options as TFDS takes them, such as
            `"cifar10"` or `"cifar10:3.0.2"`.
        data_dir: Folder that holds prepared data sets.
        image_size: Height and width to which images are resized. Defaults
            to the size that they have.
        train_examples: Number of training examples to keep, the first ones.
        test_examples: Number of test examples to keep, the first ones.

    Raises:
        ValueError: If there is no such data set, it is not one of labelled
            images, or it does not fit in memory.
    """
    builder = _builder(name, data_dir)
    classes = _classes(builder)
    tests = [s for s in ("test", "validation") if s in builder.info.splits]
    if "train" not in builder.info.splits or not tests:
        raise ValueError(
            "The data set lacks a split. Expected `train`, and `test` or "
            f"`validation`. Received: {sorted(builder.info.splits)} in {name}"
        )
    return ImageDataset(
        name=f"{builder.name} {builder.version}",
        classes=classes,
        train=_examples(builder, "train", image_size, train_examples),
        test=_examples(builder, tests[0], image_size, test_examples),
    )


def _builder(name: str, data_dir: str | None) -> Any:
    if not _NAME.fullmatch(name):
        raise ValueError(
            "This is no name of a data set. Expected one such as cifar10, "
            "cifar10:3.0.2 or name/config; --data_dir names a folder. "
            f"Received: dataset={name}"
        )
    embedded = EMBEDDED / name
    if embedded.is_dir():
        versions = sorted(path for path in embedded.iterdir() if path.is_dir())
        return tfds.builder_from_directory(versions[-1])
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise ValueError(
            "There is no such data set. Expected "
            f"{', '.join(_embedded_names())} (embedded), a name that TFDS "
            "knows, or one prepared under --data_dir. Received: "
            f"dataset={name}, data_dir={data_dir}"
        ) from error
    tfds_sets.prepare(builder, name, data_dir)
    return builder


def _embedded_names() -> list[str]:
    return sorted(path.name for path in EMBEDDED.iterdir() if path.is_dir())


def _classes(builder: Any) -> int:
    features = builder.info.features
    labelled = (
        isinstance(features, tfds.features.FeaturesDict)
        and {"image", "label"} <= set(features)
        and isinstance(features["image"], tfds.features.Image)
        and isinstance(features["label"], tfds.features.ClassLabel)
    )
    if not labelled:
        raise ValueError(
            "The data set is not one of labelled images. Expected the "
            "features `image` and `label`. Received: "
            f"{builder.name} with {sorted(features)}"
        )
    return features["label"].num_classes


def _examples(
    builder: Any, split: str, image_size: int | None, limit: int | None
) -> Examples:
    count = builder.info.splits[split].num_examples
    if limit is not None:
        count = min(count, limit)
    height, width, channels = builder.info.features["image"].shape
    if image_size is not None:
        height = width = image_size
    if height is None or width is None:
        raise ValueError(
            "The images have no common size. Expected --image_size. "
            f"Received: dataset={builder.name}"
        )
    _check_memory(builder.name, count * height * width * channels)

    def decoded(example: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        image = example["image"]
        if image_size is not None:
            resized = tf.image.resize(image, (height, width), antialias=True)
            image = tf.cast(
                tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8
            )
        return image, example["label"]

    images = np.empty((count, height, width, channels), np.uint8)
    labels = np.empty((count,), np.int32)
    # `shuffle_files=False` and a deterministic map: the same order always.
    examples = builder.as_dataset(split=split, shuffle_files=False)
    batches = examples.take(count).map(decoded, tf.data.AUTOTUNE).batch(1024)
    start = 0
    for image, label in batches.as_numpy_iterator():
        images[start : start + len(label)] = image
        labels[start : start + len(label)] = label
        start += len(label)
    return Examples(images, labels)


def _check_memory(name: str, needed: int) -> None:
    memory = physical_memory()
    if needed > memory // 2:
        raise ValueError(
            "The data set does not fit in memory. Expected at most "
            f"{memory // 2:,} bytes; --train_examples and --image_size make "
            f"it smaller. Received: {needed:,} bytes for dataset={name}"
        )

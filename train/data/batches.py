"""Batches that depend on nothing but the seed and the number of the step.

Order and augmentation of step t are functions of (seed, t), so a run that
resumes at epoch e sees the batches that an uninterrupted run sees there, and
no iterator state needs to be saved.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from train.data.datasets import Examples
from train.settings import PIXELS


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes of a training image.

    Attributes:
        shift: Largest shift in pixels, along either axis, either way; the
            border is filled with black.
        flip: Whether half of the images are mirrored.
    """

    shift: int = 0
    flip: bool = False


@dataclasses.dataclass(frozen=True)
class Share:
    """Which part of every batch is wanted.

    A batch has equal parts in a row, one for each replica.

    Attributes:
        replicas: Number of parts.
        first: The first part that is wanted.
        parts: How many from there on; each becomes a batch of its own.
    """

    replicas: int = 1
    first: int = 0
    parts: int = 1


def scaled(images: tf.Tensor, pixels: str) -> tf.Tensor:
    """Returns uint8 images as the float32 that a model takes."""
    scale, offset = PIXELS[pixels]
    return tf.cast(images, tf.float32) * scale + offset


def training_batches(
    examples: Examples,
    batch_size: int,
    epochs: range,
    seed: int,
    augmentation: Augmentation,
    pixels: str,
    share: Share = Share(),
) -> tf.data.Dataset:
    """Makes the batches `(images, labels)` of some epochs, counted from 0.

    Every epoch has `steps_per_epoch(examples, batch_size)` batches, all
    full: an epoch leaves out what does not fill a batch, other examples in
    every epoch. The seed is that of the order and of the augmentation, which
    are the same whatever part of every batch `share` wants.
    """
    steps = steps_per_epoch(examples, batch_size)
    images = tf.constant(examples.images)
    labels = tf.constant(examples.labels)
    size = batch_size // share.replicas

    def batch(count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        step, part = count // share.parts, count % share.parts
        within = (share.first + part) * size + tf.range(size, dtype=tf.int64)
        epoch, number = step // steps, step % steps
        order = tf.stack([tf.constant(seed, tf.int64), epoch])
        index = tf.random.experimental.index_shuffle(
            number * batch_size + within,
            seed=tf.cast(order, tf.int32),
            max_index=tf.constant(len(examples) - 1, tf.int64),
        )
        changed = _augmented(
            tf.gather(images, index),
            augmentation,
            tf.stack([tf.constant(seed, tf.int64), step]),
            batch_size,
            within,
        )
        return scaled(changed, pixels), tf.gather(labels, index)

    every = steps * share.parts
    numbers = tf.data.Dataset.range(epochs.start * every, epochs.stop * every)
    return numbers.map(batch, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def test_batches(
    examples: Examples, batch_size: int, pixels: str
) -> tf.data.Dataset:
    """Makes batches of all examples, in order and unchanged."""
    batches = tf.data.Dataset.from_tensor_slices(
        (examples.images, examples.labels)
    ).batch(batch_size)
    return batches.map(
        lambda images, labels: (scaled(images, pixels), labels),
        tf.data.AUTOTUNE,
    ).prefetch(tf.data.AUTOTUNE)


def steps_per_epoch(examples: Examples, batch_size: int) -> int:
    """Returns the number of training batches in an epoch.

    Raises:
        ValueError: If there are fewer examples than a batch holds.
    """
    if len(examples) < batch_size:
        raise ValueError(
            "There are fewer training examples than a batch holds. Expected "
            f"batch_size <= {len(examples)}. Received: batch_size={batch_size}"
        )
    return len(examples) // batch_size


def check_shift(examples: Examples, shift: int) -> None:
    """Raises a ValueError for a shift that may leave nothing of an image."""
    side = min(examples.images.shape[1:3])
    if shift >= side:
        raise ValueError(
            "The largest shift leaves nothing of an image. Expected shift < "
            f"{side}. Received: shift={shift}"
        )


def _augmented(
    images: tf.Tensor,
    augmentation: Augmentation,
    seed: tf.Tensor,
    count: int,
    within: tf.Tensor,
) -> tf.Tensor:
    """Changes some of the images of a batch of `count`, those at `within`.

    Draws are made for all, which costs little: so an image is changed in the
    same way whichever replica has it.
    """
    _, height, width, _ = images.shape
    if augmentation.flip:
        mirrored = tf.random.stateless_uniform([count, 1, 1, 1], seed) < 0.5
        mirrored = tf.gather(mirrored, within)
        images = tf.where(mirrored, images[:, :, ::-1], images)
    shift = augmentation.shift
    if shift:
        # A window of the padded image, its corner drawn for each image.
        border = [shift, shift]
        images = tf.pad(images, [[0, 0], border, border, [0, 0]])
        corner = tf.random.stateless_uniform(
            [2, count, 1], seed + 1, maxval=2 * shift + 1, dtype=tf.int32
        )
        corner = tf.gather(corner, within, axis=1)
        rows = corner[0] + tf.range(height)
        columns = corner[1] + tf.range(width)
        images = tf.gather(images, rows, axis=1, batch_dims=1)
        images = tf.gather(images, columns, axis=2, batch_dims=1)
    return images

from __future__ import annotations

import numpy as np
import pytest

from train.data import batches
from train.data.datasets import Examples

COUNT, BATCH, STEPS = 37, 5, 7


@pytest.fixture
def examples() -> Examples:
    images = np.arange(COUNT * 6 * 6).reshape(COUNT, 6, 6, 1) % 251
    return Examples(images.astype(np.uint8), np.arange(COUNT, dtype=np.int32))


WHOLE = batches.Share()


def drawn(examples, epochs, seed=3, shift=1, flip=True, share=WHOLE):
    data = batches.training_batches(
        examples,
        BATCH,
        epochs,
        seed,
        batches.Augmentation(shift, flip),
        "raw",
        share,
    )
    images, labels = zip(*data.as_numpy_iterator(), strict=True)
    return np.stack(images), np.stack(labels)


@pytest.mark.parametrize(
    "shares",
    [
        [(5, part, 1) for part in range(5)],
        [(5, 0, 3), (5, 3, 2)],
    ],
    ids=["a replica each", "several replicas a worker"],
)
def test_shares_together_are_the_whole_batches(examples, shares):
    images, labels = drawn(examples, range(2))
    parts = [
        drawn(examples, range(2), share=batches.Share(*share))
        for share in shares
    ]
    for whole, shared in zip(
        (images, labels), zip(*parts, strict=True), strict=True
    ):
        joined = np.concatenate(
            # Parts of a step follow one another.
            [part.reshape(2 * STEPS, -1, *part.shape[2:]) for part in shared],
            axis=1,
        )
        np.testing.assert_array_equal(joined, whole)


def test_an_epoch_has_full_batches_of_different_examples(examples):
    images, labels = drawn(examples, range(1))
    assert images.shape == (STEPS, BATCH, 6, 6, 1)
    assert images.dtype == np.float32
    assert np.unique(labels).size == STEPS * BATCH


def test_epochs_differ_in_order_and_augmentation(examples):
    images, labels = drawn(examples, range(2))
    assert (labels[:STEPS] != labels[STEPS:]).any()
    # The same example, changed in two ways.
    shared = set(labels[:STEPS].ravel()) & set(labels[STEPS:].ravel())
    flat_images = images.reshape(2, STEPS * BATCH, -1)
    flat_labels = labels.reshape(2, -1)
    differ = [
        (
            flat_images[0][flat_labels[0] == label]
            != flat_images[1][flat_labels[1] == label]
        ).any()
        for label in shared
    ]
    assert sum(differ) > len(differ) / 2


@pytest.mark.slow
def test_a_later_start_gives_the_batches_of_an_uninterrupted_run(examples):
    whole_images, whole_labels = drawn(examples, range(4))
    images, labels = drawn(examples, range(2, 4))
    np.testing.assert_array_equal(images, whole_images[2 * STEPS :])
    np.testing.assert_array_equal(labels, whole_labels[2 * STEPS :])


def test_the_seed_decides(examples):
    _, first = drawn(examples, range(1), seed=1)
    _, again = drawn(examples, range(1), seed=1)
    _, other = drawn(examples, range(1), seed=2)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_without_augmentation_images_are_those_of_the_labels(examples):
    images, labels = drawn(examples, range(1), shift=0, flip=False)
    np.testing.assert_array_equal(images, examples.images[labels])


def test_a_flip_mirrors_about_half(examples):
    images, labels = drawn(examples, range(8), shift=0, flip=True)
    originals = examples.images[labels]
    mirrored = originals[:, :, :, ::-1]
    same = (images == originals).all(axis=(2, 3, 4))
    turned = (images == mirrored).all(axis=(2, 3, 4))
    assert (same ^ turned).all()
    assert 0.35 < turned.mean() < 0.65


def test_a_shift_moves_within_its_bound_and_fills_with_black():
    image = np.zeros((1, 8, 8, 1), np.uint8)
    image[0, 3, 3] = 200
    examples = Examples(image.repeat(64, 0), np.zeros(64, np.int32))
    data = batches.training_batches(
        examples, 64, range(1), 0, batches.Augmentation(shift=2), "raw"
    )
    images, _ = next(data.as_numpy_iterator())
    found = np.argwhere(images[..., 0] == 200)[:, 1:]
    assert len(found) == 64
    assert set(found.ravel()) == {1, 2, 3, 4, 5}
    assert (images.sum(axis=(1, 2, 3)) == 200).all()


@pytest.mark.parametrize(
    ("pixels", "low", "high"),
    [("unit", 0.0, 1.0), ("signed", -1.0, 1.0), ("raw", 0.0, 255.0)],
)
def test_pixels_are_scaled(pixels, low, high):
    scaled = batches.scaled(np.array([0, 255], np.uint8), pixels).numpy()
    np.testing.assert_allclose(scaled, [low, high], atol=1e-6)


def test_test_batches_are_all_examples_in_order(examples):
    data = batches.test_batches(examples, 10, "raw")
    images, labels = zip(*data.as_numpy_iterator(), strict=True)
    np.testing.assert_array_equal(np.concatenate(images), examples.images)
    np.testing.assert_array_equal(np.concatenate(labels), examples.labels)


def test_a_batch_larger_than_the_data_is_refused(examples):
    with pytest.raises(ValueError, match="Received: batch_size=38"):
        batches.steps_per_epoch(examples, 38)

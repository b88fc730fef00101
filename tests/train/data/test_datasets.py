from __future__ import annotations

import numpy as np
import pytest

from train.data import datasets


@pytest.fixture(scope="module")
def mini() -> datasets.ImageDataset:
    return datasets.load("fashion_mnist_mini")


@pytest.mark.slow
def test_the_embedded_data_set_is_whole(mini):
    assert mini.name == "fashion_mnist_mini 1.0.0"
    assert mini.image_shape == (28, 28, 1)
    assert mini.classes == 10
    assert (len(mini.train), len(mini.test)) == (10_000, 2_000)
    assert mini.train.images.dtype == np.uint8
    np.testing.assert_array_equal(np.bincount(mini.test.labels), [200] * 10)


def test_it_travels_with_its_licence():
    text = (datasets.EMBEDDED / "fashion_mnist_mini/LICENSE").read_text()
    assert "The MIT License (MIT)" in text
    assert "Zalando SE" in text


def test_loading_twice_gives_the_same_order(mini):
    again = datasets.load(
        "fashion_mnist_mini", train_examples=50, test_examples=20
    )
    np.testing.assert_array_equal(again.train.images, mini.train.images[:50])
    np.testing.assert_array_equal(again.test.labels, mini.test.labels[:20])


@pytest.mark.slow
def test_images_are_resized():
    small = datasets.load(
        "fashion_mnist_mini", image_size=32, train_examples=3, test_examples=2
    )
    assert small.train.images.shape == (3, 32, 32, 1)
    assert small.image_shape == (32, 32, 1)
    assert small.test.images.max() > 200


def test_a_data_set_of_tfds_is_read_from_its_folder(data_dir):
    cifar = datasets.load(
        "cifar10", str(data_dir), train_examples=20, test_examples=10
    )
    assert cifar.image_shape == (32, 32, 3)
    assert (len(cifar.train), len(cifar.test)) == (20, 10)


def test_a_data_set_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Received: dataset=no_such_data_set"):
        datasets.load("no_such_data_set", str(tmp_path))


def test_a_data_set_that_is_not_prepared_is_not_downloaded(tmp_path):
    with pytest.raises(ValueError, match="is not prepared in this folder"):
        datasets.load("mnist", str(tmp_path))


def test_a_data_set_without_labelled_images_is_refused():
    with pytest.raises(ValueError, match="is not one of labelled images"):
        datasets._classes(_Builder())


def test_a_data_set_larger_than_memory_is_refused():
    with pytest.raises(ValueError, match="does not fit in memory"):
        datasets._check_memory("huge", 1 << 60)


class _Builder:
    name = "texts"

    class info:  # noqa: N801 - the name of TFDS
        features = {"text": None}


@pytest.mark.parametrize(
    "name",
    [
        "../../x",
        "..",
        "/data/x",
        "a/../../x",
        "a b",
        "",
        "fashion_mnist_mini/..",
    ],
)
def test_a_name_is_no_path(name):
    with pytest.raises(ValueError, match="no name of a data set"):
        datasets.load(name)

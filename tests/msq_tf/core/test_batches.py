"""Statistics batches from whatever `fit` takes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from msq_tf.core.batches import batch_size_of
from msq_tf.core.batches import first_batches
from msq_tf.core.batches import take_samples

X = np.arange(20, dtype=np.float32).reshape(10, 2)
Y = np.arange(10)


def take_batches(data, samples, batch_size):
    return take_samples(data, samples).batches(samples, batch_size)


def test_arrays_give_full_batches_of_one_size():
    batches = take_batches((X, Y), samples=10, batch_size=4)
    assert len(batches) == 2
    x, y, weight = batches[1]
    np.testing.assert_array_equal(x, X[4:8])
    np.testing.assert_array_equal(y, Y[4:8])
    assert weight is None


def test_samples_of_arrays_are_spread_over_them():
    ((_, y, _),) = take_batches((X, Y), samples=4, batch_size=8)
    np.testing.assert_array_equal(y, [0, 3, 6, 9])


@pytest.mark.parametrize("data", [X, tf.constant(X), {"a": X, "b": X}])
def test_inputs_may_come_alone(data):
    ((x, y, weight),) = take_batches(data, samples=4, batch_size=8)
    for part in tf.nest.flatten(x):
        np.testing.assert_array_equal(part, X[[0, 3, 6, 9]])
    assert y is None
    assert weight is None


def test_a_dataset_is_rebatched():
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(3)
    batches = take_batches(data, samples=4, batch_size=2)
    assert [len(x) for x, _, _ in batches] == [2, 2]
    np.testing.assert_array_equal(batches[1][0], X[2:4])


def test_a_stream_is_read_only_as_far_as_needed():
    read = []

    class Stream(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            read.append(i)
            return X[3 * i :][:3], Y[3 * i :][:3]

    (batch,) = take_batches(Stream(), samples=4, batch_size=4)
    np.testing.assert_array_equal(batch[1], Y[:4])
    assert read == [0, 1]


def test_structures_and_weights():
    inputs = {"a": X, "b": [X, Y]}
    ((x, y, weight),) = take_batches((inputs, Y, Y), 5, 8)
    np.testing.assert_array_equal(y, [0, 2, 4, 6, 9])
    np.testing.assert_array_equal(x["b"][1], y)
    np.testing.assert_array_equal(x["a"], X[y])
    np.testing.assert_array_equal(weight, y)


@pytest.mark.parametrize(
    "data",
    [None, iter([]), 3, (X,), (X[:0], Y[:0])],
    ids=["none", "iterator", "number", "no targets", "empty"],
)
def test_bad_data(data):
    with pytest.raises(ValueError, match="Statistics need data.*Received"):
        take_batches(data, 4, 2)


def test_an_empty_dataset():
    data = tf.data.Dataset.from_tensor_slices((X, Y)).take(0).batch(2)
    with pytest.raises(ValueError, match="Received: an empty stream"):
        take_batches(data, 4, 2)


def test_the_batch_size_of_fit():
    data = tf.data.Dataset.from_tensor_slices((X, Y))
    assert batch_size_of(data.batch(3, drop_remainder=True), None) == 3
    # Not read, for what shuffles to go on as it would have.
    assert batch_size_of(data.batch(3), None) is None
    assert take_samples(data.batch(3), 8).batch_size == 3
    assert batch_size_of(X, None) == 32
    assert batch_size_of({"a": X}, 5) == 5
    assert batch_size_of(iter([X]), None) is None


def test_large_samples_are_fewer():
    x = np.zeros((40, 1 << 20), np.float32)
    assert len(take_samples((x, Y[:1].repeat(40)), 40)) == 15
    assert len(take_samples((x, Y[:1].repeat(40)), 40, least=20)) == 20
    stream = tf.data.Dataset.from_tensor_slices((x, x[:, 0])).batch(20)
    assert len(take_samples(stream, 40)) == 20


def test_portions_of_samples_are_spread_over_all():
    samples = take_samples((X, Y), 10)
    ((_, y, _),) = samples.batches(4, 8)
    np.testing.assert_array_equal(y, [0, 3, 6, 9])
    assert [len(x) for x, _, _ in samples.batches(7, 3)] == [3, 3]


@pytest.mark.parametrize("inputs", [X, X[:, 0]])
def test_a_dataset_without_batches(inputs):
    data = tf.data.Dataset.from_tensor_slices((inputs, Y))
    with pytest.raises(ValueError, match=r"\.batch\(32\).*Received: .*\(\)"):
        take_batches(data, 4, 2)


def test_first_batches_of_arrays_span_them_all():
    x = np.arange(100.0)
    parts = [b[0] for b in first_batches((x, x), 3, 8)]
    assert [len(part) for part in parts] == [8, 8, 8]
    assert all(part.min() < 10 and part.max() > 85 for part in parts)
    assert len(np.unique(np.concatenate(parts))) == 24
    (only,) = first_batches(x[:5], 3, 8)
    np.testing.assert_array_equal(only[0], x[:5])
    assert only[1:] == (None, None)
    assert not list(first_batches(x[:0], 3, 8))


def test_first_batches_of_a_stream_are_whole_ones():
    data = tf.data.Dataset.range(10).batch(4)
    parts = [np.asarray(b[0]) for b in first_batches(data, 5, 1)]
    assert [part.tolist() for part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert len(list(first_batches(data, 1, 1))) == 1

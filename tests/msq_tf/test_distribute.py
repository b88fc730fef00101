"""Exchanges between replicas, on logical devices of the CPU."""

import types

import numpy as np
import pytest
import tensorflow as tf

from msq_tf import distribute


@pytest.fixture
def mirrored():
    return tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"],
        # Collectives of two strategies in one process take each other's keys.
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )


def worker_of(cluster, task_type, task_id):
    """What is asked of a strategy over several workers."""
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(cluster), task_type=task_type, task_id=task_id
    )
    return types.SimpleNamespace(cluster_resolver=resolver)


def test_the_chief_comes_before_the_workers():
    cluster = {"worker": ["b:1", "c:1"], "chief": ["a:1"]}
    chief, last = (
        worker_of(cluster, *task) for task in (("chief", 0), ("worker", 1))
    )
    assert distribute.workers(chief) == distribute.workers(last) == 3
    assert (distribute.worker_index(chief), distribute.worker_index(last)) == (
        0,
        2,
    )
    assert distribute.is_chief(chief) and not distribute.is_chief(last)


def test_without_a_chief_the_first_worker_is_it():
    cluster = {"worker": ["a:1", "b:1"]}
    assert distribute.is_chief(worker_of(cluster, "worker", 0))
    assert not distribute.is_chief(worker_of(cluster, "worker", 1))


def test_one_process_is_its_own_chief(mirrored):
    for strategy in (mirrored, tf.distribute.get_strategy()):
        assert distribute.workers(strategy) == 1
        assert distribute.is_chief(strategy)


def summing(monkeypatch, sent):
    """Two workers, the other of which sends `sent`, message by message."""
    other = iter(sent)
    monkeypatch.setattr(
        distribute,
        "_sum_over_workers",
        lambda strategy, value: value + next(other),
    )
    return worker_of({"worker": ["a:1", "b:1"]}, "worker", 1)


def test_the_chiefs_arrays_arrive_bit_for_bit(monkeypatch):
    arrays = [
        np.array([np.nan, -0.0, 1e-45, np.inf], np.float32),
        np.array(-(2**62) - 1, np.int64),
        np.zeros((0, 3), np.float32),
        np.array([True]),
        np.array([[1.0 / 3.0]], np.float64),
    ]
    sent = []
    monkeypatch.setattr(distribute, "_MESSAGE", 5)
    monkeypatch.setattr(
        distribute,
        "_sum_over_workers",
        lambda strategy, value: sent.append(value) or value,
    )
    chief = worker_of({"worker": ["a:1", "b:1"]}, "worker", 0)
    distribute.from_chief(chief, arrays)
    assert len(sent) > 1

    follower = summing(monkeypatch, sent)
    received = distribute.from_chief(
        follower, [np.full_like(array, 1) for array in arrays]
    )
    for ours, theirs in zip(received, arrays, strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        assert ours.tobytes() == theirs.tobytes()


def test_all_workers_values_are_seen(monkeypatch):
    other = np.array([[4.0, 2.0], [0.0, 0.0]], np.float32)
    follower = summing(monkeypatch, [other])
    seen = distribute.of_all_workers(follower, np.array([4, 3]))
    np.testing.assert_array_equal(seen, [[4, 2], [4, 3]])


def test_extremes_are_those_of_all_replicas(mirrored):
    def on_replica(low, high):
        return tf.stack(distribute.extremes(low, high))

    def values(*of_replicas):
        return mirrored.experimental_distribute_values_from_function(
            lambda context: tf.constant(
                of_replicas[context.replica_id_in_sync_group]
            )
        )

    found = tf.function(mirrored.run)(
        on_replica, args=(values(-1.0, 2.0), values(3.0, 2.5))
    )
    for part in mirrored.experimental_local_results(found):
        np.testing.assert_array_equal(part, [-1.0, 3.0])


def test_extremes_on_one_device_are_its_own():
    low, high = distribute.extremes(tf.constant(1.0), tf.constant(2.0))
    assert (float(low), float(high)) == (1.0, 2.0)


def test_aligned_replicas_have_the_values_of_the_first(mirrored):
    with mirrored.scope():
        variable = tf.Variable(
            [0.0, 0.0],
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_WRITE,
            aggregation=tf.VariableAggregation.NONE,
        )
    parts = mirrored.experimental_local_results(variable)
    for i, part in enumerate(parts):
        part.assign([i, i + 1.0])
    distribute.align(mirrored, [variable])
    for part in parts:
        np.testing.assert_array_equal(part, [0.0, 1.0])


@pytest.mark.parametrize("calls", [1, 2, 5])
def test_calls_are_spread_and_give_what_one_device_gives(mirrored, calls):
    def function(shared, x, y, weight):
        context = tf.distribute.get_replica_context()
        assert weight is None
        place = tf.cast(context.replica_id_in_sync_group, tf.float32)
        return tf.stack([tf.reduce_sum(shared * x["a"]) / y, place])

    rng = np.random.default_rng(0)
    shared = tf.constant(rng.normal(size=7), tf.float32)
    data = [
        ({"a": rng.normal(size=7).astype(np.float32)}, np.float32(i), None)
        for i in range(calls)
    ]
    table = distribute.ReplicaMap(function, mirrored)(shared, data)
    alone = tf.function(
        lambda x, y: function(shared, x, y, None)  # of the default replica
    )
    np.testing.assert_array_equal(
        table[:, 0], [alone(x, tf.constant(y))[0] for x, y, _ in data]
    )
    # The first of them is a division by zero, and stays where it is.
    assert not np.isfinite(table[0, 0])
    assert np.isfinite(table[1:]).all()
    np.testing.assert_array_equal(table[:, 1], np.arange(calls) % 2)

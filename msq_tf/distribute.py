"""Values that have to be the same on all replicas of a `tf.distribute` run.

A *replica* is a device with a copy of the model; a *worker* is a process, with
one or several of them. Under `MirroredStrategy` there is one worker; under
`MultiWorkerMirroredStrategy` all run the same program in step, and one, the
*chief*, decides and writes. A sum over replicas is the one operation of all
strategies, so this module uses only sums. If all replicas but one contribute
zeros, the sum is a copy, exact to the last bit.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

# float32 elements of one message between workers: 64 MiB.
_MESSAGE = 1 << 24
# Makes the context that an exchange between workers runs in.
_AROUND: contextvars.ContextVar[
    Callable[[], contextlib.AbstractContextManager[Any]]
] = contextvars.ContextVar("_AROUND", default=contextlib.nullcontext)


@contextlib.contextmanager
def watched(
    around: Callable[[], contextlib.AbstractContextManager[Any]],
) -> Iterator[None]:
    """Has every exchange with other workers run in a context of its own.

    TensorFlow waits without end for a worker that lives and does not answer:
    who wants to know how long has to look at the clock on both sides.
    """
    token = _AROUND.set(around)
    try:
        yield
    finally:
        _AROUND.reset(token)


def workers(strategy: tf.distribute.Strategy) -> int:
    """Number of processes that train together."""
    return max(1, len(_tasks(strategy)))


def worker_index(strategy: tf.distribute.Strategy) -> int:
    """Number of this process among them; the chief is 0."""
    tasks = _tasks(strategy)
    if not tasks:
        return 0
    resolver = strategy.cluster_resolver
    return tasks.index((resolver.task_type, resolver.task_id))


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process decides and writes."""
    return worker_index(strategy) == 0


def _tasks(strategy: tf.distribute.Strategy) -> list[tuple[str, int]]:
    """All processes, in the order in which TensorFlow counts replicas."""
    jobs = ("chief", "worker")
    resolver = strategy.cluster_resolver
    if resolver is None or resolver.task_type not in jobs:
        return []
    spec = resolver.cluster_spec()
    return [
        (job, index)
        for job in jobs
        if job in spec.jobs
        for index in range(spec.num_tasks(job))
    ]


def from_chief(
    strategy: tf.distribute.Strategy, values: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Copies of the chief's arrays, bit for bit, on every worker.

    All workers call this together, with arrays of the same shapes and dtypes.
    """
    arrays = [np.asarray(value) for value in values]
    if workers(strategy) == 1:
        return arrays
    sent = b"".join(array.tobytes() for array in arrays)
    padded = sent + b"\0" * (len(sent) % 2)
    # Two bytes in a float32, which every kind of collective can add: integers
    # of that size are exact.
    words = np.frombuffer(padded, np.uint16).astype(np.float32)
    if not is_chief(strategy):
        words = np.zeros_like(words)
    received = b"".join(
        _sum_over_workers(strategy, words[start : start + _MESSAGE])
        .astype(np.uint16)
        .tobytes()
        for start in range(0, len(words), _MESSAGE)
    )
    result, start = [], 0
    for array in arrays:
        part = received[start : start + array.nbytes]
        result.append(np.frombuffer(part, array.dtype).reshape(array.shape))
        start += array.nbytes
    return result


def align(strategy: tf.distribute.Strategy, variables: Sequence[Any]) -> None:
    """Gives all replicas the values that the chief's first replica has.

    All workers call this together.
    """
    if strategy.num_replicas_in_sync == 1 or not variables:
        return
    values = from_chief(strategy, [v.numpy() for v in variables])
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def of_all_workers(
    strategy: tf.distribute.Strategy, value: np.ndarray
) -> np.ndarray:
    """The value of every worker, as int64 of shape (workers, *value.shape).

    All workers call this together, with integers below 2**24 in one shape.
    """
    count = workers(strategy)
    rows = np.zeros((count, *value.shape), np.float32)
    rows[worker_index(strategy)] = value
    if count > 1:
        rows = _sum_over_workers(strategy, rows)
    return rows.astype(np.int64)


def _sum_over_workers(
    strategy: tf.distribute.Strategy, value: np.ndarray
) -> np.ndarray:
    with _AROUND.get()():
        total = strategy.reduce(
            tf.distribute.ReduceOp.SUM, tf.constant(value), axis=None
        )
        return total.numpy()


@contextlib.contextmanager
def values_kept(variables: Sequence[Any]) -> Iterator[None]:
    """Undoes at its end what is assigned to variables while it is open."""
    values = [variable.numpy() for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


def extremes(low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The least of `low` and the largest of `high` over the replicas.

    Called where the replicas run, with scalars of their own parts of a batch,
    it gives every one of them what a single device finds in the whole batch.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return low, high
    count = context.num_replicas_in_sync
    mine = tf.range(count) == context.replica_id_in_sync_group
    rows = tf.where(mine[:, None], tf.stack([low, high])[None], 0.0)
    rows = context.all_reduce(tf.distribute.ReduceOp.SUM, rows)
    return tf.reduce_min(rows[:, 0]), tf.reduce_max(rows[:, 1])


class ReplicaMap:
    """Spreads calls of one function over the replicas of a strategy.

    Every call runs as it would on one device, on one replica; what is reduced
    are the rows of a table that each of them fills in one place. So results
    do not depend on the number of replicas, not even in their last bits.

    Args:
        function: Of `(shared, *own)`, nested tensors, that returns a float32
            vector of one length.
        strategy: Where to run. All of its workers have to call together.
    """

    def __init__(
        self,
        function: Callable[..., tf.Tensor],
        strategy: tf.distribute.Strategy,
    ):
        self.replicas = strategy.num_replicas_in_sync
        self._strategy = strategy
        self._function = function
        self._round = tf.function(self._one_round, autograph=False)

    def __call__(self, shared: Any, calls: Sequence[Any]) -> np.ndarray:
        """Results of all calls, float32 of shape (calls, length of a result).

        Args:
            shared: First argument of every call.
            calls: The others, a tuple for each call, all of one structure,
                in which `None` may stand for what is absent.
        """
        rounds = [
            self._run(shared, calls[start : start + self.replicas])
            for start in range(0, len(calls), self.replicas)
        ]
        return np.concatenate(rounds)

    def _run(self, shared: Any, calls: Sequence[Any]) -> np.ndarray:
        def of_replica(context: Any) -> list[tf.Tensor]:
            place = context.replica_id_in_sync_group
            # A replica without a call repeats one; its result is dropped.
            call = calls[place] if place < len(calls) else calls[0]
            parts = [
                tf.convert_to_tensor(part)
                for part in tf.nest.flatten(call)
                if part is not None
            ]
            return [tf.constant(place), *parts]

        own = self._strategy.experimental_distribute_values_from_function(
            of_replica
        )
        self._structure = calls[0]
        with _AROUND.get()():
            return self._round(shared, own).numpy()[: len(calls)]

    def _one_round(self, shared: Any, own: Any) -> tf.Tensor:
        def on_replica(own: list[tf.Tensor]) -> tf.Tensor:
            place, *parts = own
            present = iter(parts)
            call = tf.nest.map_structure(
                lambda part: None if part is None else next(present),
                self._structure,
            )
            result = self._function(shared, *call)
            mine = tf.range(self.replicas) == place
            return tf.where(mine[:, None], result[None], 0.0)

        table = self._strategy.run(on_replica, args=(own,))
        return self._strategy.reduce(
            tf.distribute.ReduceOp.SUM, table, axis=None
        )

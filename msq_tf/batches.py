"""A few fixed batches from whatever `fit` accepts."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

Batch = tuple[Any, Any, Any]  # inputs, targets, sample weights


def take_batches(data: Any, samples: int, batch_size: int) -> list[Batch]:
    """Collects full batches of one fixed size.

    Args:
        data: `(x, y)` or `(x, y, sample_weight)` of arrays, of which evenly
            spaced samples are taken, since arrays may be sorted by class; or
            a `tf.data.Dataset` or `keras.utils.PyDataset` of batches, of
            which the first are taken, alone or as the first entry of such a
            tuple, as `fit` receives it.
        samples: Samples to take, at most.
        batch_size: Samples per batch, at most; a source with fewer gives one
            smaller batch.

    Returns:
        A list of `(x, y, sample_weight)` of tensors. All have one batch size,
        so that a compiled function is traced once.

    Raises:
        ValueError: If the data is of another kind or empty.
    """
    if isinstance(data, tuple) and data and _is_stream(data[0]):
        data = data[0]
    if _is_stream(data):
        structure = _from_stream(data, samples)
    elif isinstance(data, tuple) and 2 <= len(data) <= 3 and _indexable(data):
        total = _count(_triple(data))
        index = np.linspace(0, total - 1, min(total, samples)).astype(int)
        structure = _map(lambda a: _rows(a, index), _triple(data))
    else:
        raise ValueError(
            "Statistics need data that can be read twice. Expected `(x, y)` "
            "arrays, a `tf.data.Dataset` or a `keras.utils.PyDataset`, given "
            "to `fit` or as `MSQCallback(data=...)`. Received: "
            f"{_kinds(data)}"
        )
    count = min(samples, _count(structure))
    if not count:
        raise ValueError(
            "Statistics need data. Expected at least one sample. Received: none"
        )
    size = min(batch_size, count)
    return [
        _map(lambda a, i=i: tf.convert_to_tensor(a[i : i + size]), structure)
        for i in range(0, count - size + 1, size)
    ]


def inputs_of(x: Any, batch_size: int) -> Iterator[Any]:
    """All inputs, batch by batch.

    Args:
        x: An array, or a list or dict of arrays; or a data set or a Keras
            sequence of batches, whose first parts are taken.
        batch_size: Samples per batch of arrays; the last may have fewer.
    """
    if _is_stream(x):
        yield from (_triple(batch)[0] for batch in _batches_of(x))
        return
    for start in range(0, _count(x), batch_size):
        stop = start + batch_size
        yield _map(lambda a: a[start:stop], x)  # noqa: B023


def _map(function: Callable[..., Any], *structures: Any) -> Any:
    """`tf.nest.map_structure` that leaves absent parts (`None`) absent."""
    return tf.nest.map_structure(
        lambda first, *rest: None if first is None else function(first, *rest),
        *structures,
    )


def _is_stream(data: Any) -> bool:
    """Whether it gives batches: a data set, or a Keras sequence of batches.

    Arrays, lists and tuples have no `on_epoch_end`; what either Keras takes
    for a sequence (`PyDataset`, `Sequence`) has.
    """
    if isinstance(data, tf.data.Dataset):
        return True
    return hasattr(data, "on_epoch_end") and hasattr(data, "__getitem__")


def _indexable(data: Any) -> bool:
    return all(
        hasattr(x, "__getitem__") or _is_sparse(x)
        for x in tf.nest.flatten(data[0])
    )


def _is_sparse(leaf: Any) -> bool:
    """Whether it is a sparse tensor, or a sparse matrix of SciPy."""
    return isinstance(leaf, tf.SparseTensor) or hasattr(leaf, "tocsr")


def _rows(leaf: Any, index: np.ndarray) -> np.ndarray:
    """Some samples of an array; those of sparse ones become dense."""
    if isinstance(leaf, tf.SparseTensor):
        rest = leaf.shape[1:].as_list()
        rows = [
            tf.sparse.slice(leaf, [i, *[0] * len(rest)], [1, *rest])
            for i in index
        ]
        return tf.sparse.to_dense(tf.sparse.concat(0, rows)).numpy()
    if hasattr(leaf, "tocsr"):
        return leaf.tocsr()[index].toarray()
    return np.asarray(leaf)[index]


def _kinds(data: Any) -> str:
    if isinstance(data, tuple):
        return f"({', '.join(type(part).__name__ for part in data)})"
    return type(data).__name__


def _triple(batch: Any) -> Batch:
    # More parts than three mean something to a model's own step alone.
    if not isinstance(batch, tuple | list) or len(batch) > 3:
        return batch, None, None
    x, y, weight = (*batch, None, None)[:3]
    return x, y, weight


def _count(structure: Any) -> int:
    first = tf.nest.flatten(structure)[0]
    return first.shape[0] if _is_sparse(first) else len(first)


def _batches_of(stream: Any) -> Iterable[Any]:
    if isinstance(stream, tf.data.Dataset):
        return stream
    return (stream[i] for i in range(len(stream)))


def _from_stream(stream: Any, samples: int) -> Batch:
    parts: list[Batch] = []
    count = 0
    for batch in _batches_of(stream):
        part = _map(np.asarray, _triple(batch))
        parts.append(part)
        count += _count(part)
        if count >= samples:
            break
    if not parts:
        raise ValueError(
            "Statistics need data. Expected at least one batch. Received: an "
            "empty stream"
        )
    return _map(lambda *arrays: np.concatenate(arrays), *parts)

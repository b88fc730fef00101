"""A few fixed batches from any data that `fit` accepts."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

Batch = tuple[Any, Any, Any]  # inputs, targets, sample weights


# Samples in a batch of Keras's `fit`, where nothing says otherwise.
BATCH_SIZE = 32
# Packages and classes of data sets that Keras takes without importing them.
_LOADERS = (
    ("grain", "IterDataset"),
    ("grain", "MapDataset"),
    ("torch", "DataLoader"),
)
# Bytes of samples that are kept for a whole search.
_KEPT_BYTES = 1 << 26


class Samples:
    """Samples of a data set that are at hand throughout a search.

    Args:
        structure: `(x, y, sample_weight)` of arrays, or of nested ones.
        batch_size: Samples of a batch, where they came in batches.
        prepare: What is done to every batch before it is given out.

    Attributes:
        batch_size: As given.
    """

    def __init__(
        self,
        structure: Batch,
        batch_size: int | None = None,
        prepare: Callable[[Batch], Batch] = lambda batch: batch,
    ):
        self._structure = structure
        self.batch_size = batch_size
        self._prepare = prepare

    def prepared(self, function: Callable[[Batch], Batch]) -> Samples:
        """The same samples, whose batches go through a function."""
        return Samples(self._structure, self.batch_size, function)

    @property
    def parts(self) -> Batch:
        """All of them, `(x, y, sample_weight)`."""
        return self._structure

    def __len__(self) -> int:
        return _count(self._structure)

    def batches(self, count: int, size: int) -> list[Batch]:
        """Full batches of evenly spaced samples, as tuples of tensors.

        All have one size, so that a compiled function is traced once.

        Args:
            count: Samples, at most; those beyond whole batches are left out.
            size: Samples per batch; fewer where there are not as many.
        """
        total = len(self)
        count = min(count, total)
        size = min(size, count)
        index = np.linspace(0, total - 1, count).astype(int)
        return [
            self._prepare(
                _map(
                    lambda a, i=i: tf.convert_to_tensor(a[index[i : i + size]]),
                    self._structure,
                )
            )
            for i in range(0, count - size + 1, size)
        ]


def in_parts(data: Any) -> Any:
    """Arrays of inputs alone as `(x, None)`; other data as it is."""
    alone = isinstance(data, (np.ndarray, tf.Tensor, dict))
    return (data, None) if alone else data


def take_samples(data: Any, samples: int, least: int = 1) -> Samples:
    """Collects samples from whatever `fit` accepts.

    Args:
        data: `(x, y)` or `(x, y, sample_weight)` of arrays, or an array or a
            dict of arrays of inputs alone, of which evenly spaced samples are
            taken, since arrays may be sorted by class; or a
            `tf.data.Dataset`, a `keras.utils.PyDataset`, or a loader of
            Grain or PyTorch, of batches, of which the first are taken, alone
            or as the first entry of such a tuple, as `fit` receives it.
        samples: Samples to take, at most. Of large ones there are fewer, not
            above 64 MiB.
        least: Samples to take however large they are.

    Raises:
        ValueError: If the data is of another kind or empty.
    """
    data = in_parts(_unwrapped(data))
    size = None
    if is_stream(data):
        structure, size = _from_stream(data, samples, least)
    elif isinstance(data, tuple) and 2 <= len(data) <= 3 and _indexable(data):
        total = _count(_triple(data))
        first = _map(
            lambda a: _rows(a, np.arange(min(1, total))), _triple(data)
        )
        kept = _kept(first, samples, least)
        index = np.linspace(0, total - 1, min(total, kept)).astype(int)
        structure = _map(lambda a: _rows(a, index), _triple(data))
    else:
        raise ValueError(
            "Statistics need data that can be read twice. Expected `(x, y)` "
            "arrays, an array of inputs alone, a `tf.data.Dataset` or a "
            "`keras.utils.PyDataset`, given to `fit` or as "
            "`MSQCallback(data=...)`. Received: "
            f"{_kinds(data)}"
        )
    if not _count(structure):
        raise ValueError(
            "Statistics need data. Expected at least one sample. Received: none"
        )
    return Samples(structure, size)


def batch_size_of(x: Any, given: int | None) -> int | None:
    """Samples of a batch of `fit`; `None` where only reading would tell.

    A data set that shuffles goes on differently once it was read.
    """
    if isinstance(x, tf.data.Dataset):
        return tf.nest.flatten(x.element_spec)[0].shape[0]
    if _is_loader(x):
        return None
    if is_stream(x):
        return _count(_triple(x[0])) if len(x) else None
    return (given or BATCH_SIZE) if _indexable((x,)) else None


def _unwrapped(data: Any) -> Any:
    if isinstance(data, tuple) and data and is_stream(data[0]):
        return data[0]
    return data


def _batches(stream: Any) -> Iterable[Any]:
    if isinstance(stream, tf.data.Dataset) or _is_loader(stream):
        return stream
    return (stream[i] for i in range(len(stream)))


def _kept(sample: Batch, samples: int, least: int) -> int:
    """How many samples like these are kept, of as many as wanted."""
    count = _count(sample)
    if not count:
        return samples
    size = sum(a.nbytes for a in tf.nest.flatten(sample) if a is not None)
    return min(samples, max(least, _KEPT_BYTES * count // max(size, 1)))


def samples_in(batch: Batch) -> int:
    """Number of samples of a batch."""
    return _count(batch)


def inputs_of(x: Any, batch_size: int) -> Iterator[Any]:
    """All inputs, batch by batch.

    Args:
        x: An array, or a list or dict of arrays, of which the last batch may
            have fewer samples; or batches, whose first parts are taken.
        batch_size: Samples per batch of arrays.
    """
    if is_stream(x):
        yield from (_triple(batch)[0] for batch in _batches(x))
        return
    for start in range(0, _count(x), batch_size):
        stop = start + batch_size
        yield _map(lambda a: a[start:stop], x)  # noqa: B023


def first_batches(data: Any, count: int, batch_size: int) -> Iterator[Batch]:
    """A number of batches, one at a time, each time the same.

    Args:
        data: Inputs, or `(x, y)` or `(x, y, sample_weight)`, of arrays, whose
            samples are evenly spaced, and so are those within a batch, since
            arrays may be sorted by class; or batches, of which the first are
            taken, whole ones.
        count: Batches, at most.
        batch_size: Samples per batch of arrays; fewer where there are fewer.
    """
    data = _unwrapped(data)
    if is_stream(data):
        size = None
        for number, batch in enumerate(_batches(data)):
            triple = _triple(batch)
            size = size or _count(triple)
            if number == count or _count(triple) != size:
                return
            yield triple
        return
    triple = _triple(data) if isinstance(data, tuple) else (data, None, None)
    total = _count(triple)
    if not total:
        return
    size = min(batch_size, total)
    count = min(count, total // size)
    index = np.linspace(0, total - 1, count * size).astype(int)
    for first in range(count):
        rows = index[first::count]
        yield _map(lambda a, rows=rows: _rows(a, rows), triple)


def _map(function: Callable[..., Any], *structures: Any) -> Any:
    """`tf.nest.map_structure` that leaves absent parts (`None`) absent."""
    return tf.nest.map_structure(
        lambda first, *rest: None if first is None else function(first, *rest),
        *structures,
    )


def is_stream(data: Any) -> bool:
    """Whether it gives batches: a data set, or a Keras sequence of batches.

    Arrays, lists and tuples have no `on_epoch_end`; what either Keras takes
    for a sequence (`PyDataset`, `Sequence`) has.
    """
    return (
        isinstance(data, tf.data.Dataset)
        or (hasattr(data, "on_epoch_end") and hasattr(data, "__getitem__"))
        or _is_loader(data)
    )


def _is_loader(data: Any) -> bool:
    """Whether it is a loader of another library that Keras takes.

    Every `iter` of one begins anew. They are known by name, since Keras, too,
    reads them without a need for either library.
    """
    return any(
        (kind.__module__.split(".")[0], kind.__name__) in _LOADERS
        for kind in type(data).__mro__
    )


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


def _shapes(part: Batch) -> list[tuple[int, ...]]:
    leaves = [leaf for leaf in tf.nest.flatten(part) if leaf is not None]
    return [np.shape(leaf) for leaf in leaves]


def _alike(part: Batch) -> bool:
    """Whether all arrays of a batch have as many samples."""
    shapes = _shapes(part)
    return all(shapes) and len({shape[0] for shape in shapes}) == 1


def _from_stream(stream: Any, samples: int, least: int) -> tuple[Batch, int]:
    """The first samples, and how many of them a batch has."""
    parts: list[Batch] = []
    count = 0
    kept = samples
    for batch in _batches(stream):
        part = _map(np.asarray, _triple(batch))
        if not _alike(part):
            raise ValueError(
                "The data is no stream of batches: what it gives first has no "
                "axis of samples that inputs and targets share. Expected a "
                "data set with `.batch(32)` at its end. Received: parts of "
                f"shapes {_shapes(part)}"
            )
        if not parts:
            kept = _kept(part, samples, max(least, _count(part)))
        parts.append(part)
        count += _count(part)
        if count >= kept:
            break
    if not parts:
        raise ValueError(
            "Statistics need data. Expected at least one batch. Received: an "
            "empty stream"
        )
    joined = _map(lambda *arrays: np.concatenate(arrays)[:kept], *parts)
    return joined, _count(parts[0])

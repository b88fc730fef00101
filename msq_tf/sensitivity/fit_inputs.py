"""The data that `fit` was given, as statistics may read it."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from msq_tf.core.batches import Batch
from msq_tf.core.batches import batch_size_of
from msq_tf.sensitivity.finite import warn_of_rows


@dataclasses.dataclass
class FitInputs:
    """Arguments of `fit` that statistics look at.

    An object of its own, since Keras wraps the dictionaries, lists and tuples
    that are set on a model in containers of its own, which neither
    `tf.nest` nor a data adapter takes for what they were.

    Attributes:
        data: `(x, y, sample_weight)` to train on; `None` while no `fit` runs.
        validation_data: As `fit` takes it, or what `validation_split` leaves.
        class_weight: Weights of losses by class; `None` for none.
        batch_size: As `fit` was given it; `None` where it was not.
        validation: What else `evaluate` takes for the validation data:
            `batch_size` and `steps`, where `fit` was given them.
    """

    data: tuple[Any, Any, Any] | None = None
    validation_data: Any = None
    class_weight: Mapping[int, float] | None = None
    batch_size: int | None = None
    validation: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def trained_batch_size(self) -> int | None:
        """Samples of a training step; `None` while no `fit` runs."""
        if self.data is None:  # a loop of one's own
            return None
        return batch_size_of(self.data[0], self.batch_size)

    @classmethod
    def of(
        cls,
        fit: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> FitInputs:
        """Takes the arguments of one call of `fit`, by place or by name.

        What the bound method does not know is left to itself.
        """
        try:
            bound = inspect.signature(fit).bind(*args, **kwargs)
        except TypeError:
            return cls()  # `fit` itself says what is wrong
        given = {**bound.arguments, **bound.arguments.get("kwargs", {})}
        data = (given.get("x"), given.get("y"), given.get("sample_weight"))
        for name, value in zip(("x", "y", "sample_weight"), data, strict=True):
            warn_of_rows(name, value)
        held_out = given.get("validation_data")
        share = given.get("validation_split")
        if share and held_out is None:
            data, held_out = _split(data, share)
        size = given.get("batch_size")
        validation = {
            "batch_size": given.get("validation_batch_size") or size,
            "steps": given.get("validation_steps"),
        }
        return cls(
            data,
            held_out,
            given.get("class_weight"),
            size,
            {k: v for k, v in validation.items() if v is not None},
        )


def _split(
    data: tuple[Any, Any, Any], share: float
) -> tuple[tuple[Any, Any, Any], Any]:
    """Training and validation data, the last part, as Keras splits them."""
    leaves = [leaf for leaf in tf.nest.flatten(data) if leaf is not None]
    if not all(hasattr(leaf, "shape") for leaf in leaves):
        return data, None  # `fit` itself says what is wrong
    count = int(leaves[0].shape[0])
    end = math.floor(count * (1.0 - share))

    def part(start: int, stop: int) -> Any:
        return tf.nest.map_structure(
            lambda leaf: None if leaf is None else _slice(leaf, start, stop),
            data,
        )

    return part(0, end), part(end, count)


def _slice(leaf: Any, start: int, stop: int) -> Any:
    if isinstance(leaf, tf.SparseTensor):
        rest = leaf.shape[1:].as_list()
        begin = [start, *[0] * len(rest)]
        return tf.sparse.slice(leaf, begin, [stop - start, *rest])
    if hasattr(leaf, "tocsr"):
        leaf = leaf.tocsr()
    # The rows of a table, whatever they are labelled.
    return getattr(leaf, "iloc", leaf)[start:stop]


def weigh_classes(
    batches: Sequence[Batch], class_weight: Mapping[int, float] | None
) -> list[Batch]:
    """Batches whose samples have the weights of their classes.

    Labels are one tensor: classes, or one-hot rows.
    """
    if not class_weight:
        return list(batches)
    weighed = []
    for x, y, _ in batches:
        labels = np.asarray(y)
        if labels.ndim > 1:
            one_hot = labels.shape[-1] != 1
            labels = labels.argmax(-1) if one_hot else labels[..., 0]
        weights = np.vectorize(
            lambda label: class_weight.get(int(label), 1.0), otypes=["float32"]
        )(np.round(labels))
        weighed.append((x, y, tf.constant(weights)))
    return weighed

"""Ranges of activations from data, for either Keras."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from msq_tf.core.batches import inputs_of
from msq_tf.core.batches import is_stream

# Of the largest number that half of the samples stay below. Whatever is within
# leaves them codes other than zero.
_OUTLIER = 512.0


class SeenRanges:
    """The smallest and largest value of each of some activations.

    A range holds zero from the start. A sample beside which the others have
    no code but that of zero has no part in it.

    Args:
        names: What each is called in messages, by its key.
    """

    def __init__(self, names: dict[Any, str]):
        self._names = names
        self._seen: dict[Hashable, list[np.ndarray]] = {}

    def __contains__(self, key: Hashable) -> bool:
        return key in self._names

    def see(self, key: Hashable, x: tf.Tensor) -> None:
        """Widens a range to what an eager tensor of samples holds.

        What is infinite, with which a model masks or pads, has no code.
        """
        if not tf.size(x):
            return
        x = tf.cast(x, tf.float32)
        finite = tf.where(tf.math.is_inf(x), tf.zeros_like(x), x)
        rows = tf.reshape(finite, (x.shape[0] if x.shape.rank else 1, -1))
        ends = tf.stack([tf.reduce_min(rows, 1), tf.reduce_max(rows, 1)], 1)
        self._seen.setdefault(key, []).append(ends.numpy())

    def found(self) -> dict[Any, tuple[float, float]]:
        """`(low, high)` of those that were seen.

        Raises:
            ValueError: If an activation is not finite.
        """
        ranges: dict[Any, tuple[float, float]] = {}
        left_out: dict[str, tuple[int, float]] = {}
        for key, parts in self._seen.items():
            ends = np.concatenate(parts)
            low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
            # Not Python's min: NaN has to be seen.
            if not np.isfinite([low, high]).all():
                raise ValueError(
                    "An activation is not finite. Expected finite inputs and "
                    f"weights. Received: {low} to {high} in "
                    f"'{self._names[key]}'"
                )
            sizes = np.abs(ends).max(1)
            usual = np.median(sizes[sizes > 0.0]) if sizes.any() else 0.0
            kept = ends[sizes <= _OUTLIER * usual]
            if len(kept) < len(ends):
                left_out[self._names[key]] = (
                    len(ends) - len(kept),
                    float(sizes.max()),
                )
            ranges[key] = (
                float(kept[:, 0].min(initial=0.0)),
                float(kept[:, 1].max(initial=0.0)),
            )
        if left_out:
            count = max(count for count, _ in left_out.values())
            name, (_, size) = max(left_out.items(), key=lambda item: item[1][1])
            warnings.warn(
                f"{count} of the samples are outliers, beside which the codes "
                "of the others would all be zero: they have no part in the "
                f"ranges. Expected data without them. Received: {size:g} in "
                f"'{name}'",
                stacklevel=3,
            )
        return ranges


def run_batches(
    run: Callable[[Any], Any],
    x: Any,
    batch_size: int,
    fixed: int | None,
    look_at: Callable[[Any], None],
) -> None:
    """Runs a function on inputs, batch by batch.

    Args:
        run: Function of the inputs of a batch.
        x: An array, a list or dict of arrays, or batches that `fit` takes.
        batch_size: Samples that are run at once, where `x` is no batches.
        fixed: The one batch size that the model takes; a smaller last batch
            is left out.
        look_at: Is shown the inputs, of batches the first.

    Raises:
        ValueError: If there are no samples, or too few for one batch.
    """
    done = 0
    if x is None or isinstance(x, (str, bytes)):
        raise ValueError(
            "Ranges need data. Expected an array, a list or dict of arrays, a "
            f"tf.data.Dataset or a keras.utils.PyDataset. Received: x={x!r}"
        )
    given = [] if is_stream(x) else [x]
    for batch in inputs_of(x, fixed or batch_size):
        count = len(tf.nest.flatten(batch)[0])
        if fixed in (None, count):
            try:
                if not done:
                    look_at(*given or [batch])
                run(batch)
            except (ValueError, TypeError) as error:
                shapes = [np.shape(leaf) for leaf in tf.nest.flatten(batch)]
                raise ValueError(
                    "The model does not take these inputs. Expected those of "
                    f"its training. Received: x of shapes {shapes} ({error})"
                ) from error
            done += 1
    if not done:
        raise ValueError(
            f"Ranges need data. Expected {fixed or 1} samples or more. "
            f"Received: x with {_samples(x)}"
        )


def _samples(x: Any) -> str:
    leaves: Sequence[Any] = tf.nest.flatten(x)
    if not leaves or not hasattr(leaves[0], "__len__"):
        return "no sample"
    return f"{len(leaves[0])} samples" if len(leaves[0]) else "no sample"

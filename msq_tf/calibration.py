"""The ranges that data gives to activations, whatever holds them."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from msq_tf.batches import inputs_of


class SeenRanges:
    """The smallest and largest value of each of some activations.

    A range holds zero from the start.

    Args:
        names: What each is called in messages, by its key.
    """

    def __init__(self, names: dict[Any, str]):
        self._names = names
        self._seen: dict[Hashable, tuple[float, float]] = {}

    def __contains__(self, key: Hashable) -> bool:
        return key in self._names

    def see(self, key: Hashable, x: tf.Tensor) -> None:
        """Widens a range to what an eager tensor holds.

        What is infinite, with which a model masks or pads, has no code.
        """
        low, high = self._seen.get(key, (0.0, 0.0))
        finite = tf.where(tf.math.is_inf(x), tf.zeros_like(x), x)
        # Not min: NaN has to be seen.
        self._seen[key] = (
            float(np.minimum(low, tf.reduce_min(finite))),
            float(np.maximum(high, tf.reduce_max(finite))),
        )

    def found(self) -> dict[Any, tuple[float, float]]:
        """`(low, high)` of those that were seen.

        Raises:
            ValueError: If an activation is not finite.
        """
        for key, (low, high) in self._seen.items():
            if not np.isfinite([low, high]).all():
                raise ValueError(
                    "An activation is not finite. Expected finite inputs and "
                    f"weights. Received: {low} to {high} in "
                    f"'{self._names[key]}'"
                )
        return dict(self._seen)


def run_batches(
    run: Callable[[Any], Any], x: Any, batch_size: int, fixed: int | None
) -> None:
    """Runs a function on inputs, batch by batch.

    Args:
        run: Function of the inputs of a batch.
        x: An array, a list or dict of arrays, or batches that `fit` takes.
        batch_size: Samples that are run at once, where `x` is no batches.
        fixed: The only batch size that the model takes, if there is one; a
            last batch that is smaller is left out.

    Raises:
        ValueError: If there are no samples, or too few for one batch.
    """
    done = 0
    if x is None or isinstance(x, (str, bytes)):
        raise ValueError(
            "Ranges need data. Expected an array, a list or dict of arrays, a "
            f"tf.data.Dataset or a keras.utils.PyDataset. Received: x={x!r}"
        )
    for batch in inputs_of(x, fixed or batch_size):
        count = len(tf.nest.flatten(batch)[0])
        if fixed in (None, count):
            try:
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

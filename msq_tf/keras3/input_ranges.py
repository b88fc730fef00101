"""The ranges of a model's inputs while it trained.

A file can only be right for inputs like those of training. With pixels of
0..255 for a model that was trained on 0..1, ranges of activations would be so
wide that the values of training share a few codes. So the model remembers its
inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from msq_tf.keras3.overlay import flat_inputs
from msq_tf.keras3.overlay import input_names
from msq_tf.quantizers.range_average import Extremes
from msq_tf.quantizers.range_average import averaged
from msq_tf.quantizers.range_average import extremes

# Samples of a batch that are looked at: a pass over few numbers in every step.
_SAMPLES = 16
# Weight of a batch in the mean, once there were many.
_LEAST_WEIGHT = 0.01
# Of a model that does not say how many inputs it has.
_PLACES = 8
_STORED = "ranges"
# Integers of other types count or name things: their sizes mean nothing.
_NUMBERS = ("float16", "bfloat16", "float32", "float64", "uint8", "int8")


class SeenInput(NamedTuple):
    """The range of one input in training.

    Attributes:
        low: Smallest number of a batch, on the average.
        high: Largest number of a batch, on the average.
        magnitude: Mean of the absolute values.
    """

    low: float
    high: float
    magnitude: float


@keras.saving.register_keras_serializable(package="msq_tf")
class InputRanges(keras.layers.Layer):
    """Remembers the range of each input of a model in training.

    Averages over batches, which a few outliers hardly move. Saved with the
    model; a file without them leaves them unknown. Under a strategy the inputs
    of the first replica count.

    Args:
        dtypes: Type of each input, in order; `None` where they are not known.
        names: Their names, for those given as a dictionary to a model that
            takes a list; `None` where inputs are taken as they come.
        name: Name of the layer.
    """

    def __init__(
        self,
        dtypes: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        name: str | None = None,
    ):
        super().__init__(name=name, dtype="float32", trainable=False)
        self._dtypes = dtypes and tuple(dtypes)
        self._names = names and tuple(names)
        # Columns: steps, low, high, magnitude. No weights of the model:
        # nothing that copies, counts or moves weights has to know them.
        self._ranges = tf.Variable(
            tf.zeros([len(dtypes or ()) or _PLACES, 4], tf.float32),
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
        self.built = True

    @classmethod
    def of(cls, base: Any) -> InputRanges:
        """For the inputs of a float model."""
        inputs = getattr(base, "inputs", None)
        if not inputs:
            return cls(name="input_ranges")
        return cls(
            [str(x.dtype) for x in inputs],
            input_names(base) or None,
            name="input_ranges",
        )

    def call(self) -> None:
        """Holds state only."""

    def observe(self, inputs: Any) -> None:
        """Takes note of the inputs of a training step."""
        flat = self._flat(inputs)
        if flat is None:
            return
        rows = tf.unstack(tf.convert_to_tensor(self._ranges))
        looked_at = False
        for i, x in enumerate(flat[: len(rows)]):
            if not isinstance(x, tf.Tensor) or not x.shape.rank:
                continue
            dtype = self._dtypes[i] if self._dtypes else x.dtype.name
            if dtype not in _NUMBERS or x.dtype in (tf.string, tf.bool):
                continue
            rows[i] = _noted(rows[i], tf.cast(x[:_SAMPLES], tf.float32))
            looked_at = True
        if looked_at:
            self._ranges.assign(tf.stack(rows))

    def _flat(self, inputs: Any) -> list[Any] | None:
        """The inputs in order; `None` where they are not those of the model."""
        given = flat_inputs(inputs, self._names or ())
        if given is None:
            return None
        flat = [
            x if isinstance(x, tf.Tensor | tf.SparseTensor) else _as_tensor(x)
            for x in given
        ]
        if self._dtypes and len(flat) != len(self._dtypes):
            return None
        return flat

    def seen(self, count: int) -> list[SeenInput | None]:
        """The ranges of `count` inputs; `None` where nothing was seen."""
        rows = [
            SeenInput(*map(float, row[1:])) if row[0] else None
            for row in self._ranges.numpy()[:count]
        ]
        return rows + [None] * (count - len(rows))

    def save_own_variables(self, store: Any) -> None:
        store[_STORED] = self._ranges.numpy()

    def load_own_variables(self, store: Any) -> None:
        found = np.zeros(self._ranges.shape, np.float32)
        # Models of before have none.
        if _STORED in store.keys():
            given = np.asarray(store[_STORED], np.float32)
            # What is damaged is not known.
            if given.shape == found.shape and np.isfinite(given).all():
                found = given
        self._ranges.assign(found)

    def get_config(self) -> dict[str, Any]:
        return {
            "dtypes": self._dtypes,
            "names": self._names,
            "name": self.name,
        }


def _as_tensor(x: Any) -> tf.Tensor | None:
    try:
        return tf.convert_to_tensor(x)
    except (TypeError, ValueError):  # ragged, symbolic or no numbers
        return None


def _noted(row: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """A row of the table after one more batch."""
    steps, low, high, magnitude = tf.unstack(row)
    known = steps > 0.0
    weight = tf.maximum(1.0 / (steps + 1.0), _LEAST_WEIGHT)

    def moved(old: Extremes, batch: Extremes) -> Extremes:
        keep, reach = 1.0 - weight, 1.0 / weight
        return averaged(old, batch, known, keep, reach, 8).ends

    batch = extremes(x)
    # Far from where a sum of squares or of many would overflow.
    size = tf.reduce_mean(tf.minimum(tf.abs(x), x.dtype.max / 2.0**30))
    zero = tf.zeros_like(size)
    ends = moved(Extremes(low, high), batch)
    mean = moved(Extremes(zero, magnitude), Extremes(zero, size)).high
    steps = tf.minimum(steps + 1.0, 1.0 / _LEAST_WEIGHT)
    new = tf.stack([steps, *ends, mean])
    return tf.where(tf.math.is_finite(batch.high + size), new, row)

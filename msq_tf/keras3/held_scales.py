"""Held scales of weights as variables of a Keras model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from msq_tf.core import held_scales


@keras.saving.register_keras_serializable(package="msq_tf")
class HeldScales(keras.layers.Layer, held_scales.HeldScales):
    """The held scales of all quantized weights of a model.

    Not trained. `.keras`, `.weights.h5` and `BackupAndRestore` carry them.

    Args:
        shares: How many scales each weight has.
        name: Name of the layer.
    """

    def __init__(self, shares: Sequence[int], name: str | None = None):
        super().__init__(name=name, dtype="float32", trainable=False)
        self.shares = [int(count) for count in shares]
        count = sum(self.shares)
        self._scales = self._variable("scales", count, tf.float32.name)
        self._widths = self._variable("widths", len(self.shares), "int32")
        self.built = True

    def _variable(self, name: str, size: int, dtype: str) -> Any:
        return self.add_weight(
            name=name,
            shape=(size,),
            dtype=dtype,
            initializer="zeros",
            trainable=False,
            autocast=False,
        )

    def scales(self) -> tf.Tensor:
        return tf.convert_to_tensor(self._scales)

    def widths(self) -> tf.Tensor:
        return tf.convert_to_tensor(self._widths)

    def counts(self) -> Sequence[int]:
        return self.shares

    def assign(self, scales: np.ndarray, widths: np.ndarray) -> None:
        self._scales.assign(scales)
        self._widths.assign(widths)

    def load_own_variables(self, store: Any) -> None:
        """As of any layer; a file without scales has those of its weights."""
        if not store.keys():
            self._widths.assign(np.zeros(len(self.shares), np.int32))
            return
        super().load_own_variables(store)

    def call(self) -> None:
        """Holds state only."""

    def get_config(self) -> dict[str, Any]:
        return {"shares": self.shares, "name": self.name}

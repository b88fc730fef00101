"""The state of a search as variables of a Keras model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from msq_tf.bit_widths import MAX_BITS
from msq_tf.bit_widths import MIN_BITS
from msq_tf.core.bit_history import Reasons
from msq_tf.core.file_facts import FileFacts
from msq_tf.core.search_state import PER_WEIGHT
from msq_tf.core.search_state import SHARED
from msq_tf.core.search_state import SearchState
from msq_tf.rules.device_costs import DeviceCosts

# Names of what is no variable beside the variables, whose names are numbers.
_REASONS = "reasons"
_DEVICE_COSTS = "device_costs"
_FILE_FACTS = "file_facts"


@keras.saving.register_keras_serializable(package="msq_tf")
class SearchVariables(keras.layers.Layer, SearchState):
    """Bits, pulls, statistics and progress of a search.

    Held as non-trainable variables, so that `.keras`, `.weights.h5` and
    `BackupAndRestore` bring back a search exactly as it stood. Its attributes
    are those of `SearchState`.
    """

    reasons: Reasons

    def __init__(self, start_bits: Sequence[int], name: str | None = None):
        super().__init__(name=name, dtype="float32", trainable=False)
        self.start_bits = [int(width) for width in start_bits]
        count = len(self.start_bits)
        for field, (shape, dtype) in PER_WEIGHT.items():
            setattr(self, field, self._variable(field, (count, *shape), dtype))
        for field, (shape, dtype) in SHARED.items():
            setattr(self, field, self._variable(field, shape, dtype))
        self.reasons = Reasons()
        self.built = True
        self.restart(self.start_bits)

    def _variable(self, name: str, shape: tuple[int, ...], dtype: str) -> Any:
        return self.add_weight(
            name=name,
            shape=shape,
            dtype=dtype,
            initializer="zeros",
            trainable=False,
            autocast=False,
        )

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        if self.reasons:
            store[_REASONS] = self.reasons.to_array()
        if self.device_costs is not None:
            store[_DEVICE_COSTS] = _as_array(self.device_costs.to_json())
        if self.file_facts.device:
            store[_FILE_FACTS] = _as_array(self.file_facts.to_json())

    def load_own_variables(self, store: Any) -> None:
        found = {key: store[key] for key in store.keys()}
        # Models without changes have none, and files of earlier versions.
        reasons = found.pop(_REASONS, None)
        costs = found.pop(_DEVICE_COSTS, None)
        self.device_costs = None
        if costs is not None:
            self.device_costs = DeviceCosts.from_json(_as_text(costs))
        facts = found.pop(_FILE_FACTS, None)
        self.reasons.clear()
        if reasons is not None:
            self.reasons.load(reasons)
        # Keras comes again after an error, to a place where nothing is, and
        # would tell of that.
        if not self._wrong():
            super().load_own_variables(found)
        wrong = self._wrong()
        if wrong:
            raise ValueError(
                "The file holds widths that no weight can have. Expected "
                f"{MIN_BITS} to {MAX_BITS} stored bits. Received: {wrong}"
            )
        self.file_facts = FileFacts()
        if facts is not None:
            count = len(self.start_bits)
            self.file_facts = FileFacts.from_json(_as_text(facts), count)

    def _wrong(self) -> list[int]:
        widths = [int(width) for width in self.bits.numpy()]
        return [w for w in widths if not MIN_BITS <= w <= MAX_BITS]

    def call(self) -> None:
        """Holds state only."""

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Raises a ValueError: the model around it is quantized already.

        A model with an `MSQModel` in it comes by here.
        """
        del args, kwargs
        raise ValueError(
            "Keras's `quantize` replaces the weights that MSQ trains, and "
            "by now may have replaced others of the model. Expected a model "
            "of float parts. Received: a model with an MSQModel in it"
        )

    def get_config(self) -> dict[str, Any]:
        return {"start_bits": self.start_bits, "name": self.name}


def _as_array(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


def _as_text(array: Any) -> str:
    try:
        return np.asarray(array, np.uint8).tobytes().decode()
    except (TypeError, ValueError) as error:
        raise ValueError(
            "The file holds what a device takes in a form that can't be read. "
            f"Expected JSON as bytes. Received: {error}"
        ) from None

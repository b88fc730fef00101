"""The functions of a language model that a file has, as models of Keras."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from msq_tf.core.quantized_weight import QuantizedWeight
from msq_tf.core.quantized_weight import SkippedWeight
from tflite_export.conversion.source import QuantizedModel
from tflite_export.generation.caches import Caches

PREFILL, DECODE = "prefill", "decode"
TOKENS, POSITION, LOGITS = "token_ids", "position", "logits"


class Signature(keras.Model):
    """A language model that is called with a cache on some tokens.

    Args:
        model: The float model.
        caches: The form of its cache.
        length: Tokens of a call.
        scores: Whether it gives the logits of the token behind the last one.
    """

    def __init__(self, model: Any, caches: Caches, length: int, scores: bool):
        super().__init__(name=model.name, dtype=model.dtype_policy)
        self.model = model
        self._caches, self._length, self._scores = caches, length, scores
        self.built = True

    @property
    def specs(self) -> dict[str, tf.TensorSpec]:
        """The inputs by name."""
        ports = {
            TOKENS: tf.TensorSpec((1, self._length), tf.int32),
            POSITION: tf.TensorSpec((1,), tf.int32),
        }
        for name, shape in self._caches.shapes.items():
            ports[name] = tf.TensorSpec(shape, tf.float32)
        return ports

    def call(
        self, inputs: Mapping[str, Any], training: bool | None = None
    ) -> dict[str, Any]:
        logits, _, cache = self.model.call_with_cache(
            inputs[TOKENS],
            self._caches.taken(inputs),
            tf.convert_to_tensor(inputs[POSITION])[0],
        )
        given = self._caches.given(cache)
        if self._scores:
            given[LOGITS] = logits[:, -1]
        return given


class View:
    """A quantized model, its base called as a signature. A `QuantizedModel`."""

    def __init__(self, model: QuantizedModel, base: Signature):
        self._model = model
        self._base = base

    @property
    def base(self) -> Any:
        """Is the signature."""
        return self._base

    def quantized_weights(self) -> list[QuantizedWeight]:
        """Returns those of the model."""
        return self._model.quantized_weights()

    def skipped_weights(self) -> list[SkippedWeight]:
        """Returns those of the model."""
        return self._model.skipped_weights()

    def quantized_scope(self) -> contextlib.AbstractContextManager[Any]:
        """Opens the scope of the model."""
        return self._model.quantized_scope()


def samples(
    view: View, caches: Caches, ids: np.ndarray, length: int, chunk: int
) -> dict[str, dict[str, np.ndarray]]:
    """Inputs of both signatures, with the caches that tokens lead to.

    Args:
        view: The quantized model, as any of its signatures.
        caches: The form of its cache.
        ids: Token ids, int32, shape (row, length).
        length: Positions of the cache.
        chunk: Tokens of a call of prefill.

    Returns:
        Arrays by input and signature. Prefill continues caches of different
        length, decode is at positions from the first to the last.
    """
    whole = Signature(view.base.model, caches, length, scores=False)
    rows: dict[str, list[dict[str, np.ndarray]]] = {PREFILL: [], DECODE: []}
    starts = list(range(0, length - chunk + 1, chunk))
    with view.quantized_scope():
        for number, row in enumerate(ids):
            given = {TOKENS: row[None], POSITION: np.zeros(1, np.int32)}
            filled = whole({**given, **caches.empty()}, training=False)
            kept = {name: np.asarray(value) for name, value in filled.items()}
            start = starts[number % len(starts)]
            last = (number * (length - 1)) // max(len(ids) - 1, 1)
            for key, at, count in ((PREFILL, start, chunk), (DECODE, last, 1)):
                rows[key].append(
                    {
                        TOKENS: row[None, at : at + count],
                        POSITION: np.array([at], np.int32),
                        **(kept if at else caches.empty()),
                    }
                )
    return {
        key: {
            name: np.concatenate([row[name] for row in found])
            for name in found[0]
        }
        for key, found in rows.items()
    }

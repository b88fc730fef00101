"""The two functions of a model that reads a text and writes another one.

KerasHub's `Seq2SeqLM`s keep keys and values of the text that was read, beside
those of the text that they write. The first function computes them, the second
writes with them, token by token.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from msq_tf.keras3.overlay import Aside
from tflite_export.conversion.source import QuantizedModel
from tflite_export.errors import ExportError
from tflite_export.generation.caches import Layers
from tflite_export.generation.caches import check_positions
from tflite_export.generation.signatures import DECODE
from tflite_export.generation.signatures import LOGITS
from tflite_export.generation.signatures import POSITION
from tflite_export.generation.signatures import TOKENS
from tflite_export.generation.signatures import View

ENCODE = "encode"
SOURCE, MASK = "encoder_token_ids", "encoder_padding_mask"
_BUILT = {SOURCE, MASK, "decoder_token_ids"}
# What a model's decoder is called with, by the names of its arguments.
_READ = {"encoder_hidden_states", "encoder_output"}
_STACKED = 6


def reads_and_writes(model: Any) -> bool:
    """Whether a model is called as `Seq2SeqLM`s of KerasHub are."""
    return all(
        callable(getattr(model, name, None))
        for name in ("call_decoder_with_cache", "_build_cache")
    )


class Translator:
    """A `Seq2SeqLM`, its caches as tensors by name.

    Args:
        model: The float model.
        source: Tokens of the text that it reads.
        length: Tokens of the text that it writes.

    Raises:
        ExportError: If it reads something else than tokens, or keeps something
            else than keys and values.
        ValueError: If it has not so many positions.

    Attributes:
        own: Keys and values of the text that it writes.
        read: Those of the text that it reads.
        source: As given.
    """

    def __init__(self, model: Any, source: int, length: int):
        self.model, self.source = model, source
        for name, tokens in (("prompt_length", source), ("max_length", length)):
            check_positions(model, name, tokens)
        build = inspect.signature(model._build_cache).parameters
        if not set(build) >= _BUILT:
            raise ExportError(
                "The model reads something else than tokens. Expected a "
                "`Seq2SeqLM` that reads a text; export the float files of its "
                "encoder and decoder as models of their own with `export`. "
                f"Received: {type(model).__name__} with {', '.join(build)}"
            )
        self._masked = "decoder_padding_mask" in build
        decoder = inspect.signature(model.call_decoder_with_cache).parameters
        self._parameters = set(decoder)
        with Aside():
            traced = tf.function(
                self._built, autograph=False
            ).get_concrete_function(
                tf.TensorSpec((1, source), tf.int32),
                tf.TensorSpec((1, source), tf.int32),
                tf.TensorSpec((1, length), tf.int32),
            )
        hidden, caches = traced.structured_outputs
        if len(caches) != 2 or hidden is None:  # noqa: PLR2004 (a pair)
            shapes = [tuple(leaf.shape) for leaf in caches]
            raise ExportError(
                "The model keeps something else than keys and values of two "
                f"texts. Expected two tensors of six axes. Received: {shapes}"
            )
        own, read = caches
        self.own = Layers(own.shape, "cache")
        self.read = Layers(read.shape, "cross")
        self._hidden = tuple(hidden.shape)

    def _built(
        self, ids: Any, mask: Any, written: Any
    ) -> tuple[Any, list[Any]]:
        """What the encoder gives, and the caches of both texts."""
        given = {
            SOURCE: ids,
            MASK: tf.cast(mask, tf.bool),
            "decoder_token_ids": written,
        }
        if self._masked:
            given["decoder_padding_mask"] = tf.ones_like(written, tf.bool)
        found = keras.tree.flatten(self.model._build_cache(**given))
        found = [leaf for leaf in found if leaf is not None]
        caches = [leaf for leaf in found if len(leaf.shape) == _STACKED]
        # Of the last token there are hidden states, too, and they are first.
        _, *states = [leaf for leaf in found if len(leaf.shape) == 3]  # noqa: PLR2004
        return next(iter(states), None), caches

    def encode(self, ids: Any, mask: Any) -> dict[str, Any]:
        """Keys and values of a text, by name."""
        first = tf.zeros((1, 1), tf.int32)
        return self.read.given(self._built(ids, mask, first)[1][1])

    def decode(
        self, ids: Any, position: Any, ports: Mapping[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """Logits of tokens, and the cache behind them by name.

        Args:
            ids: Tokens, int32 (1, count).
            position: Of the first of them, a scalar.
            ports: The mask and the caches of both texts, by name.
        """
        mask = tf.cast(ports[MASK], tf.bool)
        own, read = self.own.taken(ports), self.read.taken(ports)
        # The layers look at their keys and values alone.
        hidden = tf.zeros(self._hidden, self.model.compute_dtype)
        known = {
            "decoder_token_ids": ids,
            "decoder_padding_mask": None,
            MASK: mask,
            "encoder_hidden_states": hidden,
            "encoder_output": hidden,
            "cache": (own, read),
            "cache_update_index": position,
            "self_attention_cache": own,
            "self_attention_cache_update_index": position,
            "cross_attention_cache": read,
            "cross_attention_cache_update_index": None,
        }
        found = self.model.call_decoder_with_cache(
            **{k: v for k, v in known.items() if k in self._parameters}
        )
        logits, _, cache, *_ = found
        if isinstance(cache, list | tuple):
            cache = cache[0]
        return logits, self.own.given(cache)


class _Function(keras.Model):
    """A function of a translator, with the model as its only part."""

    def __init__(self, translator: Translator):
        model = translator.model
        super().__init__(name=model.name, dtype=model.dtype_policy)
        self.model = model
        self._translator = translator
        self.built = True


class Encode(_Function):
    """The function that reads a text."""

    @property
    def specs(self) -> dict[str, tf.TensorSpec]:
        """The inputs by name."""
        shape = (1, self._translator.source)
        return {name: tf.TensorSpec(shape, tf.int32) for name in (SOURCE, MASK)}

    def call(
        self, inputs: Mapping[str, Any], training: bool | None = None
    ) -> dict[str, Any]:
        return self._translator.encode(inputs[SOURCE], inputs[MASK])


class Decode(_Function):
    """The function that writes the next token of a text."""

    @property
    def specs(self) -> dict[str, tf.TensorSpec]:
        """The inputs by name."""
        translator = self._translator
        shapes = {**translator.read.shapes, **translator.own.shapes}
        return {
            TOKENS: tf.TensorSpec((1, 1), tf.int32),
            POSITION: tf.TensorSpec((1,), tf.int32),
            MASK: tf.TensorSpec((1, translator.source), tf.int32),
            **{n: tf.TensorSpec(s, tf.float32) for n, s in shapes.items()},
        }

    def call(
        self, inputs: Mapping[str, Any], training: bool | None = None
    ) -> dict[str, Any]:
        position = tf.convert_to_tensor(inputs[POSITION])[0]
        logits, given = self._translator.decode(
            inputs[TOKENS], position, inputs
        )
        return {**given, LOGITS: logits[:, -1]}


def views(model: QuantizedModel, translator: Translator) -> dict[str, View]:
    """The quantized model as each of its functions."""
    return {
        ENCODE: View(model, Encode(translator)),
        DECODE: View(model, Decode(translator)),
    }


def samples(
    model: QuantizedModel, translator: Translator, texts: Mapping[str, Any]
) -> dict[str, dict[str, np.ndarray]]:
    """Inputs of both functions, with the caches that tokens lead to.

    Args:
        model: The quantized model.
        translator: Its base.
        texts: Token ids and mask of what it reads, and `decoder_token_ids` of
            what it writes, int32, shape (row, token).

    Returns:
        Arrays by input and function; decode is at positions from the first to
        the last.
    """
    rows: list[dict[str, np.ndarray]] = []
    count = len(texts[SOURCE])
    with model.quantized_scope():
        for number in range(count):
            ids, mask, written = (
                texts[name][number : number + 1]
                for name in (SOURCE, MASK, "decoder_token_ids")
            )
            read = translator.encode(*map(tf.convert_to_tensor, (ids, mask)))
            ports = {MASK: mask, **_arrays(read), **translator.own.empty()}
            _, filled = translator.decode(written, tf.constant(0), ports)
            at = (number * (written.shape[1] - 1)) // max(count - 1, 1)
            kept = _arrays(filled) if at else translator.own.empty()
            rows.append(
                {
                    SOURCE: ids,
                    TOKENS: written[:, at : at + 1],
                    POSITION: np.array([at], np.int32),
                    **ports,
                    **kept,
                }
            )
    whole = {name: np.concatenate([r[name] for r in rows]) for name in rows[0]}
    read, write = Encode(translator).specs, Decode(translator).specs
    return {
        ENCODE: {name: whole[name] for name in read},
        DECODE: {name: whole[name] for name in write},
    }


def _arrays(tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in tensors.items()}

"""What a row of KerasHub's table is made of; data only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

# Tokens of a text in the rows.
LENGTH = 12
WORDS = 64
# Of a transformer, as most of KerasHub's classes name it.
BLOCKS = {
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 32,
    "intermediate_dim": 64,
}
# Attention to the words nearby, and to all.
LAYERS = ["sliding_attention", "full_attention"]
# The encoder and the decoder of a T5Gemma, of either generation.
SIDES = {
    f"{side}_{key}": value
    for side in ("encoder", "decoder")
    for key, value in {
        "hidden_dim": 32,
        "intermediate_dim": 64,
        "num_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "layer_types": LAYERS,
    }.items()
}


@dataclasses.dataclass(frozen=True)
class Part:
    """A call of one of KerasHub's classes.

    Attributes:
        of: Name of the class in `keras_hub.models` or `keras_hub.layers`.
        config: Its arguments; a value that is a part is built first.
    """

    of: str
    config: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Port:
    """Random examples of one input.

    Attributes:
        shape: Of one example.
        low: Least value.
        high: For floats the greatest value, for integers that plus one.
        dtype: Name of the data type.
        form: `"random"`; `"mask"` is ones, then zeros, of a length that
            differs between examples; `"places"` counts from zero; `"whole"` is
            random whole numbers of a type of floats; `"zeros"`.
    """

    shape: tuple[int, ...]
    low: float = 0.0
    high: float = 1.0
    dtype: str = "float32"
    form: str = "random"

    def examples(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Returns an array (count, *shape)."""
        shape = (count, *self.shape)
        if self.form == "mask":
            # The first is whole.
            kept = np.r_[self.shape[0], rng.integers(3, self.shape[0], count)]
            mask = np.arange(self.shape[0]) < kept[:count, np.newaxis]
            return mask.astype(self.dtype)
        if self.form == "places":
            return np.broadcast_to(np.arange(self.shape[0]), shape).astype(
                self.dtype
            )
        if self.form == "zeros":
            return np.zeros(shape, self.dtype)
        if self.form == "whole" or np.issubdtype(self.dtype, np.integer):
            drawn = rng.integers(int(self.low), int(self.high), shape)
            return drawn.astype(self.dtype)
        return rng.uniform(self.low, self.high, shape).astype(self.dtype)


Ports = Port | Mapping[str, Port]


@dataclasses.dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
        name: Unique, as in file names.
        family: Heading in tables.
        kind: `"text"`, `"language model"`, `"sequence to sequence"`,
            `"image"`, `"detection"`, `"segmentation"`, `"audio"`, `"image and
            text"` or `"diffusion"`.
        backbone: The model without a head.
        ports: Inputs as `call` takes them.
        task: The model that users train, with the key "backbone" for the
            row's; None where KerasHub has no task, or one only for
            generation.
        classes: Numbers that a classifier's targets have, else 0.
    """

    name: str
    family: str
    kind: str
    backbone: Part
    ports: Ports
    task: Part | None = None
    classes: int = 0


def tokens(length: int = LENGTH, words: int = WORDS) -> Port:
    """Token numbers; zero is padding in most vocabularies."""
    return Port((length,), 1, words, "int32")


def padding(length: int = LENGTH) -> Port:
    """Which tokens are not padding."""
    return Port((length,), dtype="int32", form="mask")


def text(*, segments: bool = False, mask: bool = True) -> dict[str, Port]:
    """Inputs of an encoder or a language model."""
    ports = {"token_ids": tokens()}
    if segments:
        ports["segment_ids"] = Port((LENGTH,), 0, 2, "int32")
    if mask:
        ports["padding_mask"] = padding()
    return ports


def translation() -> dict[str, Port]:
    """Inputs of an encoder and a decoder, of different lengths."""
    return {
        "encoder_token_ids": tokens(),
        "encoder_padding_mask": padding(),
        "decoder_token_ids": tokens(8),
        "decoder_padding_mask": padding(8),
    }


def pixels(height: int, width: int | None = None) -> Port:
    """A picture, scaled as most models take it."""
    return Port((height, width or height, 3), -1.0, 1.0)

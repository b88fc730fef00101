"""ActivationGrid: the integers of a file's activation, as a layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from msq_tf.core import saved
from msq_tf.core.config import check_choice
from msq_tf.keras3 import lifting
from msq_tf.keras3.activation_overlay import range_numbers
from msq_tf.keras3.activation_sites import Site
from msq_tf.keras3.activation_sites import grids_of
from msq_tf.keras3.activations import ActivationQuantizers
from msq_tf.keras3.activations import fake_quantize
from msq_tf.keras3.flow import Trace

# A share of a step that is below the distance of any average of codes from a
# tie, and above what float32 loses.
_BELOW_TIES = 2.0**-11


@keras.saving.register_keras_serializable(package="msq_tf")
class ActivationGrid(keras.layers.Identity):
    """Rounds activations to the integers that a file has for them.

    `from_tflite` puts one behind each operator of an integer file. Values
    become `(code - zero_point) * scale`, those beyond the codes the nearest
    one; the gradient goes straight through where a value is in the range, as
    of the activations that `MSQConfig(activation_bits=8)` trains. While a
    quantized model runs that is made of such a model, it gives what it reads:
    `quantize_model` takes the range as the first one of its own.

    Args:
        scale: Value of one code.
        zero_point: Code of zero, from 0 to `2**bits - 1`; of 16 bits 0, as
            these codes are signed.
        bits: 8, or 16 for codes from -32767 to 32767.
        half_away: Whether a value between two codes goes to the one farther
            from the middle of the codes, as averages of signed integers do;
            else it goes up.
        **kwargs: As of any layer.

    Raises:
        ValueError: If there is no such grid.
    """

    def __init__(
        self,
        scale: float,
        zero_point: int,
        bits: int = 8,
        half_away: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**{"dtype": "float32", **kwargs})
        check_choice("bits", bits, (8, 16))
        saved.check_integer("zero_point", zero_point, 0)
        saved.check_flag("half_away", half_away)
        top = 2**bits - 1 if bits == 8 else 0
        number = isinstance(scale, float) and math.isfinite(scale)
        if not number or scale <= 0 or zero_point > top:
            raise ValueError(
                "No integers have such a grid. Expected a finite scale above "
                f"0, and a zero point of at most {top}. Received: "
                f"scale={scale!r}, zero_point={zero_point}"
            )
        self.scale = scale
        self.zero_point = zero_point
        self.bits = bits
        self.half_away = half_away

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest value."""
        if self.bits == 16:
            high = 32767 * self.scale
            return -high, high
        low = -self.zero_point * self.scale
        return low, (255 - self.zero_point) * self.scale

    def call(self, inputs: Any) -> Any:
        """Rounds a float tensor, which keeps its type."""
        if lifting.is_lifted():
            return inputs
        x = tf.cast(inputs, tf.float32)
        if self.half_away:
            middle = np.float32((128 - self.zero_point) * self.scale)
            x -= tf.cast(x < middle, tf.float32) * (self.scale * _BELOW_TIES)
        low, high = (tf.constant(end, tf.float32) for end in self.range)
        return tf.cast(fake_quantize(x, low, high, self.bits), inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns what the constructor takes."""
        return {
            **super().get_config(),
            "scale": self.scale,
            "zero_point": self.zero_point,
            "bits": self.bits,
            "half_away": self.half_away,
        }


def given_ranges(
    found: Trace, sites: Sequence[Site]
) -> dict[int, tuple[float, float]]:
    """The ranges that a file's grids say for trained ranges, by their number.

    Where a range is that of several grids, the first counts, which is that of
    the operator itself.
    """
    grids = grids_of(found, sites)
    numbers = range_numbers(sites)
    ranges: dict[int, tuple[float, float]] = {}
    for call in found.calls:
        if not isinstance(call.layer, ActivationGrid):
            continue
        site = grids.get(id(call.output))
        number = "" if site is None else numbers[site]
        if isinstance(number, int):
            ranges.setdefault(number, call.layer.range)
    return ranges


def begin_with(
    quantizers: ActivationQuantizers, ranges: dict[int, tuple[float, float]]
) -> None:
    """Sets ranges to given ones, as `calibrate` does to those of data."""
    for number, (low, high) in ranges.items():
        quantizers.low[number].assign(low)
        quantizers.high[number].assign(high)
        quantizers.seen[number].assign(1.0)


def without_grids(config: Any) -> Any:
    """A serialized model whose grids are layers that give what they read."""
    if isinstance(config, list | tuple):
        return [without_grids(part) for part in config]
    if not isinstance(config, dict):
        return config
    if config.get("registered_name") != "msq_tf>ActivationGrid":
        return {key: without_grids(part) for key, part in config.items()}
    kept = {k: config["config"][k] for k in ("name", "trainable", "dtype")}
    return {
        **config,
        "module": "keras.layers",
        "class_name": "Identity",
        "registered_name": None,
        "config": kept,
    }

"""Fake-quantized activations: numerics and ranges.

Numerics are those of LiteRT's integer tensors, per tensor:

    scale = (high - low) / (2**bits - 1)
    zero_point = round(-low / scale)
    code = clip(round(x / scale) + zero_point, 0, 2**bits - 1)
    value = (code - zero_point) * scale

with `low <= 0 <= high` nudged so that zero is a code. 16 bits use
`low = -high` and `2**16 - 2` steps. The gradient passes where `x` is inside of
the range. Learned ranges get the gradient of what is clipped (PACT, Choi et
al., arXiv 1805.06085, equation 3, at both ends).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from msq_tf import distribute
from msq_tf.core import saved
from msq_tf.core.config import ACTIVATION_BITS
from msq_tf.core.config import EMA
from msq_tf.core.config import LEARNED
from msq_tf.core.config import check_choice
from msq_tf.keras3.activation_sites import Site
from msq_tf.keras3.biases import Bias
from msq_tf.quantizers.range_average import LEAST_RANGE
from msq_tf.quantizers.range_average import Extremes
from msq_tf.quantizers.range_average import averaged
from msq_tf.quantizers.range_average import extremes

# Share of the old range that a training step keeps.
_MOMENTUM = 0.95
# What is zero on all data has no range, and any will do. This one leaves the
# layers around it, whose scales are multiplied and divided by its own, numbers
# that kernels take; one next to zero does not.
_NO_RANGE = 1.0
# Most that the end of a batch counts for, in widths of the range so far: one
# batch moves an end by a width.
_REACH = 1.0 / (1.0 - _MOMENTUM)


@dataclasses.dataclass(frozen=True)
class ActivationPlan:
    """How activations are quantized. Saved with the model.

    Attributes:
        sites: Where.
        bits: Bits of their codes.
        ranges: `"ema"` or `"learned"`.
        biases: Which biases are rounded to the accumulators' units.
    """

    sites: tuple[Site, ...]
    bits: int
    ranges: str
    biases: tuple[Bias, ...] = ()

    def __post_init__(self) -> None:
        """Refuses what only a damaged or made-up file can say."""
        check_choice("bits", self.bits, ACTIVATION_BITS[1:])
        check_choice("ranges", self.ranges, (EMA, LEARNED))
        places = ((site.layer, site.call, site.place) for site in self.sites)
        saved.check_unique("layer, call and place", places)
        calls = ((bias.layer, bias.call) for bias in self.biases)
        saved.check_unique("layer and call of a bias", calls)
        for position, site in enumerate(self.sites):
            if site.like >= position:
                raise ValueError(
                    "The activation plan is damaged. Expected a site to share "
                    f"the range of an earlier one. Received: {site}"
                )
        for bias in self.biases:
            if bias.site >= len(self.sites):
                raise ValueError(
                    "The activation plan is damaged. Expected biases at its "
                    f"{len(self.sites)} sites. Received: {bias}"
                )

    def to_config(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ActivationPlan:
        """The inverse of `to_config`.

        Raises:
            ValueError: If it is the configuration of no plan.
        """
        # There are no biases in what was saved before there were any.
        kinds = {"sites": Site, "biases": Bias}
        lists = {
            name: tuple(
                saved.made(kind, entry)
                for entry in saved.records(name, config.get(name, ()))
            )
            for name, kind in kinds.items()
        }
        return saved.made(cls, {**config, **lists})

    @property
    def trained_sites(self) -> tuple[Site, ...]:
        """The sites whose range is trained."""
        return tuple(
            site for site in self.sites if not site.fixed and site.like < 0
        )


@dataclasses.dataclass(frozen=True)
class ActivationRange:
    """The trained range of one site.

    Attributes:
        path: Name of the site.
        bits: Bits of its codes.
        low: Smallest value, at most 0.
        high: Largest value, at least 0.
    """

    path: str
    bits: int
    low: float
    high: float


def fake_quantize(
    x: tf.Tensor, low: tf.Tensor, high: tf.Tensor, bits: int
) -> tf.Tensor:
    """Rounds float32 activations to the grid of an integer tensor.

    `low` is at most 0, and for 16 bits `-high`. Differentiable in all of `x`,
    `low` and `high`, and twice in `x`.
    """
    narrow = bits == 16

    @tf.custom_gradient
    def quantize(x: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> Any:
        value = tf.quantization.fake_quant_with_min_max_vars(
            x, low, high, num_bits=bits, narrow_range=narrow
        )

        def gradient(upstream: tf.Tensor) -> Any:
            # Comparing with the result avoids nudging the range once more.
            step = (high - low) / (2.0**bits - 1.0)
            below = x < low - step / 2
            above = x > high + step / 2
            zero = tf.zeros_like(upstream)
            return (
                tf.where(below | above, zero, upstream),
                tf.reduce_sum(tf.where(below, upstream, zero)),
                tf.reduce_sum(tf.where(above, upstream, zero)),
            )

        return value, gradient

    return quantize(x, low, high)


@keras.saving.register_keras_serializable(package="msq_tf")
class ActivationQuantizers(keras.layers.Layer):
    """The ranges of all sites of a model, and what is done with them.

    Args:
        sites: Names of the sites.
        bits: Bits of every site, 2 to 8 or 16.
        ranges: `"ema"`: an exponential moving average of each batch's
            extremes, no trainable parameter. `"learned"`: two trainable
            scalars a site, set from the first training batch.
        name: Name of the layer.
    """

    def __init__(
        self,
        sites: Sequence[str],
        bits: int,
        ranges: str = EMA,
        name: str | None = None,
    ):
        super().__init__(name=name, dtype="float32")
        self.sites = list(sites)
        self.bits = bits
        self.ranges = ranges
        learned = ranges == LEARNED
        self.low = [self._scalar(f"low_{i}", learned) for i in self._indices()]
        self.high = [
            self._scalar(f"high_{i}", learned) for i in self._indices()
        ]
        self.seen = [self._scalar(f"seen_{i}", False) for i in self._indices()]
        self.built = True

    def _indices(self) -> range:
        return range(len(self.sites))

    def _scalar(self, name: str, trainable: bool) -> Any:
        return self.add_weight(
            name=name,
            shape=(),
            initializer="zeros",
            trainable=trainable,
            autocast=False,
        )

    def call(
        self, x: Any, index: int, training: bool = False, seen: Any = None
    ) -> Any:
        """Quantizes the activations of one site.

        Args:
            x: The site's output.
            index: Which site.
            training: Whether to update its range.
            seen: What the range is that of, if not all of `x` has a part in it.
        """
        dtype = x.dtype
        x = tf.cast(x, tf.float32)
        seen = x if seen is None else tf.cast(seen, tf.float32)
        if training:
            self._observe(seen, index)
            low, high = self.range_of(index)
        else:
            low, high = self._range_or_that_of(seen, index)
        return tf.cast(fake_quantize(x, low, high, self.bits), dtype)

    def _range_or_that_of(
        self, x: tf.Tensor, index: int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The batch's own range, as long as no training step was taken.

        A `tf.cond` would save two reductions, at ten times the tracing time
        of second derivatives.
        """
        seen = tf.convert_to_tensor(self.seen[index]) > 0.0
        low, high = self.range_of(index)
        own_low, own_high = _sane(*extremes(x), self.bits)
        return tf.where(seen, low, own_low), tf.where(seen, high, own_high)

    def range_of(self, index: int) -> tuple[tf.Tensor, tf.Tensor]:
        """The trained range of a site, as two scalars."""
        return _sane(
            tf.convert_to_tensor(self.low[index]),
            tf.convert_to_tensor(self.high[index]),
            self.bits,
        )

    def _observe(self, x: tf.Tensor, index: int) -> None:
        # Of the whole batch, as on a single device; so all replicas write the
        # same, and have nothing to aggregate.
        batch = Extremes(*distribute.extremes(*extremes(x)))
        variables = self.low[index], self.high[index]
        old = Extremes(*map(tf.convert_to_tensor, variables))
        ends, known = averaged(
            old,
            batch,
            tf.convert_to_tensor(self.seen[index]) > 0.0,
            1.0 if self._learned else _MOMENTUM,
            _REACH,
            self.bits,
        )
        for variable, end in zip(variables, ends, strict=True):
            variable.assign(end)
        self.seen[index].assign(tf.cast(known, tf.float32))

    def unit_of(self, index: int) -> tf.Tensor:
        """Value of one code of a site; 0 as long as no step was taken."""
        seen = tf.convert_to_tensor(self.seen[index]) > 0.0
        return tf.where(
            seen, unit_of_range(*self.range_of(index), self.bits), 0.0
        )

    @property
    def _learned(self) -> bool:
        return self.ranges == LEARNED

    def trained_ranges(self) -> list[ActivationRange]:
        """The ranges as they stand, in the order of the sites.

        Raises:
            ValueError: If a site has seen no training batch.
        """
        unseen = [
            path
            for path, seen in zip(self.sites, self.seen, strict=True)
            if not float(seen.numpy())
        ]
        if unseen:
            raise ValueError(
                "Activation ranges are not trained. Expected at least one "
                "training step after `quantize_model`, or "
                "`msq_tf.calibrate(qmodel, x)`. Received: no finite data at "
                f"{unseen}"
            )
        ranges = []
        for index, path in enumerate(self.sites):
            low, high = self.range_of(index)
            low, high = float(low.numpy()), float(high.numpy())
            if not np.isfinite([low, high]).all():
                raise ValueError(
                    f"The activation range of '{path}' is not finite. "
                    f"Received: [{low}, {high}]; did the training diverge?"
                )
            ranges.append(ActivationRange(path, self.bits, low, high))
        return ranges

    def get_config(self) -> dict[str, Any]:
        return {
            "sites": self.sites,
            "bits": self.bits,
            "ranges": self.ranges,
            "name": self.name,
        }


def unit_of_range(low: Any, high: Any, bits: int) -> Any:
    """Value of one code of a range."""
    return (high - low) / (2.0**bits - (2.0 if bits == 16 else 1.0))


def fixed_range(activation: str, bits: int) -> tuple[float, float]:
    """The range of the codes that kernels of softmax, sigmoid or tanh write."""
    if bits == 16:
        return -1.0 + 2.0**-15, 1.0 - 2.0**-15
    if activation == "tanh":
        return -1.0, 1.0 - 2.0 ** (1 - bits)
    return 0.0, 1.0 - 2.0**-bits


def _sane(
    low: tf.Tensor, high: tf.Tensor, bits: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """A range that holds zero, is not empty, and is symmetric at 16 bits."""
    low, high = tf.minimum(low, 0.0), tf.maximum(high, 0.0)
    high = tf.where(high - low < LEAST_RANGE, low + _NO_RANGE, high)
    if bits == 16:
        high = tf.maximum(high, -low)
        low = -high
    return low, high

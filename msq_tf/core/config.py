"""Configurations: frozen dataclasses that validate themselves."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from msq_tf.arguments import check_flag
from msq_tf.arguments import check_mapping
from msq_tf.bit_widths import MAX_BITS
from msq_tf.bit_widths import MIN_BITS
from msq_tf.quantizers import uniform
from msq_tf.quantizers.uniform import QUANTIZERS
from msq_tf.quantizers.uniform import ROUND_CLAMP
from msq_tf.rules import target_limits


@dataclasses.dataclass(frozen=True)
class PerTensor:
    """One scale for the whole weight."""


@dataclasses.dataclass(frozen=True)
class PerChannel:
    """One scale per output channel."""


ACTIVATION_BITS = (None, 2, 3, 4, 5, 6, 7, 8, 16)
EMA = "ema"
LEARNED = "learned"
SCALES = (*uniform.STATISTICS, LEARNED)

Granularity = PerTensor | PerChannel

_GRANULARITIES: dict[str, type[Granularity]] = {
    "per_tensor": PerTensor,
    "per_channel": PerChannel,
}


def granularity_name(granularity: Granularity) -> str:
    """The granularity's name in saved configurations."""
    return "per_tensor" if granularity == PerTensor() else "per_channel"


def granularity_from_name(name: Any) -> Granularity:
    """The granularity of a saved configuration.

    Raises:
        ValueError: If the name is unknown.
    """
    if not isinstance(name, str) or name not in _GRANULARITIES:
        raise ValueError(
            "Unknown granularity. Expected one of "
            f"{sorted(_GRANULARITIES)}. Received: {name!r}"
        )
    return _GRANULARITIES[name]()


def check_granularity(value: Any) -> None:
    """Raises a ValueError unless `value` is a granularity."""
    if not isinstance(value, PerTensor | PerChannel):
        raise ValueError(
            "`granularity` must be `PerTensor()` or `PerChannel()`. "
            f"Received: granularity={value!r}"
        )


def check_bits(name: str, value: Any) -> None:
    """Raises a ValueError unless `value` is a supported bit width."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(
            f"`{name}` must be an integer from {MIN_BITS} to {MAX_BITS}. "
            f"Received: {name}={value!r}"
        )
    if not MIN_BITS <= value <= MAX_BITS:
        raise ValueError(
            f"`{name}` is out of range. Expected {MIN_BITS} to {MAX_BITS} "
            "stored bits (the sign counts as one; 2 bits are the ternary "
            f"codes -1, 0, 1). Received: {name}={value}"
        )


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Raises a ValueError unless `value` is one of `choices`."""
    # 8.0 and True equal integers; codes of 8.0 bits do not exist.
    alike = value in choices and not isinstance(value, float | bool)
    if not alike:
        raise ValueError(
            f"`{name}` is unknown. Expected one of {choices}. Received: "
            f"{name}={value!r}"
        )


def axes_tuple(axis: Any) -> tuple[int, ...]:
    """One axis or several, as a tuple.

    Raises:
        ValueError: If it is neither an integer nor several that differ.
    """
    axes = tuple(axis) if isinstance(axis, list | tuple) else (axis,)
    if (
        not axes
        or any(isinstance(a, bool) or not isinstance(a, int) for a in axes)
        or len(set(axes)) != len(axes)
    ):
        raise ValueError(
            "`axis` must be an integer, or several that differ. Received: "
            f"axis={axis!r}"
        )
    return axes


@dataclasses.dataclass(frozen=True)
class LayerConfig:
    """Settings of one layer; `None` stands for that of `MSQConfig`.

    Attributes:
        start_bits: Stored bits at the start.
        min_bits: Fewest stored bits a search may give the layer. Set both to
            the same width to pin a layer.
        granularity: `PerChannel()` or `PerTensor()`.
        skip: Leave the layer in float. Its weights then count as 32-bit
            weights in every compression figure.
        axis: Axis, or axes, of the output channels, for a weight of a layer
            class that MSQ does not know. Defaults to the last.
    """

    start_bits: int | None = None
    min_bits: int | None = None
    granularity: Granularity | None = None
    skip: bool = False
    axis: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("start_bits", "min_bits"):
            if getattr(self, name) is not None:
                check_bits(name, getattr(self, name))
        if self.granularity is not None:
            check_granularity(self.granularity)
        check_flag("skip", self.skip)
        if self.axis is not None:
            axes_tuple(self.axis)


@dataclasses.dataclass(frozen=True)
class MSQConfig:
    """Settings of `quantize_model` for a whole model.

    Attributes:
        start_bits: Stored bits of every layer at the start, the sign
            included. Defaults to 8.
        min_bits: Fewest stored bits a search may choose. Defaults to 2.
        granularity: `PerChannel()` (a scale per output channel, the default)
            or `PerTensor()`.
        dense_granularity: Another granularity for dense and einsum layers. With
            `PerTensor()` the Edge TPU keeps them FULLY_CONNECTED, and TFLite
            Micro stores them in 4 bits. Defaults to `granularity`.
        quantizer: `"round_clamp"` (the default) or the baseline `"dorefa"`.
        scale: The scales of weights. `"held"` (the default): at 2 to 4 bits a
            statistic of the weights that keeps their squared error small,
            taken when a weight gets its bits and held from there on; at 5 bits
            and more the largest magnitude, which follows the weights. `"mse"`:
            the same statistic, which follows the weights, too. `"max"`: the
            largest magnitude at all bits. These add no trainable parameter.
            `"learned"`: a trainable scale as in LSQ, which starts from the
            weights at preparation, so load trained weights before.
        activation_bits: Bits of activations: 8 or 16 as integer runtimes store
            them, 2 to 7 for experiments (no runtime stores them), or `None` for
            float activations (the default).
        activation_ranges: `"ema"`, a moving average of each batch's extremes,
            or `"learned"`, two trainable scalars a tensor as in PACT. Defaults
            to `"learned"` below 8 bits, and to `"ema"` at 8 and more.
        targets: Names of the export targets on which the model will run, such
            as `("mcu", "edgetpu")`: layers that can't run there are refused
            before the training. Defaults to none.
        overrides: Per-layer settings. A key is a path as in `MSQModel.bits`, or
            a regular expression that matches a whole path. An exact path beats
            an expression; the first expression that matches wins. If MSQ does
            not know a layer's class, it quantizes a weight of the layer if the
            key spells the weight's attribute, as in `"glu/gate"` or
            `".*/gate"`.

    Raises:
        ValueError: If a value is out of range or of the wrong kind.

    Example:
    ```python
    config = msq_tf.MSQConfig(
        min_bits=2,
        overrides={
            "stem": msq_tf.LayerConfig(min_bits=4),
            r".*/attention/.*": msq_tf.LayerConfig(skip=True),
        },
    )
    ```
    """

    start_bits: int = 8
    min_bits: int = 2
    granularity: Granularity = PerChannel()
    dense_granularity: Granularity | None = None
    quantizer: str = ROUND_CLAMP
    scale: str = uniform.HELD
    activation_bits: int | None = None
    activation_ranges: str | None = None
    targets: tuple[str, ...] = ()
    overrides: Mapping[str, LayerConfig] = dataclasses.field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        check_bits("start_bits", self.start_bits)
        check_bits("min_bits", self.min_bits)
        if self.min_bits > self.start_bits:
            raise ValueError(
                "`min_bits` cannot exceed `start_bits`. Received: "
                f"min_bits={self.min_bits}, start_bits={self.start_bits}"
            )
        check_granularity(self.granularity)
        if self.dense_granularity is not None:
            check_granularity(self.dense_granularity)
        check_choice("quantizer", self.quantizer, QUANTIZERS)
        check_choice("scale", self.scale, SCALES)
        if self.activation_bits not in ACTIVATION_BITS or isinstance(
            self.activation_bits, float | bool
        ):
            raise ValueError(
                "`activation_bits` is not supported. Expected 8 or 16, 2 to 7 "
                "for experiments, or None. Received: "
                f"activation_bits={self.activation_bits!r}"
            )
        if self.activation_ranges not in (None, EMA, LEARNED):
            raise ValueError(
                f"`activation_ranges` must be {EMA!r} or {LEARNED!r}. "
                f"Received: activation_ranges={self.activation_ranges!r}"
            )
        if self.activation_ranges and self.activation_bits is None:
            raise ValueError(
                "`activation_ranges` needs `activation_bits`. Received: "
                f"activation_ranges={self.activation_ranges!r}, "
                "activation_bits=None"
            )
        target_limits.check_names(self.targets)
        target_limits.check_bits(self.targets, self.activation_bits)
        check_mapping("overrides", self.overrides, "paths to `LayerConfig`")
        for key, value in self.overrides.items():
            if not isinstance(key, str):
                raise ValueError(
                    "A key of `overrides` is no text. Expected a path or a "
                    f"regular expression. Received: {key!r}"
                )
            if not isinstance(value, LayerConfig):
                raise ValueError(
                    "`overrides` maps paths to `LayerConfig`. Received: "
                    f"overrides[{key!r}]={value!r}"
                )
            try:
                re.compile(key)
            except re.error as error:
                raise ValueError(
                    "A key of `overrides` is neither a path nor a regular "
                    f"expression ({error}). Received: {key!r}"
                ) from error

    @property
    def ranges(self) -> str:
        """How ranges of activations are found, the default resolved."""
        if self.activation_ranges is not None:
            return self.activation_ranges
        return LEARNED if (self.activation_bits or 8) < 8 else EMA

    def override_key(self, path: str) -> str | None:
        """The key of the override that decides for `path`, if there is one."""
        if path in self.overrides:
            return path
        for key in self.overrides:
            if re.fullmatch(key, path):
                return key
        return None

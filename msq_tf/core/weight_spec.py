"""Weights of layer classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

from msq_tf.core.config import axes_tuple
from msq_tf.weight_layout import Layout


@dataclasses.dataclass(frozen=True)
class WeightSpec:
    """One quantizable weight of a layer class.

    Attributes:
        attribute: Name of the attribute that holds the Keras variable, or a
            list, tuple or dictionary of them.
        channel_axes: Axes that index output channels, or a function of the
            layer that returns them.
        layout: Meaning of the axes, which the exporter needs.
        float_reason: Why the weight stays in float; empty to quantize it.
        registered: Whether a user named the weight, who then wants to hear
            that a layer does not have it.
    """

    attribute: str
    channel_axes: tuple[int, ...] | Callable[[Any], Sequence[int]] = (-1,)
    layout: Layout = Layout.OTHER
    float_reason: str = ""
    registered: bool = False

    def axes(self, layer: Any, rank: int) -> tuple[int, ...]:
        """The output channel axes of `layer`'s weight, as non-negatives.

        Raises:
            ValueError: If the weight has no such axes.
        """
        axes = self.channel_axes
        if callable(axes):
            axes = axes_tuple(axes(layer))
        found = {axis % rank for axis in axes if -rank <= axis < rank}
        if len(found) < len(axes):
            raise ValueError(
                f"Weight '{self.attribute}' of layer '{layer.name}' has no "
                f"such axis. Expected an `axis` from {-rank} to {rank - 1}, "
                f"each once. Received: axis={axes}"
            )
        return tuple(sorted(found))

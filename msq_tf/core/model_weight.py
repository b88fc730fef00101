"""A weight of a model: the plan for it, and its place."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

from msq_tf.core.config import PerChannel
from msq_tf.core.weight_plan import WeightPlan
from msq_tf.core.weight_spec import WeightSpec
from msq_tf.rules.storage import kind_of


@dataclasses.dataclass(frozen=True, eq=False)
class ModelWeight:
    """One weight of two or more dimensions, quantized or not.

    Attributes:
        plan: What was decided for it.
        layer: The layer that owns it.
        variable: The variable of Keras that training moves.
        spec: What its axes mean.
    """

    plan: WeightPlan
    layer: Any
    variable: Any
    spec: WeightSpec

    def __post_init__(self) -> None:
        """Refuses channel axes that a quantized weight does not have."""
        if self.quantized:
            _ = self.channel_axes

    @property
    def path(self) -> str:
        """Its key in the model."""
        return self.plan.path

    @property
    def quantized(self) -> bool:
        """Whether it is quantized; else `plan.skip_reason` says why not."""
        return not self.plan.skip_reason

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.variable.shape)

    @functools.cached_property
    def channel_axes(self) -> tuple[int, ...]:
        """Axes that index output channels, whatever the granularity."""
        rank = len(self.variable.shape)
        return self.spec.axes(self.layer, rank)

    @property
    def channels(self) -> int:
        """Number of output channels."""
        return math.prod(
            self.variable.shape[axis] for axis in self.channel_axes
        )

    @property
    def scale_axes(self) -> tuple[int, ...] | None:
        """Axes over which it has scales; `None` for one scale."""
        per_channel = self.plan.granularity == PerChannel()
        return self.channel_axes if per_channel else None

    @property
    def scales(self) -> int:
        """Number of its scales."""
        return math.prod(
            self.variable.shape[axis] for axis in self.scale_axes or ()
        )

    @property
    def kind(self) -> str:
        """The kind of operator that reads it, one of `storage.KINDS`."""
        return kind_of(
            self.layer, self.spec.layout, self.variable.shape, self.channels
        )

"""What was decided for one weight of a model."""

from __future__ import annotations

import dataclasses
from typing import Any

from msq_tf.core import saved
from msq_tf.core.config import Granularity
from msq_tf.core.config import axes_tuple
from msq_tf.core.config import check_bits
from msq_tf.core.config import check_granularity
from msq_tf.core.config import granularity_from_name
from msq_tf.core.config import granularity_name
from msq_tf.weight_layout import Layout

_MOST_SHARED = 1 << 40


@dataclasses.dataclass(frozen=True)
class WeightPlan:
    """What happens to one weight. Saved with the model.

    Attributes:
        path: The weight's key, fixed at preparation: names that Keras
            generates anew in another process do not change it.
        layer: Class name of the owning layer.
        attribute: Name of the weight on its layer.
        start_bits: Stored bits at the start.
        min_bits: Fewest stored bits a search may choose.
        granularity: One scale per tensor or per output channel.
        skip_reason: Why the weight stays in float; empty when it does not.
        quantizable: Whether the weight could be quantized.
        channel_axes: Axes of the variable that index output channels; `None`
            in files of older versions, where the layer's class says it.
        layout: Meaning of the axes.
        scale_count: Elements that shared a scale before channels were removed;
            0 for those that are there. Scales keep to it, see
            `mse_scale.moments`.
    """

    path: str
    layer: str
    attribute: str
    start_bits: int
    min_bits: int
    granularity: Granularity
    skip_reason: str = ""
    quantizable: bool = True
    channel_axes: tuple[int, ...] | None = None
    layout: Layout = Layout.OTHER
    scale_count: int = 0

    def __post_init__(self) -> None:
        """Refuses what only a damaged or made-up file can say."""
        saved.check_text("path", self.path, empty=False)
        saved.check_text("layer", self.layer, empty=False)
        saved.check_text("attribute", self.attribute, empty=False)
        saved.check_text("skip_reason", self.skip_reason)
        saved.check_flag("quantizable", self.quantizable)
        check_bits("start_bits", self.start_bits)
        check_bits("min_bits", self.min_bits)
        if self.min_bits > self.start_bits:
            raise ValueError(
                "`min_bits` cannot exceed `start_bits`. Received for "
                f"'{self.path}': min_bits={self.min_bits}, "
                f"start_bits={self.start_bits}"
            )
        check_granularity(self.granularity)
        if self.channel_axes:
            axes_tuple(self.channel_axes)
        saved.check_integer("scale_count", self.scale_count, 0)
        if self.scale_count > _MOST_SHARED:
            raise ValueError(
                "`scale_count` is more than a weight can have. Expected at "
                f"most {_MOST_SHARED}. Received for '{self.path}': "
                f"scale_count={self.scale_count}"
            )
        if not isinstance(self.layout, Layout):
            raise ValueError(
                f"`layout` must be a `Layout`. Received: layout={self.layout!r}"
            )

    def to_config(self) -> dict[str, Any]:
        """Plain JSON values."""
        config = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
        }
        config["granularity"] = granularity_name(self.granularity)
        config["layout"] = self.layout.value
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> WeightPlan:
        """The inverse of `to_config`.

        Raises:
            ValueError: If it is the configuration of no plan.
        """
        config = dict(config)
        config["granularity"] = granularity_from_name(config.get("granularity"))
        if config.get("channel_axes") is not None:
            axes = config["channel_axes"]
            config["channel_axes"] = axes and axes_tuple(axes)
        # Neither is in files of older versions.
        if "layout" in config:
            config["layout"] = Layout(config["layout"])
        return saved.made(cls, config)

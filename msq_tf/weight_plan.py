"""What was decided for one weight of a model."""

from __future__ import annotations

import dataclasses
from typing import Any

from msq_tf.config import Granularity
from msq_tf.config import check_bits
from msq_tf.config import granularity_from_name
from msq_tf.config import granularity_name
from msq_tf.weights import Layout


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

    def __post_init__(self) -> None:
        """Refuses what only a damaged or made-up file can say."""
        if not self.skip_reason:
            check_bits("start_bits", self.start_bits)
            check_bits("min_bits", self.min_bits)

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
        """The inverse of `to_config`."""
        config = dict(config)
        config["granularity"] = granularity_from_name(config["granularity"])
        if config.get("channel_axes") is not None:
            config["channel_axes"] = tuple(config["channel_axes"])
            config["layout"] = Layout(config["layout"])
        return cls(**config)

"""From a configuration to a decision for every weight of a model."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import numpy as np

from msq_tf.config import Granularity
from msq_tf.config import LayerConfig
from msq_tf.config import MSQConfig
from msq_tf.config import granularity_from_name
from msq_tf.config import granularity_name
from msq_tf.discovery import FoundWeight
from msq_tf.discovery import find_weights
from msq_tf.weights import Layout

Filters = str | Sequence[str] | Callable[[Any], bool]


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
    """

    path: str
    layer: str
    attribute: str
    start_bits: int
    min_bits: int
    granularity: Granularity
    skip_reason: str = ""
    quantizable: bool = True

    def to_config(self) -> dict[str, Any]:
        """Plain JSON values."""
        config = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
        }
        config["granularity"] = granularity_name(self.granularity)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> WeightPlan:
        """The inverse of `to_config`."""
        config = dict(config)
        config["granularity"] = granularity_from_name(config["granularity"])
        return cls(**config)


def make_plan(
    base: Any, config: MSQConfig, filters: Filters | None
) -> tuple[WeightPlan, ...]:
    """Decides what to quantize, in traversal order.

    Raises:
        ValueError: If nothing is left to quantize, an override matches no
            weight, a weight is not finite, or a layer is quantized already.
    """
    found = find_weights(base)
    used: set[str] = set()
    plan = []
    for weight in found:
        if getattr(weight.layer, "quantization_mode", None):
            raise ValueError(
                "The model is quantized already, by Keras: layer "
                f"'{weight.path}' has quantization mode "
                f"{weight.layer.quantization_mode!r}. Expected a float model."
            )
        key = config.override_key(weight.path)
        override = LayerConfig()
        if key is not None:
            used.add(key)
            override = config.overrides[key]
        plan.append(_plan_weight(weight, config, override, filters))
    unused = sorted(set(config.overrides) - used)
    if unused:
        raise ValueError(
            "`overrides` names no weight of the model. Expected keys that "
            f"match one of {[weight.path for weight in found]}. Received: "
            f"{unused}"
        )
    if all(entry.skip_reason for entry in plan):
        skipped = {entry.path: entry.skip_reason for entry in plan}
        raise ValueError(
            "The model has no layer to quantize. Expected at least one "
            "convolution, dense, embedding or recurrent kernel that is not "
            f"skipped. Received: model '{base.name}', skipped: {skipped}"
        )
    _check_finite(found, plan)
    return tuple(plan)


def _plan_weight(
    weight: FoundWeight,
    config: MSQConfig,
    override: LayerConfig,
    filters: Filters | None,
) -> WeightPlan:
    start = override.start_bits or config.start_bits
    minimum = override.min_bits or min(config.min_bits, start)
    if minimum > start:
        raise ValueError(
            "`min_bits` cannot exceed `start_bits`. Received for layer "
            f"'{weight.path}': min_bits={minimum}, start_bits={start}"
        )
    reason = weight.reason
    if not reason and override.skip:
        reason = "skipped by `overrides`"
    if not reason and not _selected(weight, filters):
        reason = "not selected by `filters`"
    default = config.granularity
    if weight.spec.layout in (Layout.DENSE, Layout.EINSUM):
        default = config.dense_granularity or default
    return WeightPlan(
        path=weight.path,
        layer=type(weight.layer).__name__,
        attribute=weight.attribute,
        start_bits=start,
        min_bits=minimum,
        granularity=override.granularity or default,
        skip_reason=reason,
        quantizable=not weight.reason,
    )


def _selected(weight: FoundWeight, filters: Filters | None) -> bool:
    """Keras's semantics of `Model.quantize(filters=)`, on paths and names."""
    if filters is None:
        return True
    if isinstance(filters, str):
        return bool(re.search(filters, weight.path))
    if callable(filters):
        return bool(filters(weight.layer))
    return any(re.search(pattern, weight.path) for pattern in filters)


def check_filters(filters: Any) -> None:
    """Raises a ValueError unless `filters` is of a kind `_selected` knows."""
    if filters is None or isinstance(filters, str) or callable(filters):
        return
    if isinstance(filters, list | tuple) and all(
        isinstance(pattern, str) for pattern in filters
    ):
        return
    raise ValueError(
        "`filters` must be a regular expression, a list of them, or a "
        f"function of a layer. Received: filters={filters!r}"
    )


def _check_finite(
    found: Sequence[FoundWeight], plan: Sequence[WeightPlan]
) -> None:
    for weight, entry in zip(found, plan, strict=True):
        if entry.skip_reason:
            continue
        values = np.asarray(weight.variable)
        bad = int(np.size(values) - np.isfinite(values).sum())
        if bad:
            raise ValueError(
                f"Weight '{entry.path}' is not finite. Expected numbers "
                f"only. Received: {bad} of {values.size} values are NaN or "
                "infinite"
            )


def match_plan(base: Any, plan: Sequence[WeightPlan]) -> list[FoundWeight]:
    """The model's weights in the order of a plan.

    Raises:
        ValueError: If the plan was made for another architecture.
    """
    found = find_weights(base)
    have = [(type(w.layer).__name__, w.attribute) for w in found]
    want = [(entry.layer, entry.attribute) for entry in plan]
    if have != want:
        raise ValueError(
            "The plan does not fit the model. Expected weights (layer, "
            f"attribute) {want}. Received: {have}. Was a layer class "
            "registered with msq_tf.register_layer when the model was "
            "saved?"
        )
    return found

"""From a configuration to a decision for every weight of a model."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from collections.abc import Container
from collections.abc import Sequence
from typing import Any

import numpy as np

from msq_tf.core.config import LayerConfig
from msq_tf.core.config import MSQConfig
from msq_tf.core.config import axes_tuple
from msq_tf.core.model_weight import ModelWeight
from msq_tf.core.weight_plan import WeightPlan
from msq_tf.core.weight_records import count_not_finite
from msq_tf.core.weight_spec import WeightSpec
from msq_tf.keras3.discovery import FoundWeight
from msq_tf.keras3.discovery import find_weights
from msq_tf.keras3.unread import REASON
from msq_tf.weight_layout import Layout

Filters = str | Sequence[str] | Callable[[Any], bool]


def make_plan(
    base: Any,
    config: MSQConfig,
    filters: Filters | None,
    unread: Container[int] = (),
) -> tuple[WeightPlan, ...]:
    """Decides what to quantize, in traversal order.

    A weight that no layer class is known to compute with is quantized where
    an override or a filter spells its attribute; a pattern like `.*` might
    not have meant it. One that inference never reads stays in float.

    Raises:
        ValueError: If nothing is left to quantize, an override decides
            nothing, a weight is not finite, or a layer is quantized already.
    """
    found = find_weights(base)
    used: set[str] = set()
    plan = []
    for weight in found:
        if getattr(weight.layer, "quantization_mode", None):
            raise ValueError(
                "The model is quantized already, by Keras. Expected a float "
                f"model. Received: layer '{weight.path}' with "
                f"quantization_mode={weight.layer.quantization_mode!r}"
            )
        key = config.override_key(weight.path)
        named = weight.known or _named_by_filters(weight, filters)
        override = LayerConfig()
        if key is not None:
            named = named or _spells(key, weight)
            if named or config.overrides[key].skip:
                used.add(key)
                override = config.overrides[key]
        if named:
            weight = _with_axes(weight, override)
        if id(weight.variable) in unread:
            weight = dataclasses.replace(weight, reason=REASON)
        plan.append(_plan_weight(weight, config, override, filters))
    unused = sorted(set(config.overrides) - used)
    if unused:
        raise ValueError(
            "`overrides` names no weight of the model. Expected keys that "
            f"match one of {[weight.path for weight in found]} and, for a "
            "weight of a layer that is not known to MSQ, spell its attribute, "
            f"as in '.*/scale_kernel'. Received: {unused}"
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


def _spells(key: str, weight: FoundWeight) -> bool:
    """Whether an expression spells a weight's attribute after its layer's.

    Of `"kernels/0"`, the attribute is `"kernels"`.
    """
    names = key.removeprefix("^").removesuffix("$").split("/")[1:]
    return key == weight.path or weight.attribute.split("/")[0] in names


def _named_by_filters(weight: FoundWeight, filters: Filters | None) -> bool:
    if filters is None or callable(filters):
        return False
    patterns = [filters] if isinstance(filters, str) else filters
    return any(
        _spells(pattern, weight) and _selected(weight, pattern)
        for pattern in patterns
    )


def _with_axes(weight: FoundWeight, override: LayerConfig) -> FoundWeight:
    """A weight with its output channels, from its class or from the user."""
    if weight.known:
        if override.axis is not None:
            raise ValueError(
                "`axis` is known from the layer's class. Expected no `axis` "
                "but for a weight of a class that is not known to MSQ. "
                f"Received: axis={override.axis} for '{weight.path}'"
            )
        return weight
    axes = axes_tuple(-1 if override.axis is None else override.axis)
    spec = WeightSpec(weight.attribute, axes)
    return dataclasses.replace(weight, spec=spec, reason="", known=True)


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
        channel_axes=weight.spec.axes(weight.layer, len(weight.variable.shape)),
        layout=weight.spec.layout,
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
    if filters is None or callable(filters):
        return
    patterns = [filters] if isinstance(filters, str) else filters
    wrong = ""
    if isinstance(patterns, list | tuple) and all(
        isinstance(pattern, str) for pattern in patterns
    ):
        try:
            for pattern in patterns:
                re.compile(pattern)
            return
        except re.error as error:
            wrong = f" ({error})"
    raise ValueError(
        "`filters` must be a regular expression, a list of them, or a "
        f"function of a layer{wrong}. Received: filters={filters!r}"
    )


def _check_finite(
    found: Sequence[FoundWeight], plan: Sequence[WeightPlan]
) -> None:
    for weight, entry in zip(found, plan, strict=True):
        if entry.skip_reason:
            continue
        bad = count_not_finite(weight.variable)
        if bad:
            raise ValueError(
                f"Weight '{entry.path}' is not finite. Expected numbers "
                f"only. Received: {bad} of {np.size(weight.variable)} values "
                "are NaN or infinite"
            )


def match_plan(base: Any, plan: Sequence[WeightPlan]) -> list[ModelWeight]:
    """The model's weights in the order of a plan, with the plan's axes.

    What the plan says of a weight holds: a registration that is missing, or
    another one, does not change the codes of a model that was saved.

    Raises:
        ValueError: If the plan was made for another architecture.
    """
    found = find_weights(base)
    want = [(entry.layer, entry.attribute) for entry in plan]
    if len(found) > len(plan):
        found = _of_older_versions(found, want)
    have = [(type(w.layer).__name__, w.attribute) for w in found]
    if have != want:
        raise ValueError(
            "The plan does not fit the model. Expected weights (layer, "
            f"attribute) {want}. Received: {have}. Was a layer class "
            "registered with msq_tf.register_quantizable when the model was "
            "saved?"
        )
    return [
        ModelWeight(
            entry, weight.layer, weight.variable, _planned(weight, entry)
        )
        for weight, entry in zip(found, plan, strict=True)
    ]


def _of_older_versions(
    found: Sequence[FoundWeight], want: Sequence[tuple[str, str]]
) -> list[FoundWeight]:
    """Weights without the tables that older versions took for biases."""
    kept: list[FoundWeight] = []
    for weight in found:
        own = (type(weight.layer).__name__, weight.attribute)
        expected = want[len(kept)] if len(kept) < len(want) else None
        if own == expected or not weight.attribute.endswith("bias"):
            kept.append(weight)
    return kept


def _planned(weight: FoundWeight, entry: WeightPlan) -> WeightSpec:
    if entry.channel_axes is None:
        return weight.spec
    return WeightSpec(weight.attribute, entry.channel_axes, entry.layout)

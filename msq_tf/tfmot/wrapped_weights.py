"""The weights of a model of TFMOT, and what quantizes each."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from msq_tf.core.config import Granularity
from msq_tf.core.config import PerChannel
from msq_tf.core.config import PerTensor
from msq_tf.core.model_weight import ModelWeight
from msq_tf.core.weight_plan import WeightPlan
from msq_tf.core.weight_spec import WeightSpec
from msq_tf.tfmot.compat import private
from msq_tf.tfmot.compat.imports import tfmot
from msq_tf.tfmot.compat.names import weight_name
from msq_tf.tfmot.layers import known_weights
from msq_tf.tfmot.quantizer import RoundClampQuantizer
from msq_tf.tfmot.strip import is_input_quantizer


@dataclasses.dataclass(frozen=True, eq=False)
class WrappedWeight(ModelWeight):
    """One weight of a model of TFMOT.

    Attributes:
        quantizer: Its quantizer; `None` without one.
        variables: The variables of the quantizer.
    """

    quantizer: Any = None
    variables: Mapping[str, Any] | None = None

    @property
    def by_msq(self) -> bool:
        """Whether MSQ quantizes it."""
        return _ours(self.quantizer)

    @property
    def scale_axes(self) -> tuple[int, ...] | None:
        # A quantizer may have other axes than its layer's channels.
        if not self.by_msq:
            return super().scale_axes
        return self.quantizer.scale_axes(len(self.variable.shape))

    def value(self) -> np.ndarray:
        """float32 array: what a quantizer of TFMOT makes of it."""
        return self.quantizer(
            self.variable, False, weights=self.variables
        ).numpy()


def find_weights(model: Any) -> list[WrappedWeight]:
    """All weights of two or more dimensions, in the model's order.

    Paths are the names of the layers before they were wrapped, with the name
    of the weight where MSQ quantizes more than one of a layer: those that
    the same model has in Keras 3.
    """
    found: list[WrappedWeight] = []
    taken: set[str] = set()
    top = set(map(id, model.layers))
    for layer in _leaves(model):
        if is_input_quantizer(layer):
            continue
        wrapped = isinstance(layer, tfmot.QuantizeWrapper)
        owner = layer.layer if wrapped else layer
        reason = "not annotated with an MSQQuantizeConfig"
        if not wrapped and id(layer) not in top:
            reason = "inside of a layer, where no wrapper of TFMOT reaches"
        entries = [
            (variable, *others)
            for variable, *others in _entries(layer, owner)
            if len(variable.shape) > 1
        ]
        several = sum(_ours(quantizer) for _, quantizer, _ in entries) > 1
        for variable, quantizer, variables in entries:
            path = f"{owner.name}/{weight_name(variable)}"
            if not wrapped:
                path = variable.name.split(":")[0]
            elif _ours(quantizer) and not several:
                path = owner.name
            while path in taken:
                path += "_"
            taken.add(path)
            found.append(
                _wrapped(path, owner, variable, quantizer, variables, reason)
            )
    return found


def _leaves(model: Any) -> Iterator[Any]:
    """Wrappers, and layers with weights of their own that have none."""
    wrapped: set[int] = set()
    for layer in private.inner_layers(model):
        if id(layer) in wrapped:
            continue
        if isinstance(layer, tfmot.QuantizeWrapper):
            wrapped.update(map(id, private.all_layers(layer.layer)))
        yield layer


def _entries(layer: Any, owner: Any) -> list[tuple[Any, Any, Any]]:
    """`(variable, quantizer, its variables)` of a layer, wrapped or not."""
    entries: list[tuple[Any, Any, Any]] = []
    if layer is owner:
        rest = private.own_weights(owner)
    else:
        entries, rest = private.weight_vars(layer), owner.weights
    taken = {variable.ref() for variable, _, _ in entries}
    # What is left of a known layer is its biases.
    known = {spec.attribute for spec in known_weights(owner)}
    return entries + [
        (variable, None, None)
        for variable in rest
        if variable.ref() not in taken
        and (not known or weight_name(variable) in known)
    ]


def _ours(quantizer: Any) -> bool:
    return isinstance(quantizer, RoundClampQuantizer)


def _wrapped(
    path: str,
    layer: Any,
    variable: Any,
    quantizer: Any,
    variables: Any,
    reason: str,
) -> WrappedWeight:
    attribute = weight_name(variable)
    spec = next(
        (s for s in known_weights(layer) if s.attribute == attribute), None
    )
    granularity: Granularity = PerChannel()
    start = minimum = 8
    ours = _ours(quantizer)
    if ours:
        reason = ""
        start, minimum = quantizer.start_bits, quantizer.min_bits
        axes = quantizer.channel_axes
        granularity = PerTensor() if axes is None else PerChannel()
        spec = spec or WeightSpec(attribute, (-1,) if axes is None else axes)
    elif quantizer is not None:
        reason = f"quantized by TFMOT's {type(quantizer).__name__}, not by MSQ"
    plan = WeightPlan(
        path=path,
        layer=type(layer).__name__,
        attribute=attribute,
        start_bits=start,
        min_bits=minimum,
        granularity=granularity,
        skip_reason=reason,
        quantizable=ours or spec is not None,
    )
    spec = spec or WeightSpec(attribute, ())
    return WrappedWeight(plan, layer, variable, spec, quantizer, variables)


def activation_widths(model: Any) -> set[int]:
    """Bits of all quantizers of activations in a model of TFMOT."""
    quantizers: list[Any] = []
    for layer in private.inner_layers(model):
        if is_input_quantizer(layer):
            quantizers.append(layer.quantizer)
        if isinstance(layer, tfmot.QuantizeWrapper):
            quantizers += [
                activation.quantizer
                for activation in private.quantized_activations(layer)
            ]
            quantizers += private.output_quantizers(layer)
    return {
        int(quantizer.num_bits)
        for quantizer in quantizers
        if hasattr(quantizer, "num_bits")
    }


@contextlib.contextmanager
def weights_as(model: Any, values: Mapping[Any, tf.Tensor]) -> Iterator[None]:
    """While open, quantizers of TFMOT return these tensors, by `ref()`.

    What they compute of a variable the converter would take for the grid of
    an activation.
    """
    wrappers = [
        layer
        for layer in private.inner_layers(model)
        if isinstance(layer, tfmot.QuantizeWrapper)
    ]
    before = [private.weight_vars(wrapper) for wrapper in wrappers]
    try:
        for wrapper in wrappers:
            entries = [
                entry
                if _ours(entry[1]) or entry[0].ref() not in values
                else (entry[0], _Given(values[entry[0].ref()]), {})
                for entry in private.weight_vars(wrapper)
            ]
            private.set_weight_vars(wrapper, entries)
        yield
    finally:
        for wrapper, entries in zip(wrappers, before, strict=True):
            private.set_weight_vars(wrapper, entries)


class _Given:
    """A quantizer that returns one tensor."""

    def __init__(self, value: tf.Tensor):
        self._value = value

    def __call__(self, *args: Any, **kwargs: Any) -> tf.Tensor:
        return self._value

"""Which weights of a Keras model can be quantized, and by what path."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras

from msq_tf.core.weight_spec import WeightSpec
from msq_tf.keras3.attributes import variable_attributes
from msq_tf.keras3.attributes import variables_in
from msq_tf.keras3.lora import is_enabled
from msq_tf.keras3.overlay import child_layers
from msq_tf.keras3.overlay import own_variables
from msq_tf.keras3.registry import KERAS_LAYERS
from msq_tf.keras3.registry import specs_of


@dataclasses.dataclass(frozen=True, eq=False)
class FoundWeight:
    """A weight variable in a model.

    Attributes:
        path: Unique traversal path, see `find_weights`.
        layer: The layer that owns the variable.
        attribute: Name of the weight on its layer; of a weight in a list or
            dictionary, its place there follows, as in `"kernels/0"`.
        variable: The `keras.Variable`.
        spec: How to quantize it.
        reason: Why it is not quantized by itself; empty when it is.
        known: Whether its layer's class is known to compute with it. If not,
            the weight is quantized where the user names it.
    """

    path: str
    layer: Any
    attribute: str
    variable: Any
    spec: WeightSpec
    reason: str
    known: bool = True


def walk(root: Any) -> Iterator[tuple[str, Any]]:
    """Yields `(path, layer)` for every layer below `root`, depth first.

    The path joins layer names from the root's children downwards. A repeated
    path gets `_1`, `_2`, ... appended in traversal order; a layer that is
    reachable twice is visited once. `root` itself, when it has no layers
    below it, is yielded under its own name.
    """
    seen: set[int] = set()
    taken: set[str] = set()

    def unique(path: str) -> str:
        candidate, count = path, 0
        while candidate in taken:
            count += 1
            candidate = f"{path}_{count}"
        taken.add(candidate)
        return candidate

    def visit(parent: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        for layer in child_layers(parent):
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            path = unique(f"{prefix}{layer.name}")
            yield path, layer
            yield from visit(layer, f"{path}/")

    if own_variables(root):
        yield unique(root.name), root
    yield from visit(root, "")


def find_weights(root: Any) -> list[FoundWeight]:
    """All weights of `root` that are quantizable or large enough to matter.

    In traversal order, every known weight and every other floating point
    weight of two or more dimensions. Biases and normalization vectors are not
    listed: files keep them in float, as every peer does. A variable shared by
    two layers is listed once, at the first that knows it. Which weights are
    listed does not depend on what is registered, so that a plan fits its
    model also in a process that registers less.

    Raises:
        ValueError: If a layer lacks a weight that is registered for it.
    """
    layers = [(path, layer, _known(layer)) for path, layer in walk(root)]
    known_somewhere = {id(v) for _, _, known in layers for _, _, v in known}
    found: list[FoundWeight] = []
    seen: set[int] = set()
    for path, layer, known in layers:
        mine = {id(v): (attribute, spec) for attribute, spec, v in known}
        attributes = variable_attributes(layer)
        # Variables of another layer come last, they are not tracked here.
        variables = {id(v): v for v in own_variables(layer)}
        variables |= {id(v): v for _, _, v in known}
        for key, variable in variables.items():
            if key in seen:
                continue
            if key in mine:
                attribute, spec = mine[key]
                # One that is float by our own table has no width to be named.
                ours = bool(spec.float_reason) and not spec.registered
                alone = len(mine) == 1 and not ours
                name = path if alone else f"{path}/{attribute}"
                reason = spec.float_reason or _refusal(variable)
            else:
                attribute = attributes[key]
                if key in known_somewhere or _is_no_kernel(
                    layer, attribute, variable
                ):
                    continue
                spec = WeightSpec(attribute, ())
                name = f"{path}/{attribute}"
                reason = (
                    f"no weight '{attribute}' is known for "
                    f"{type(layer).__name__}; name '{name}' in `overrides`, "
                    "or see msq_tf.register_quantizable"
                )
            seen.add(key)
            found.append(
                FoundWeight(
                    path=name,
                    layer=layer,
                    attribute=attribute,
                    variable=variable,
                    spec=spec,
                    reason=reason,
                    known=key in mine,
                )
            )
    return found


def _known(layer: Any) -> list[tuple[str, WeightSpec, Any]]:
    """`(attribute, spec, variable)` of a layer's known weights."""
    known: dict[int, tuple[str, WeightSpec, Any]] = {}
    for spec in specs_of(layer):
        value = getattr(layer, spec.attribute, None)
        if is_enabled(layer):
            # The attribute is then a sum, no variable.
            value = getattr(layer, f"_{spec.attribute}", value)
        held = variables_in(spec.attribute, value)
        if spec.registered:
            _check_registered(layer, spec, value, held)
        for attribute, variable in held:
            known[id(variable)] = (attribute, spec, variable)
    return list(known.values())


def _check_registered(
    layer: Any, spec: WeightSpec, value: Any, held: list[tuple[str, Any]]
) -> None:
    if not layer.built:
        return
    head = (
        f"Layer '{layer.name}' has no weight '{spec.attribute}', which is "
        f"registered for {type(layer).__name__}. Expected "
    )
    if not hasattr(layer, spec.attribute):
        names = sorted(set(variable_attributes(layer).values()))
        raise ValueError(
            f"{head}one of its weights, {names}, or an attribute that is "
            f"None. Received: '{spec.attribute}'"
        )
    if value is not None and not held:
        raise ValueError(
            f"{head}a Keras variable, or a list, tuple or dictionary of "
            f"them. Received: {spec.attribute} of type {type(value).__name__}"
        )
    for attribute, variable in held:
        if len(variable.shape) < 2:
            raise ValueError(
                f"Weight '{attribute}' of layer '{layer.name}' cannot be "
                "quantized. Expected two dimensions or more: files keep "
                "vectors in float. Received: shape "
                f"{tuple(variable.shape)}"
            )
        spec.axes(layer, len(variable.shape))


def _is_no_kernel(layer: Any, attribute: str, variable: Any) -> bool:
    # The factors of LoRA go with their kernel, which is listed.
    return (
        len(variable.shape) < 2
        or not keras.backend.is_float_dtype(variable.dtype)
        or attribute.startswith("lora_")
        or (attribute.endswith("bias") and _is_bias(layer, variable))
    )


def _is_bias(layer: Any, variable: Any) -> bool:
    """Whether what is called a bias is one, and no table of biases.

    A GRU has two in one array, `EinsumDense` one of several axes.
    """
    long = [length for length in variable.shape if length > 1]
    return len(long) < 2 or isinstance(layer, KERAS_LAYERS)


def _refusal(variable: Any) -> str:
    if not keras.backend.is_float_dtype(variable.dtype):
        return f"the weight has dtype {variable.dtype}"
    return ""

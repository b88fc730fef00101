"""Which weights of a Keras model can be quantized, and by what path.

A table maps layer classes to the weights they compute with. Layers are
matched by class and weights by attribute: names would miss recurrent kernels
and embeddings, and `variable.path` is not unique in nested models.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import keras

from msq_tf.overlay import child_layers
from msq_tf.overlay import own_variables
from msq_tf.weights import Layout


@dataclasses.dataclass(frozen=True)
class WeightSpec:
    """One quantizable weight of a layer class.

    Attributes:
        attribute: Name of the attribute that holds the Keras variable.
        channel_axes: Axes that index output channels, or a function of the
            layer that returns them.
        layout: Meaning of the axes, which the exporter needs.
    """

    attribute: str
    channel_axes: tuple[int, ...] | Callable[[Any], tuple[int, ...]] = (-1,)
    layout: Layout = Layout.OTHER

    def axes(self, layer: Any, rank: int) -> tuple[int, ...]:
        """The output channel axes of `layer`'s weight, as non-negatives."""
        axes = self.channel_axes
        if callable(axes):
            axes = axes(layer)
        return tuple(sorted(axis % rank for axis in axes))


@dataclasses.dataclass(frozen=True, eq=False)
class FoundWeight:
    """A weight variable in a model.

    Attributes:
        path: Unique traversal path, see `find_weights`.
        layer: The layer that owns the variable.
        attribute: Name of the weight on its layer.
        variable: The `keras.Variable`.
        spec: How to quantize it.
        reason: Why it cannot be quantized; empty when it can.
    """

    path: str
    layer: Any
    attribute: str
    variable: Any
    spec: WeightSpec
    reason: str


def _einsum_output_axes(layer: Any) -> tuple[int, ...]:
    operands, output = layer.equation.replace(" ", "").split("->")
    kernel = operands.split(",")[1]
    return tuple(i for i, axis in enumerate(kernel) if axis in output)


_CONV = (WeightSpec("kernel", (-1,), Layout.CONV),)
_CONV_TRANSPOSE = (WeightSpec("kernel", (-2,), Layout.CONV_TRANSPOSE),)
_DEPTHWISE = (WeightSpec("kernel", (-2, -1), Layout.DEPTHWISE),)
_SEPARABLE = (
    WeightSpec("depthwise_kernel", (-2, -1), Layout.DEPTHWISE),
    WeightSpec("pointwise_kernel", (-1,), Layout.CONV),
)
_RECURRENT = (
    WeightSpec("kernel", (-1,), Layout.RECURRENT),
    WeightSpec("recurrent_kernel", (-1,), Layout.RECURRENT),
)

_REGISTRY: dict[type, tuple[WeightSpec, ...]] = {
    keras.layers.Dense: (WeightSpec("kernel", (-1,), Layout.DENSE),),
    keras.layers.Conv1D: _CONV,
    keras.layers.Conv2D: _CONV,
    keras.layers.Conv3D: _CONV,
    keras.layers.Conv1DTranspose: _CONV_TRANSPOSE,
    keras.layers.Conv2DTranspose: _CONV_TRANSPOSE,
    keras.layers.Conv3DTranspose: _CONV_TRANSPOSE,
    keras.layers.DepthwiseConv1D: _DEPTHWISE,
    keras.layers.DepthwiseConv2D: _DEPTHWISE,
    keras.layers.SeparableConv1D: _SEPARABLE,
    keras.layers.SeparableConv2D: _SEPARABLE,
    keras.layers.EinsumDense: (
        WeightSpec("kernel", _einsum_output_axes, Layout.EINSUM),
    ),
    keras.layers.Embedding: (
        WeightSpec("embeddings", (-1,), Layout.EMBEDDING),
    ),
    keras.layers.LSTMCell: _RECURRENT,
    keras.layers.GRUCell: _RECURRENT,
    keras.layers.SimpleRNNCell: _RECURRENT,
}


def register_layer(layer_class: type, *specs: WeightSpec) -> None:
    """Tells MSQ which weights of a layer class of yours to quantize.

    Subclasses inherit the entry, so a subclass of `Dense` needs none. Call
    it again to replace an entry.

    Args:
        layer_class: A subclass of `keras.layers.Layer`.
        *specs: A `WeightSpec` for each weight that the layer's `call` reads
            through its attribute.

    Raises:
        ValueError: If `layer_class` is no Keras layer class or there are no
            specs.

    Example:
    ```python
    msq_tf.register_layer(
        MyGatedLinear, msq_tf.WeightSpec("w_gate"), msq_tf.WeightSpec("w_up")
    )
    ```
    """
    if not (
        isinstance(layer_class, type)
        and issubclass(layer_class, keras.layers.Layer)
    ):
        raise ValueError(
            "`register_layer` takes a subclass of `keras.layers.Layer`. "
            f"Received: layer_class={layer_class!r}"
        )
    if not specs or not all(isinstance(spec, WeightSpec) for spec in specs):
        raise ValueError(
            "`register_layer` takes at least one `WeightSpec`. "
            f"Received: specs={specs!r}"
        )
    _REGISTRY[layer_class] = specs


def _specs(layer: Any) -> tuple[WeightSpec, ...]:
    for ancestor in type(layer).__mro__:
        if ancestor in _REGISTRY:
            return _REGISTRY[ancestor]
    return ()


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

    Args:
        root: A built Keras layer or model.

    Returns:
        In traversal order, every registered weight and every other floating
        point weight of two or more dimensions (with a reason). Biases and
        normalization vectors are not listed: files keep them in float, as
        every peer does. A variable shared by two layers is listed once.
    """
    found: list[FoundWeight] = []
    seen: set[int] = set()
    for path, layer in walk(root):
        specs = {}
        for spec in _specs(layer):
            variable = getattr(layer, spec.attribute, None)
            if getattr(layer, "lora_enabled", False):
                # The attribute is then a sum, no variable.
                variable = getattr(layer, f"_{spec.attribute}", None)
            if isinstance(variable, keras.Variable):
                specs[id(variable)] = (spec, variable)
        known = len(specs)
        for spec, variable in specs.values():
            if id(variable) not in seen:
                seen.add(id(variable))
                found.append(
                    FoundWeight(
                        path=path if known == 1 else f"{path}/{spec.attribute}",
                        layer=layer,
                        attribute=spec.attribute,
                        variable=variable,
                        spec=spec,
                        reason=_refusal(layer, variable),
                    )
                )
        if known:
            # What is left of a known layer is its biases.
            continue
        for variable in own_variables(layer):
            if (
                id(variable) in seen
                or len(variable.shape) < 2
                or not keras.backend.is_float_dtype(variable.dtype)
            ):
                continue
            seen.add(id(variable))
            found.append(
                FoundWeight(
                    path=f"{path}/{variable.name}",
                    layer=layer,
                    attribute=variable.name,
                    variable=variable,
                    spec=WeightSpec(variable.name, ()),
                    reason=(
                        f"no weight '{variable.name}' is known for "
                        f"{type(layer).__name__}; see msq_tf.register_layer"
                    ),
                )
            )
    return found


def _refusal(layer: Any, variable: Any) -> str:
    if getattr(layer, "lora_enabled", False):
        return "LoRA is enabled on the layer; merge it first"
    if not keras.backend.is_float_dtype(variable.dtype):
        return f"the weight has dtype {variable.dtype}"
    return ""

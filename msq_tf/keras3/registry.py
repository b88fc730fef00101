"""The weights of Keras 3 layers to quantize; users add their own."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import TypeVar

import keras

from msq_tf.core import layer_registry
from msq_tf.core.config import axes_tuple
from msq_tf.core.weight_spec import WeightSpec
from msq_tf.weight_layout import Layout

Axis = int | Sequence[int] | Callable[[Any], Sequence[int]]
LayerClass = TypeVar("LayerClass", bound=type)

# Where a layout keeps its output channels, if not on the last axis.
_CHANNELS = {Layout.DEPTHWISE: (-2, -1), Layout.CONV_TRANSPOSE: (-2,)}

_REGISTRY = layer_registry.registry(keras.layers, "kernel")

# Those that are known whatever is registered.
KERAS_LAYERS = tuple(_REGISTRY)


def register_quantizable(
    *attributes: str,
    axis: Axis | None = None,
    layout: Layout = Layout.OTHER,
) -> Callable[[LayerClass], LayerClass]:
    """Tells MSQ which weights of a layer class to quantize.

    Use it as a decorator of your own class, in any order with
    `keras.saving.register_keras_serializable`, or call it on a class of
    somebody else. A class may have several decorators, and subclasses inherit
    them: a subclass of `Dense` keeps its kernel. The last decorator that names
    an attribute counts.

    Args:
        *attributes: Names of the attributes through which the layer's `call`
            reads the weights. An attribute may hold a list, tuple or dictionary
            of weights; on a layer where it is `None`, it is ignored.
        axis: Axis, or axes, of the output channels, each with its own scale, or
            a function of the layer that returns them. Defaults to the axes of
            `layout`, mostly the last one.
        layout: Meaning of the axes, for the exporter. With `Layout.OTHER` the
            exporter finds it out.

    Returns:
        A function that registers the class it is given, and returns it.

    Raises:
        ValueError: If no attribute is named, `axis` or `layout` is of the
            wrong kind, or the class is no Keras layer's.

    Example:
    ```python
    @msq_tf.register_quantizable("gate", "value", axis=-1)
    class GatedLinear(keras.layers.Layer):
        ...

    msq_tf.register_quantizable("weight")(other_package.Linear)
    ```
    """
    if not isinstance(layout, Layout):
        raise ValueError(
            f"`layout` must be a `Layout`. Received: layout={layout!r}"
        )
    if axis is None:
        axis = _CHANNELS.get(layout, (-1,))
    axes = axis if callable(axis) else axes_tuple(axis)
    return _registering(
        "register_quantizable",
        [
            WeightSpec(name, axes, layout, registered=True)
            for name in attributes
        ],
    )


def register_float(
    *attributes: str, reason: str
) -> Callable[[LayerClass], LayerClass]:
    """Tells MSQ which weights of a layer class stay in float, and why.

    Use it for weights that multiply nothing, such as position embeddings.
    Reports show the reason, and no compression figure counts such weights.

    Args:
        *attributes: As in `register_quantizable`.
        reason: A few words for a person.

    Returns:
        A function that registers the class it is given, and returns it.

    Raises:
        ValueError: If no attribute is named, or the class is no Keras
            layer's.

    Example:
    ```python
    @msq_tf.register_float("position", reason="added to activations")
    class Positions(keras.layers.Layer):
        ...
    ```
    """
    return _registering(
        "register_float",
        [
            WeightSpec(name, (), float_reason=reason, registered=True)
            for name in attributes
        ],
    )


def _registering(
    name: str, specs: Sequence[WeightSpec]
) -> Callable[[LayerClass], LayerClass]:
    attributes = [spec.attribute for spec in specs]
    if not specs or not all(
        isinstance(attribute, str) and attribute.isidentifier()
        for attribute in attributes
    ):
        raise ValueError(
            f"`{name}` takes names of attributes, as in "
            f'`@{name}("scale_kernel")`. Received: {tuple(attributes)!r}'
        )

    def register(layer_class: LayerClass) -> LayerClass:
        if not (
            isinstance(layer_class, type)
            and issubclass(layer_class, keras.layers.Layer)
        ):
            raise ValueError(
                f"`{name}` decorates a subclass of `keras.layers.Layer`. "
                f"Received: {layer_class!r}"
            )
        own = {s.attribute: s for s in _REGISTRY.get(layer_class, ())}
        own |= {s.attribute: s for s in specs}
        _REGISTRY[layer_class] = tuple(own.values())
        return layer_class

    return register


def specs_of(layer: Any) -> tuple[WeightSpec, ...]:
    """The weights of a layer that are known, those of its own class first."""
    return layer_registry.specs_of(_REGISTRY, layer)

"""From a model of TFMOT back to a plain tf_keras model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import numpy as np

from msq_tf.tfmot.compat import private
from msq_tf.tfmot.compat.imports import tf_keras
from msq_tf.tfmot.compat.imports import tfmot
from msq_tf.tfmot.compat.names import weight_name
from msq_tf.tfmot.compat.patches import QuantizeLayer

# What layers may compute in and files don't.
OTHER_FLOATS = ("bfloat16", "float16", "float64")


@contextlib.contextmanager
def in_float32(model: Any) -> Iterator[None]:
    """Lets layers of a mixed policy compute in float32, as their variables."""
    changed = [
        (layer, layer.dtype_policy)
        for layer in private.all_layers(model)
        if layer.compute_dtype in OTHER_FLOATS
    ]
    try:
        for layer, _ in changed:
            private.set_policy(layer, "float32")
        yield
    finally:
        for layer, policy in changed:
            private.set_policy(layer, policy)


def strip_quantization(model: Any) -> Any:
    """Copies a model without its wrappers and fake quantization.

    Args:
        model: A model that `quantize_apply` returned, at any time of its
            training.

    Returns:
        An uncompiled tf_keras model with the latent float weights. It shares no
        variable with `model`, and computes in float32 even if `model` has mixed
        precision. Layers have their names from before `quantize_apply`.

    Raises:
        ValueError: If `model` is no model of tf_keras, or a layer cannot be
            rebuilt from its configuration.

    Example:
    ```python
    strip_quantization(qat_model).save("float.keras")
    ```
    """
    check_model(model)
    before = tf_keras.mixed_precision.global_policy()
    # The model itself is of the global policy.
    tf_keras.mixed_precision.set_global_policy("float32")
    try:
        with tfmot.quantize_scope():
            plain = tf_keras.models.clone_model(
                model, clone_function=_unwrapped
            )
    finally:
        tf_keras.mixed_precision.set_global_policy(before)
    copy_weights(model, plain, {})
    return plain


def check_model(model: Any) -> None:
    """Raises a ValueError unless `model` is a model of tf_keras."""
    check_kind(model, tf_keras.Model, "models")


def check_kind(value: Any, kind: type, what: str) -> None:
    """Raises a ValueError unless a model or layer is of tf_keras."""
    if not isinstance(value, kind):
        raise ValueError(
            f"msq_tf.tfmot is for {what} of tf_keras. Models of Keras 3 go "
            "through `msq_tf.quantize_model` and `msq_tf.MSQCallback`. "
            f"Received: {type(value).__module__}.{type(value).__name__}"
        )


def is_input_quantizer(layer: Any) -> bool:
    """Whether a layer is the `QuantizeLayer` that TFMOT puts behind inputs."""
    return isinstance(layer, QuantizeLayer)


def _unwrapped(layer: Any) -> Any:
    if is_input_quantizer(layer):
        return tf_keras.layers.Activation("linear", name=layer.name)
    if isinstance(layer, tfmot.QuantizeWrapper):
        inner = layer.layer
        # A wrapper that was called has put its own objects there; it does so
        # again at the next call.
        layer.quantize_config.set_quantize_activations(
            inner,
            [
                _original(entry)
                for entry in private.quantized_activations(layer)
            ],
        )
        layer = inner
    config = layer.get_config()
    if layer.compute_dtype in OTHER_FLOATS:
        # A file computes in it.
        config["dtype"] = "float32"
    return type(layer).from_config(config)


def _original(entry: Any) -> Any:
    activation = entry.activation
    if type(activation).__name__ == "NoOpActivation":
        return tf_keras.activations.linear
    return activation


def copy_weights(model: Any, plain: Any, values: Mapping[Any, Any]) -> None:
    """Copies all weights of a model of TFMOT into its stripped copy.

    `values` are arrays by `variable.ref()` that stand for its variables.
    """

    def value(variable: Any) -> np.ndarray:
        found = values.get(variable.ref())
        return variable.numpy() if found is None else found

    for source, target in zip(model.layers, plain.layers, strict=True):
        if is_input_quantizer(source):
            continue
        named: dict[str, Any] = {}
        if isinstance(source, tfmot.QuantizeWrapper):
            named = {
                weight_name(w): w for w, _, _ in private.weight_vars(source)
            }
            source = source.layer
        if not named:
            target.set_weights([value(v) for v in source.weights])
            continue
        # Once called, a layer holds tensors in place of quantized weights.
        named = {weight_name(w): w for w in source.weights} | named
        target.set_weights(
            [value(named[weight_name(w)]) for w in target.weights]
        )

"""quantize_model: one call for a whole model, also where TFMOT refuses it."""

from __future__ import annotations

from typing import Any

from msq_tf.tfmot.compat import private
from msq_tf.tfmot.compat.imports import tf_keras
from msq_tf.tfmot.compat.imports import tfmot
from msq_tf.tfmot.flatten import flatten_model
from msq_tf.tfmot.layers import is_operation
from msq_tf.tfmot.own_training import check_no_methods
from msq_tf.tfmot.own_training import with_methods_of
from msq_tf.tfmot.scheme import MSQQuantizeScheme
from msq_tf.tfmot.strip import OTHER_FLOATS
from msq_tf.tfmot.strip import check_model


def annotate_model(model: Any) -> Any:
    """Annotates a model as `quantize_annotate_model`, for more models.

    `flatten_model` flattens models inside the model. TFMOT annotates operations
    that are no layers (`x + 1`, `tf.nn.relu6(x)`) and then cannot rebuild them.
    Here these and `Lambda` layers stay as they are, and the export calibrates
    their ranges.

    Args:
        model: A Functional or Sequential model of tf_keras.

    Returns:
        A copy with annotated layers, for `quantize_apply`. Layers that were
        annotated already keep their `QuantizeConfig`.

    Raises:
        ValueError: If the model, or one inside, is of another kind, or if its
            class has its own training methods, which only `quantize_model`
            keeps.
    """
    check_model(model)
    check_no_methods(model)
    return _annotated(model)


def _annotated(model: Any) -> Any:
    check_model(model)
    if not model.built:
        raise ValueError(
            "The model has no weights yet. Expected one that knows its inputs: "
            "begin with `tf_keras.layers.Input`, or call `build`. Received: "
            f"model '{model.name}'"
        )
    wrapped = [
        layer.name
        for layer in model.layers
        if isinstance(layer, tfmot.QuantizeWrapper)
    ]
    if wrapped:
        raise ValueError(
            "The model is quantized already. Expected a float model, such as "
            "`msq.strip_quantization(model)` returns. Received: model "
            f"'{model.name}' with {', '.join(map(repr, wrapped[:3]))}"
        )

    def annotated(layer: Any) -> Any:
        if is_operation(layer) or isinstance(layer, _ANNOTATE):
            return layer
        return tfmot.quantize_annotate_layer(layer)

    with tfmot.quantize_scope():
        if any(isinstance(layer, tf_keras.Model) for layer in model.layers):
            model = flatten_model(model)
        copy = tf_keras.models.clone_model(model, clone_function=annotated)
        copy.set_weights(model.get_weights())
    return copy


# Not public in TFMOT.
_ANNOTATE = type(tfmot.quantize_annotate_layer(tf_keras.layers.ReLU()))


def quantize_model(model: Any, scheme: MSQQuantizeScheme | None = None) -> Any:
    """Quantizes a model as TFMOT's `quantize_model`, its weights by MSQ.

    Args:
        model: A Functional or Sequential model of tf_keras, which may hold
            other such models. Not changed.
        scheme: How to quantize. Defaults to `MSQQuantizeScheme()`.

    Returns:
        A tf_keras model to compile and fit with `MSQCallback`. If the class of
        `model` has its own `train_step`, `compute_loss` or the like, the result
        is of that class.

    Raises:
        ValueError: As in `annotate_model`; if `scheme` is no scheme; if the
            class has its own training methods and takes other arguments than
            inputs and outputs.

    Example:
    ```python
    qat_model = msq.quantize_model(model)
    qat_model.compile("adam", "sparse_categorical_crossentropy")
    rule = msq_tf.BudgetRule(target_compression=8.0)
    qat_model.fit(x, y, callbacks=[msq.MSQCallback(rule, data=(x, y))])
    ```
    """
    if isinstance(scheme, type) or not (
        scheme is None or hasattr(scheme, "get_layout_transformer")
    ):
        raise ValueError(
            "`scheme` is none of TFMOT. Expected an object such as "
            f"`MSQQuantizeScheme(start_bits=8)`. Received: scheme={scheme!r}"
        )
    scheme = scheme or MSQQuantizeScheme()
    annotated = _annotated(model)
    if getattr(scheme, "activation_bits", None) is not None:
        _check_floats(model)
    with tfmot.quantize_scope():
        quantized = tfmot.quantize_apply(annotated, scheme=scheme)
    return with_methods_of(model, quantized)


def _check_floats(model: Any) -> None:
    """Raises a ValueError if TFMOT would keep ranges in another float type."""
    for layer in private.inner_layers(model):
        if layer.weights and layer.variable_dtype in OTHER_FLOATS:
            raise ValueError(
                "TFMOT's ranges of activations are float32, and those of the "
                f"layer '{layer.name}' would not be. Expected a dtype policy "
                "with float32 variables, such as 'float32' or 'mixed_float16', "
                "or MSQQuantizeScheme(activation_bits=None). Received: dtype "
                f"policy '{layer.dtype_policy.name}'"
            )

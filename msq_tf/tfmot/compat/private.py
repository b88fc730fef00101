"""Members of tf_keras and TFMOT that are not public, by other names.

`tests/tfmot/test_private_api.py` lists them, and holds them to this folder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from tf_keras.src.mixed_precision import autocast_variable


def all_layers(model: Any) -> list[Any]:
    """A model and all layers in it, however deep."""
    return list(model._flatten_layers())


def inner_layers(model: Any) -> list[Any]:
    """All layers in a model or layer, however deep."""
    return list(model._flatten_layers(include_self=False))


def direct_layers(model: Any) -> list[Any]:
    """The layers that a model or layer holds itself."""
    return list(model._flatten_layers(recursive=False, include_self=False))


def own_weights(layer: Any) -> list[Any]:
    """The variables of a layer, without those of layers in it."""
    return layer._trainable_weights + layer._non_trainable_weights


def input_layers(model: Any) -> list[Any]:
    """The layers that stand for the inputs of a functional model."""
    return list(model._input_layers)


def is_functional(model: Any) -> bool:
    """Whether a model is a graph of layers."""
    return bool(getattr(model, "_is_graph_network", False))


def nodes_by_depth(model: Any) -> Mapping[int, Sequence[Any]]:
    """The calls of layers in a functional model, the last ones at 0."""
    return model._nodes_by_depth


def takes_training(layer: Any) -> bool:
    """Whether the call of a layer has the argument `training`."""
    return bool(layer._expects_training_arg)


def set_policy(layer: Any, policy: Any) -> None:
    """Gives a layer another policy, as its constructor does."""
    layer._set_dtype_policy(policy)


def without_autocast() -> contextlib.AbstractContextManager[None]:
    """While open, variables are read in the type that they have."""
    return autocast_variable.enable_auto_cast_variables(None)


def loss_weights(container: Any) -> Any:
    """The `loss_weights` that `compile` was given."""
    return container._user_loss_weights


def weight_vars(wrapper: Any) -> list[tuple[Any, Any, Any]]:
    """Variable, quantizer and its variables of each weight of a wrapper."""
    return list(wrapper._weight_vars)


def set_weight_vars(wrapper: Any, entries: list[Any]) -> None:
    """Sets what `weight_vars` gives."""
    wrapper._weight_vars = entries


def quantized_activations(wrapper: Any) -> list[Any]:
    """The activation functions of a wrapper's layer, with quantizers."""
    return list(wrapper._quantize_activations)


def activation_vars(activation: Any) -> list[Any]:
    """The variables of the quantizer before and behind an activation."""
    names = ("_pre_activation_vars", "_post_activation_vars")
    return [getattr(activation, name, None) for name in names]


def output_quantizers(wrapper: Any) -> list[Any]:
    """The quantizers of a wrapper's outputs."""
    return list(wrapper._output_quantizers)


def output_quantizer_vars(wrapper: Any) -> Any:
    """Their variables; `None` where there are none."""
    return getattr(wrapper, "_output_quantizer_vars", None)


def compile_arguments(model: Any) -> dict[str, Any]:
    """The arguments that a model was compiled with, but for its optimizer."""
    given = dict(model._compile_config.config)
    given.pop("optimizer", None)
    return given


def make_slots(optimizer: Any, variables: Sequence[Any]) -> None:
    """Makes the variables of an optimizer, if it has none yet."""
    if hasattr(optimizer, "build"):
        optimizer.build(variables)
    elif hasattr(optimizer, "_create_all_weights"):
        # A legacy one.
        optimizer._create_all_weights(variables)

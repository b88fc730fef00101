"""quantize_model: prepares a Keras model for MSQ training."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from typing import Any

import keras

from msq_tf.core.config import MSQConfig
from msq_tf.keras3 import columns
from msq_tf.keras3.activation_grid import begin_with
from msq_tf.keras3.activation_grid import given_ranges
from msq_tf.keras3.activation_sites import find_sites
from msq_tf.keras3.activations import ActivationPlan
from msq_tf.keras3.biases import find_biases
from msq_tf.keras3.discovery import walk
from msq_tf.keras3.flow import input_signature
from msq_tf.keras3.flow import trace
from msq_tf.keras3.model import MSQModel
from msq_tf.keras3.overlay import all_layers
from msq_tf.keras3.own_training import own_methods
from msq_tf.keras3.planning import Filters
from msq_tf.keras3.planning import check_filters
from msq_tf.keras3.planning import make_plan
from msq_tf.keras3.target_checks import check_model
from msq_tf.keras3.unread import REASON
from msq_tf.keras3.unread import unread_variables
from msq_tf.rules import target_limits


def quantize_model(
    model: keras.Model,
    config: MSQConfig | None = None,
    *,
    filters: Filters | None = None,
    example_inputs: Any = None,
) -> MSQModel:
    """Prepares a Keras model for MSQ training.

    The model is wrapped, not copied: the result trains the variables of `model`
    themselves. It has no other trainable variables, unless the configuration
    asks for learned scales or ranges. Quantized activations of a model of an
    integer file (`from_tflite`) begin with the ranges of that file. If `model`
    was compiled, it loses its optimizer; `model.evaluate` still works.

    Args:
        model: Any built Keras 3 model: Sequential, Functional, subclassed,
            nested, with shared or frozen layers.
        config: An `MSQConfig`. Defaults to `MSQConfig()`.
        filters: Which layers to quantize, as in `keras.Model.quantize`: a
            regular expression to search for in a weight's path, a list of them,
            or a function of the layer. Defaults to all. If MSQ does not know a
            layer's class, it quantizes a weight of the layer if an expression
            spells the weight's attribute, as in `"glu/gate$"`.
        example_inputs: A batch of inputs. Only subclassed models need it: to
            quantize activations, and to find weights that inference never
            reads.

    Returns:
        An `MSQModel`. `print(msq_tf.precision_report(qmodel))` shows which
        weights are quantized, which are not, and why.

    Raises:
        ValueError: If the model is unbuilt or already quantized, has weights
            that are not finite, no weights to quantize, or layers that can't
            run on one of the configuration's `targets`; if an argument is of
            the wrong kind.

    Example:
    ```python
    qmodel = msq_tf.quantize_model(model, msq_tf.MSQConfig(min_bits=2))
    qmodel.compile("adam", "sparse_categorical_crossentropy")
    ```
    """
    _check_float(model)
    check_filters(filters)
    if config is None:
        config = MSQConfig()
    if not isinstance(config, MSQConfig):
        raise ValueError(
            "`config` must be an MSQConfig, such as "
            "`msq_tf.MSQConfig(activation_bits=8)`, or None. Received: "
            f"config={config!r}"
        )
    check_model(model, config.targets)
    for lacking in target_limits.not_installed(config.targets):
        warnings.warn(
            f"An export on this machine would fail: {lacking}",
            UserWarning,
            stacklevel=2,
        )
    unread = unread_variables(model, example_inputs)
    plan = make_plan(model, config, filters, unread)
    _warn_of(
        entry.path
        for entry in plan
        # Those without channels would have stayed in float in any case.
        if entry.skip_reason == REASON and entry.channel_axes
    )
    activations = None
    ranges: dict[int, tuple[float, float]] = {}
    if config.activation_bits is not None:
        activations, ranges = _plan_activations(
            model, config, config.activation_bits, example_inputs
        )
    made = MSQModel(model, plan, config.quantizer, activations, config.scale)
    if made.activation_quantizers is not None:
        begin_with(made.activation_quantizers, ranges)
    return made


def _check_float(model: Any) -> None:
    """Raises a ValueError unless all of a model is built, and in float."""
    if isinstance(model, MSQModel):
        raise ValueError(
            "The model is quantized already. Expected a float Keras model. "
            f"Received: an MSQModel, '{model.name}'"
        )
    if isinstance(model, (str, os.PathLike)):
        raise ValueError(
            "`quantize_model` takes a Keras 3 model and no path. Expected what "
            f"`keras.models.load_model` returns. Received: model={model!r}"
        )
    if not isinstance(model, keras.layers.Layer):
        raise ValueError(
            "`quantize_model` takes a Keras 3 model. A tf_keras model goes "
            "through the TF Model Optimization API instead. Received: "
            f"model={model!r}"
        )
    if not isinstance(model, keras.Model):
        raise ValueError(
            "`quantize_model` takes a whole model, and this is a layer. "
            "Expected a keras.Model, such as `keras.Sequential([keras.Input("
            f"shape), layer])`. Received: the {type(model).__name__} layer "
            f"'{model.name}'"
        )
    if not _is_built(model):
        raise ValueError(
            "The model is unbuilt: its weights do not exist yet. Expected a "
            "built model; call it on a batch or call `model.build(shape)` "
            f"first. Received: model '{model.name}'"
        )
    if not model.variables:
        raise ValueError(
            "The model has no weights, and so nothing to quantize. Expected "
            "at least one layer with a kernel, such as Dense, whose weights "
            f"exist. Received: model '{model.name}'"
        )
    for path, layer in walk(model):
        if isinstance(layer, MSQModel):
            raise ValueError(
                "A part of the model is quantized already. Expected a float "
                f"Keras model. Received: '{path}' inside it"
            )


def _plan_activations(
    model: keras.Model, config: MSQConfig, bits: int, example_inputs: Any
) -> tuple[ActivationPlan, dict[int, tuple[float, float]]]:
    """Finds the tensors that an integer runtime stores, and known ranges.

    Warns, as of the caller of `quantize_model`, of inputs whose columns a
    device of the configuration's `targets` loses.
    """
    found = trace(model, input_signature(model, example_inputs))
    sites = find_sites(found, bits)
    for position, tensor in enumerate(found.inputs):
        columns.warn_of_devices(
            columns.narrow(tensor, found, bits),
            position,
            bits,
            config.targets,
            stacklevel=3,
        )
    biases = find_biases(found, sites)
    plan = ActivationPlan(sites, bits, config.ranges, biases)
    return plan, given_ranges(found, sites)


def _is_built(model: Any) -> bool:
    """Whether all weights exist, also of a model that is never called.

    Models whose `train_step` calls their parts may have no `call` at all, and
    Keras never counts them as built.
    """
    parts = all_layers(model)[1:]
    return model.built or bool(
        own_methods(model) and parts and all(part.built for part in parts)
    )


def _warn_of(paths: Iterable[str]) -> None:
    unread = list(paths)
    if unread:
        warnings.warn(
            "Inference never reads some weights of the model: no exported "
            "file holds them, and no size counts them. Received: "
            f"{', '.join(unread)}",
            UserWarning,
            stacklevel=3,
        )

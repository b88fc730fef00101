"""remove_channels: a smaller model that computes the same."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from msq_tf.core.config import PerChannel
from msq_tf.core.model_weight import ModelWeight
from msq_tf.core.quantized_weight import QuantizedWeight
from msq_tf.core.search_state import PER_WEIGHT
from msq_tf.core.search_state import SHARED
from msq_tf.core.weight_plan import WeightPlan
from msq_tf.keras3.channel_flow import is_graph
from msq_tf.keras3.channel_layers import SIZES
from msq_tf.keras3.channels import ByPath
from msq_tf.keras3.channels import Channels
from msq_tf.keras3.channels import check_model
from msq_tf.keras3.discovery import walk
from msq_tf.keras3.model import MSQModel
from msq_tf.keras3.overlay import all_layers
from msq_tf.keras3.overlay import input_name
from msq_tf.keras3.overlay import symbolic_inputs
from msq_tf.keras3.planning import match_plan


def remove_channels(qmodel: MSQModel, channels: ByPath) -> MSQModel:
    """Builds a smaller model without some of the channels.

    A channel goes with the weights that compute it, its bias and batch norm,
    and the weights by which other layers read it. All remaining weights keep
    the codes, steps and bits that they have with these weights at 0. So the
    result computes what the model computes with these weights at 0, except for
    rounding in float32. Scales do not depend on removed weights.

    The result keeps the search's bits, history and costs, and the ranges of
    activations; `average_bits` and `compression` count the remaining weights.
    It shares no variable with `qmodel`, is not compiled and has no teacher.
    Compile and train it to win back accuracy. If you train under a strategy,
    call this function in its scope.

    Args:
        qmodel: Made by `quantize_model` of a Functional or Sequential model.
        channels: Maps paths of weights, as in `channel_groups`, to the output
            channels to remove, from 0. Channels that are tied to these go, too.

    Returns:
        An `MSQModel` to train, save and export like any other.

    Raises:
        ValueError: If a channel is unknown or has to stay, no channel would be
            left, or the model can't be built anew from its configuration.

    Example:
    ```python
    smaller = msq_tf.remove_channels(qmodel, {"conv1": [0, 5, 9]})
    ```
    """
    check_model("remove_channels", qmodel)
    own = Channels(qmodel)
    gone = own.chosen(channels)
    wanted = [
        _cut(weight, own.places(gone, kernel))
        for weight, kernel in zip(
            qmodel.masked_weights(own.masks(gone, qmodel.kernels)),
            qmodel.kernels,
            strict=True,
        )
    ]
    base = _without(qmodel.base, own, gone)
    found = match_plan(qmodel.base, qmodel.plan)
    plan = [
        _shrunk(weight, own.places(gone, weight.variable)) for weight in found
    ]
    if len(base.variables) != len(qmodel.base.variables):
        raise ValueError(
            "The base model cannot be built anew: layers share variables, "
            "which a copy would not. Expected "
            f"{len(qmodel.base.variables)} variables. Received: "
            f"{len(base.variables)}"
        )
    smaller = MSQModel(
        base,
        plan,
        quantizer=qmodel.quantizer,
        activations=qmodel.activations,
        scale=qmodel.scale,
        name=qmodel.name,
    )
    _take_over(qmodel, smaller)
    _take_scales(qmodel, smaller, own, gone)
    _check(wanted, smaller.quantized_weights())
    return smaller


def _cut(
    weight: QuantizedWeight, places: dict[int, np.ndarray]
) -> QuantizedWeight:
    """The record of a weight without some places of its axes."""
    codes, step = weight.codes, weight.step
    for axis, kept in places.items():
        codes = np.compress(kept, codes, axis)
        step = _along(step, axis, kept)
    return dataclasses.replace(weight, codes=codes, step=step)


def _along(scales: np.ndarray, axis: int, kept: np.ndarray) -> np.ndarray:
    """Scales of what is left; an axis may share one."""
    if scales.ndim > axis and scales.shape[axis] == len(kept):
        return np.compress(kept, scales, axis)
    return scales


def _without(base: Any, own: Channels, gone: set[int]) -> Any:
    """A copy of a model without channels."""
    flow = own.flow
    copies: dict[int, Any] = {}

    def copy(layer: Any) -> Any:
        if id(layer) not in copies:
            copies[id(layer)] = (
                copy_of_graph(layer) if is_graph(layer) else copy_of(layer)
            )
        return copies[id(layer)]

    def copy_of_graph(model: Any) -> Any:
        specs = model.inputs
        ids = flow.opened.get(id(model), [np.zeros(0)] * len(specs))
        inputs = [
            keras.Input(
                batch_shape=(
                    (*x.shape[:-1], int(own.kept(gone, own_ids).sum()))
                    if len(own_ids)
                    else x.shape
                ),
                dtype=x.dtype,
                sparse=x.sparse,
                name=input_name(x),
            )
            for x, own_ids in zip(specs, ids, strict=True)
        ]
        return keras.models.clone_model(
            model,
            input_tensors=keras.tree.pack_sequence_as(
                symbolic_inputs(model), inputs
            ),
            clone_function=copy,
        )

    def copy_of(layer: Any) -> Any:
        config = layer.get_config()
        if id(layer) in flow.made:
            kept = own.kept(gone, flow.made[id(layer)])
            config[SIZES[type(layer)]] = int(kept.sum())
        ids = flow.reshaped.get(id(layer))
        if isinstance(layer, keras.layers.Reshape) and ids is not None:
            *before, last = layer.target_shape
            kept = own.kept(gone, ids)
            config["target_shape"] = (
                *before,
                last if last < 0 else int(kept.sum()),
            )
        return type(layer).from_config(config)

    try:
        with _uncompiled(base):
            result = copy(base)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(
            "The base model cannot be built anew with fewer channels. Expected "
            "layers with a complete `get_config` and `from_config`. Received: "
            f"'{base.name}', {error}"
        ) from error
    if result.dtype_policy.name != base.dtype_policy.name:
        result.dtype_policy = base.dtype_policy
    _check_order(base, result, copies)
    for layer in all_layers(base):
        if id(layer) in copies and not is_graph(layer):
            _copy_variables(layer, copies[id(layer)], own, gone)
    return result


@contextlib.contextmanager
def _uncompiled(base: Any) -> Iterator[None]:
    """While open, no part of a model has a loss that a copy would take over."""
    models = [x for x in all_layers(base) if getattr(x, "compiled", False)]
    for model in models:
        model.compiled = False
    try:
        yield
    finally:
        for model in models:
            model.compiled = True


def _check_order(base: Any, copy: Any, copies: dict[int, Any]) -> None:
    """Raises a ValueError unless a copy has its layers in the same places.

    Plans and quantization points count them.
    """
    old, new = list(walk(base)), list(walk(copy))
    # What is inside of a layer may have another name in a copy.
    if len(old) != len(new) or any(
        copies.get(id(layer), other) is not other
        or type(layer) is not type(other)
        for (_, layer), (_, other) in zip(old, new, strict=True)
    ):
        raise ValueError(
            "Keras builds the model anew with its layers in another order. "
            f"Expected {[path for path, _ in old]}. Received: "
            f"{[path for path, _ in new]}"
        )


def _copy_variables(
    layer: Any, copy: Any, own: Channels, gone: set[int]
) -> None:
    for old, new in zip(layer.variables, copy.variables, strict=True):
        value = np.asarray(old)
        for axis, kept in own.places(gone, old).items():
            value = np.compress(kept, value, axis)
        new.assign(value)


def _shrunk(weight: ModelWeight, places: dict[int, np.ndarray]) -> WeightPlan:
    """The plan of a weight of which channels go; its scales count as before."""
    entry = weight.plan
    if all(kept.all() for kept in places.values()):
        return entry
    shape = weight.variable.shape
    shared = int(np.prod(shape))
    if entry.granularity == PerChannel():
        shared //= weight.channels
    return dataclasses.replace(
        entry, scale_count=max(entry.scale_count, shared)
    )


def _take_over(qmodel: MSQModel, smaller: MSQModel) -> None:
    """Gives a model the search and the ranges of another one."""
    for name in (*PER_WEIGHT, *SHARED):
        value = getattr(qmodel.search, name).numpy()
        getattr(smaller.search, name).assign(value)
    smaller.search.reasons.load(qmodel.search.reasons.to_array())
    old, new = qmodel.activation_quantizers, smaller.activation_quantizers
    if old is not None and new is not None:
        for one, other in zip(old.variables, new.variables, strict=True):
            other.assign(one)
    ranges: dict[str, Any] = {}
    qmodel.input_ranges.save_own_variables(ranges)
    smaller.input_ranges.load_own_variables(ranges)


def _take_scales(
    qmodel: MSQModel, smaller: MSQModel, own: Channels, gone: set[int]
) -> None:
    def cut(scales: Sequence[Any]) -> list[np.ndarray]:
        values = []
        for kernel, one in zip(qmodel.kernels, scales, strict=True):
            value = np.asarray(one)
            for axis, kept in own.places(gone, kernel).items():
                value = _along(value, axis, kept)
            values.append(value)
        return values

    old, new = qmodel.learned_scales, smaller.learned_scales
    if old is not None and new is not None:
        for value, other in zip(cut(old.scale), new.scale, strict=True):
            other.assign(value)
    was, now = qmodel.held_scales, smaller.held_scales
    if was is not None and now is not None:
        scales = np.split(was.scales().numpy(), np.cumsum(was.counts())[:-1])
        shaped = [
            scale.reshape(like.shape)
            for scale, like in zip(scales, qmodel.scales(), strict=True)
        ]
        joined = np.concatenate([np.ravel(value) for value in cut(shaped)])
        now.assign(joined, was.widths().numpy())


def _check(
    wanted: Sequence[QuantizedWeight], found: Sequence[QuantizedWeight]
) -> None:
    """Raises a ValueError unless codes and steps are those that were trained.

    Channels of zeros have the mean scale of the others, which may differ in
    its last bit; they have no other code at any scale.
    """
    for one, other in zip(wanted, found, strict=True):
        same = one.codes.shape == other.codes.shape and np.array_equal(
            one.codes, other.codes
        )
        if same and not np.array_equal(one.step, other.step):
            axes = tuple(i for i, n in enumerate(one.step.shape) if n == 1)
            live = np.any(one.codes != 0, axis=axes, keepdims=True)
            same = np.array_equal(one.step[live], other.step[live])
        if not same:
            raise ValueError(
                "The smaller model has other codes than the one it is made of. "
                f"Expected those of '{one.path}' without the removed channels. "
                f"Received: shape {other.codes.shape}"
            )

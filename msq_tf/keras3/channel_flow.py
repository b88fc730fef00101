"""The axes of variables through which the channels of a network run.

This module walks through the graph of a Functional or Sequential model, with
the numbers of channels in place of tensors. For every known layer class,
`channel_layers` says what the layer does to them. Any other layer counts as
reading all of its inputs, so that none of them can go.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np

from msq_tf.core.channel_ids import ChannelIds
from msq_tf.keras3 import channel_layers
from msq_tf.keras3.channel_layers import Flow
from msq_tf.keras3.overlay import all_layers
from msq_tf.keras3.overlay import run_graph
from msq_tf.keras3.overlay import symbolic_inputs


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelAxis:
    """An axis of a variable, and the channel of each place on it.

    Attributes:
        layer: The layer of the variable.
        variable: The variable.
        axis: The axis, non-negative.
        ids: Numbers of channels, int64 of the axis's length.
        makes: Whether the layer makes these channels; otherwise it reads them
            or goes with them.
    """

    layer: Any
    variable: Any
    axis: int
    ids: np.ndarray
    makes: bool


class ChannelFlow:
    """The channels of a model.

    Args:
        base: A Functional or Sequential Keras model; other models may be in
            it.

    Attributes:
        ids: The numbers of the channels.
        axes: By the `id` of a variable and the axis, in the order of the run.
        made: Channels that a layer makes, by the `id` of the layer.
        reshaped: Channels behind a `Reshape`, by its `id`.
        opened: Channels of the inputs of each model, by its `id`.
        tensors: The channels of every tensor of the graph.

    Raises:
        ValueError: If the model is of another kind.
    """

    def __init__(self, base: Any):
        check_kind(base)
        self.ids = ChannelIds()
        self.axes: dict[tuple[int, int], ChannelAxis] = {}
        self.made: dict[int, np.ndarray] = {}
        self.reshaped: dict[int, np.ndarray] = {}
        self.opened: dict[int, list[np.ndarray]] = {}
        self.tensors: list[np.ndarray] = []
        self._closed: list[Any] = []
        inputs = [
            self._pinned(x, "is an input of the model") for x in base.inputs
        ]
        for flow in self._model(base, inputs):
            self.ids.pin(flow.ids, "is an output of the model")
        # Models that are called in a way of their own stay as they are.
        inside = {id(x) for model in self._closed for x in all_layers(model)}
        for axis in self.axes.values():
            if id(axis.layer) in inside:
                self.ids.pin(axis.ids, f"is of '{axis.layer.name}'")

    def lay(
        self, layer: Any, variable: Any, axis: int, ids: np.ndarray
    ) -> None:
        """Says which channels an axis of a variable belongs to.

        Those of another call of the same layer are then the same channels.
        """
        axis %= len(variable.shape)
        known = self.axes.setdefault(
            (id(variable), axis), ChannelAxis(layer, variable, axis, ids, False)
        )
        if known.ids is not ids:
            self.ids.tie(known.ids, ids)

    def make(self, layer: Any, variable: Any, axis: int) -> np.ndarray:
        """The channels that a layer makes, the same at each of its calls."""
        axis %= len(variable.shape)
        if id(layer) not in self.made:
            ids = self.ids.new(variable.shape[axis])
            self.made[id(layer)] = ids
            self.axes[id(variable), axis] = ChannelAxis(
                layer, variable, axis, ids, True
            )
        return self.made[id(layer)]

    def reshape(self, layer: Any, ids: np.ndarray) -> np.ndarray:
        """Notes the channels behind a `Reshape`."""
        known = self.reshaped.setdefault(id(layer), ids)
        self.ids.tie(known, ids)
        return ids

    def _pinned(self, spec: Any, reason: str) -> Flow:
        size = spec.shape[-1] if len(spec.shape) > 1 else None
        return self._seen(Flow(spec, self.ids.new(size or 0, reason)))

    def _seen(self, flow: Flow) -> Flow:
        self.tensors.append(flow.ids)
        return flow

    def _model(self, model: Any, inputs: list[Flow]) -> list[Flow]:
        known = self.opened.setdefault(id(model), [x.ids for x in inputs])
        for ids, flow in zip(known, inputs, strict=True):
            self.ids.tie(ids, flow.ids)
        if not isinstance(model, keras.Sequential):
            return run_graph(model, inputs, self._call)
        flows = inputs
        for layer in model.layers:
            flows = keras.tree.flatten(self._call(layer, *flows))
        return flows

    def _call(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        given = keras.tree.flatten((args, kwargs))
        flows = [x for x in given if isinstance(x, Flow)]
        if _is_open(layer, flows):
            return self._model(layer, flows)
        if is_graph(layer):
            self._closed.append(layer)
        args, kwargs = keras.tree.map_structure(
            lambda x: x.spec if isinstance(x, Flow) else x, (args, kwargs)
        )
        specs = keras.tree.flatten(layer.compute_output_spec(*args, **kwargs))
        ids = None
        if len(specs) == 1 and flows:
            ids = channel_layers.follow(self, layer, flows, given, specs[0])
        if ids is not None:
            return self._seen(Flow(specs[0], ids))
        kind = type(layer).__name__
        reason = f"is read by {kind} '{layer.name}', which needs all channels"
        for flow in flows:
            self.ids.pin(flow.ids, reason)
        reason = f"is made by {kind} '{layer.name}', which is not taken apart"
        return [self._pinned(spec, reason) for spec in specs]


def check_kind(base: Any) -> None:
    """Raises a ValueError unless a model is a graph of layers."""
    for model in all_layers(base):
        own = isinstance(model, keras.Model) and (
            model is base or symbolic_inputs(model) is not None
        )
        if own and not is_graph(model):
            raise ValueError(
                "Channels can be removed from graphs of layers alone. Expected "
                "a Sequential model or `keras.Model(inputs, outputs)`, which "
                "can be built anew with fewer channels. Received: "
                f"{type(model).__name__} '{model.name}'"
            )


def is_graph(model: Any) -> bool:
    """Whether a layer is a Functional or Sequential model, and built."""
    return (
        isinstance(model, keras.Model)
        and type(model).__module__.startswith("keras.")
        and model.built
        and symbolic_inputs(model) is not None
    )


def _is_open(layer: Any, flows: list[Flow]) -> bool:
    """Whether a layer is a graph itself, called as it was made."""
    return (
        is_graph(layer)
        and len(layer.inputs) == len(flows)
        and all(
            len(x.shape) == len(flow.spec.shape)
            for x, flow in zip(layer.inputs, flows, strict=True)
        )
    )

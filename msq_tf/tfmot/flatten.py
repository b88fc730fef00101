"""Models inside of models, which TFMOT refuses, made into one flat graph."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from msq_tf.tfmot.compat import private
from msq_tf.tfmot.compat.imports import tf_keras
from msq_tf.tfmot.strip import check_model


def flatten_model(model: Any) -> Any:
    """Copies a Functional or Sequential model without models inside.

    `quantize_annotate_model` refuses nested models, such as a zoo backbone
    under a new head. The copy computes the same; a nested model that is called
    with `training=False` keeps that, and one that is frozen stays frozen.

    Args:
        model: A Functional or Sequential model of tf_keras.

    Returns:
        A Functional model with copies of all layers and weights. If two layers
        have one name, each gets the name of its model in front.

    Raises:
        ValueError: If `model`, or a model inside, is neither Functional nor
            Sequential.

    Example:
    ```python
    flat = msq.flatten_model(model_with_backbone)
    annotated = tfmot.quantization.keras.quantize_annotate_model(flat)
    ```
    """
    check_model(model)
    return _Flattener(model).run()


class _Flattener:
    """Copies layers, calls them as they were called, notes their weights."""

    def __init__(self, model: Any):
        self._model = model
        self._copies: dict[int, tuple[Any, Any]] = {}
        self._names: set[str] = set()

    def run(self) -> Any:
        model = self._model
        _check_graph(model)
        self._names.update(layer.name for layer in private.input_layers(model))
        inputs = [
            tf_keras.Input(
                tensor.shape[1:],
                tensor.shape[0],
                name=layer.name,
                dtype=tensor.dtype,
            )
            for tensor, layer in zip(
                model.inputs, private.input_layers(model), strict=True
            )
        ]
        outputs = self._inline(model, inputs, None, "")
        flat = tf_keras.Model(
            tf.nest.pack_sequence_as(model.input, inputs),
            tf.nest.pack_sequence_as(model.output, outputs),
            name=model.name,
        )
        for source, copy in self._copies.values():
            copy.set_weights(source.get_weights())
            copy.trainable = source.trainable
        return flat

    def _inline(
        self, model: Any, inputs: list[Any], training: Any, prefix: str
    ) -> list[Any]:
        """Calls copies of a model's layers; returns its flat outputs."""
        tensors = {
            id(old): new for old, new in zip(model.inputs, inputs, strict=True)
        }

        def new(value: Any) -> Any:
            return tensors.get(id(value), value)

        nodes = private.nodes_by_depth(model)
        for depth in sorted(nodes, reverse=True):
            for node in nodes[depth]:
                if node.is_input:
                    continue
                args, kwargs = tf.nest.map_structure(
                    new, (node.call_args, node.call_kwargs)
                )
                outputs = self._call(node.layer, args, kwargs, training, prefix)
                for old, made in zip(
                    tf.nest.flatten(node.outputs),
                    tf.nest.flatten(outputs),
                    strict=True,
                ):
                    tensors[id(old)] = made
        return [tensors[id(tensor)] for tensor in model.outputs]

    def _call(
        self, layer: Any, args: Any, kwargs: Any, training: Any, prefix: str
    ) -> Any:
        if kwargs.get("training") is None and training is not None:
            kwargs = {**kwargs, "training": training}
        if isinstance(layer, tf_keras.Model):
            _check_graph(layer)
            return self._inline(
                layer,
                tf.nest.flatten(args[0]),
                kwargs.get("training"),
                f"{layer.name}_",
            )
        if not private.takes_training(layer):
            kwargs.pop("training", None)
        return self._copy(layer, prefix)(*args, **kwargs)

    def _copy(self, layer: Any, prefix: str) -> Any:
        if id(layer) not in self._copies:
            config = layer.get_config()
            name = layer.name
            if name in self._names:
                name = prefix + name
            while name in self._names:
                name += "_"
            self._names.add(name)
            config["name"] = name
            self._copies[id(layer)] = layer, type(layer).from_config(config)
        return self._copies[id(layer)][1]


def _check_graph(model: Any) -> None:
    if not private.is_functional(model):
        raise ValueError(
            "Only the graph of a Functional or Sequential model is known. "
            f"Received: '{model.name}', {type(model).__name__}"
        )

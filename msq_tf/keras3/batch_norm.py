"""reestimate_batch_norm: statistics of the present network."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from msq_tf import distribute
from msq_tf.arguments import check_integer
from msq_tf.core.batches import Batch
from msq_tf.core.batches import first_batches
from msq_tf.core.batches import samples_in
from msq_tf.keras3.model import MSQModel
from msq_tf.keras3.overlay import all_layers

# Passes over the data, at most, where biases are rounded.
_PASSES = 3

# Of one call of a layer: positions that count, mean, variance.
_Call = tuple[float, np.ndarray, np.ndarray]


def reestimate_batch_norm(
    model: MSQModel, data: Any, batches: int = 50, batch_size: int = 128
) -> None:
    """Computes the statistics of batch normalization anew.

    Moving averages remember earlier networks, with other weights and bits. This
    function replaces them by the exact mean and variance over some batches of
    training data, at the present quantized weights. Each layer sees its inputs
    as in training, where the layers before it normalize by the batch; dropout
    and noise are off. Nothing else in the model changes. Call it after `fit`,
    before the export.

    Layers with `trainable=False` keep their statistics, as in training.

    Args:
        model: Made by `quantize_model`.
        data: Training data: inputs, or `(x, y)`, of arrays; or a
            `tf.data.Dataset` or `keras.utils.PyDataset` of batches as for
            `fit`, of which the first are used.
        batches: Largest number of batches.
        batch_size: Samples per batch of arrays.

    Raises:
        ValueError: If `model` is not of `quantize_model` or has no batch
            normalization, there are no samples, or a statistic is not finite.

    Example:
    ```python
    qmodel.fit(train, callbacks=[msq_tf.MSQCallback(rule)])
    msq_tf.reestimate_batch_norm(qmodel, train)
    ```
    """
    if not isinstance(model, MSQModel):
        raise ValueError(
            "`reestimate_batch_norm` takes a model from "
            f"`msq_tf.quantize_model`. Received: model={type(model).__name__}"
        )
    check_integer("batches", batches, 1)
    check_integer("batch_size", batch_size, 1)
    layers = [
        layer
        for layer in all_layers(model.base)
        if isinstance(layer, keras.layers.BatchNormalization)
        and layer.trainable
    ]
    if not layers:
        raise ValueError(
            "There are no statistics to compute. Expected a model with "
            "`BatchNormalization` layers that are trainable. Received: "
            f"'{model.name}'"
        )
    moments = _Moments(model, layers)
    size = model.fixed_batch_size or batch_size
    # A rounded bias follows the statistics of its layer, and shifts what the
    # layers behind it see.
    rounds = model.activations is not None and bool(model.activations.biases)
    for _ in range(_PASSES if rounds else 1):
        before = [variable.numpy() for variable, _ in moments.found]
        moments.find(first_batches(data, batches, size))
        for variable, value in moments.found:
            variable.assign(value)
        after = [variable.numpy() for variable, _ in moments.found]
        if before and all(map(np.array_equal, before, after)):
            break
    strategy = model.distribute_strategy
    if distribute.workers(strategy) > 1:
        distribute.align(strategy, [variable for variable, _ in moments.found])


class _Moments:
    """Means and variances of what layers of batch normalization get.

    Attributes:
        found: Variables and what they should be.
    """

    def __init__(self, model: MSQModel, layers: Sequence[Any]):
        self._model = model
        self._layers = layers
        self._values = model.quantized_values()
        self._places: list[int] = []
        self._run = tf.function(self._moments, autograph=False)
        self.found: list[tuple[Any, np.ndarray]] = []

    def find(self, batches: Iterable[Batch]) -> None:
        """Takes them over all batches.

        Raises:
            ValueError: If there is no batch, or one of them is not finite.
        """
        calls: list[list[_Call]] = [[] for _ in self._layers]
        samples = 0
        for batch in batches:
            samples = samples_in(batch)
            x, _, _ = self._model.statistics_batch(_tensors(batch))
            moments = self._run(self._values, x)
            for place, (count, mean, variance) in zip(
                self._places, moments, strict=True
            ):
                calls[place].append(
                    (float(count), mean.numpy(), variance.numpy())
                )
        if not samples:
            raise ValueError(
                "Statistics of batch normalization need data. Expected at "
                "least one batch. Received: no sample"
            )
        self.found = [
            pair
            for layer, own in zip(self._layers, calls, strict=True)
            for pair in _together(layer, own)
        ]

    def _moments(self, values: Sequence[tf.Tensor], x: Any) -> list[Any]:
        with _in_training(self._layers) as seen:
            self._model.outputs_at(values, x)
        here = tf.compat.v1.get_default_graph()
        if any(mean.graph is not here for _, _, mean, _ in seen):
            raise ValueError(
                "A layer of batch normalization runs in a loop of the graph, "
                "which hides its statistics. Expected one that is called "
                "outside of `TimeDistributed` and the like. Received: "
                f"'{self._model.name}'"
            )
        self._places = [place for place, *_ in seen]
        return [moments for _, *moments in seen]


def _tensors(batch: Any) -> Any:
    return tf.nest.map_structure(
        lambda part: None if part is None else tf.convert_to_tensor(part),
        batch,
    )


@contextlib.contextmanager
def _in_training(
    layers: Sequence[Any],
) -> Iterator[list[tuple[int, tf.Tensor, tf.Tensor, tf.Tensor]]]:
    """While open, layers normalize by the batch, the others infer.

    Gives a list of a layer's place, the number of positions that it
    normalizes, their mean and variance for each call. It has to be in a scope
    that keeps updates aside: with a momentum of zero they are the moments of
    the batch.
    """
    seen: list[tuple[int, tf.Tensor, tf.Tensor, tf.Tensor]] = []
    kept = [
        (layer, vars(layer).get("call"), layer.momentum) for layer in layers
    ]
    for place, layer in enumerate(layers):
        layer.momentum = 0.0
        layer.call = _recorded(layer, place, layer.call, seen)
    try:
        yield seen
    finally:
        for layer, call, momentum in kept:
            layer.momentum = momentum
            if call is None:
                del layer.call
            else:
                layer.call = call


def _recorded(
    layer: Any, place: int, call: Callable[..., Any], seen: list[Any]
) -> Callable[..., Any]:
    @functools.wraps(call)
    def recorded(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = call(inputs, *args, **{**kwargs, "training": True})
        mean, variance = (
            tf.convert_to_tensor(variable.value)
            for variable in (layer.moving_mean, layer.moving_variance)
        )
        mask = kwargs.get("mask", args[1] if len(args) > 1 else None)
        count = _positions(inputs, mask, layer.axis)
        seen.append((place, count, mean, variance))
        return outputs

    return recorded


def _positions(inputs: tf.Tensor, mask: Any, axis: int) -> tf.Tensor:
    """How many positions of a batch have a part in its moments.

    Batches differ in length, in size and in what a mask leaves of them.
    """
    if mask is not None:
        return tf.reduce_sum(tf.cast(mask, tf.float32))
    return tf.cast(tf.size(inputs) / inputs.shape[axis], tf.float32)


def _together(
    layer: Any, moments: Sequence[_Call]
) -> list[tuple[Any, np.ndarray]]:
    """The variables of a layer with the moments of all batches as one."""
    # A batch that is masked altogether has no moments.
    moments = [m for m in moments if m[0] > 0.0]
    if not moments:
        return []
    weights = np.array([m[0] for m in moments], np.float64)
    weights = (weights / weights.sum())[:, None]
    means = np.stack([m[1] for m in moments]).astype(np.float64)
    variances = np.stack([m[2] for m in moments]).astype(np.float64)
    mean = (weights * means).sum(0)
    variance = (weights * (variances + (means - mean) ** 2)).sum(0)
    if not (np.isfinite(mean).all() and np.isfinite(variance).all()):
        raise ValueError(
            "Statistics of batch normalization are not finite. Expected "
            "inputs and weights without NaN and infinity. Received: layer "
            f"'{layer.name}'"
        )
    found = [(layer.moving_mean, mean), (layer.moving_variance, variance)]
    if getattr(layer, "renorm", False):
        # Renormalization keeps them as it trains with them, too.
        deviation = np.sqrt(variance + layer.epsilon)
        found += [
            (layer.moving_stddev, deviation),
            (layer.renorm_mean, mean),
            (layer.renorm_stddev, deviation),
        ]
    return found

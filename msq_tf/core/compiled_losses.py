"""The losses with which a model of either Keras was compiled."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class CompiledLosses:
    """The losses that a model was compiled with.

    Attributes:
        loss: A loss, or a list or dict of losses, also nested, as the outputs
            of a model are; `None` for an output without. One loss is that of
            every output, and several in a list may be those of one.
        module: The `losses` module of the Keras that the model is of.
        weights: Loss weights, in the same structure; `None` for ones.
        output_names: Names of the outputs in their order, where a dict of
            losses belongs to a list of outputs.
        divergence: What `output_divergence` returns whatever the loss.
    """

    loss: Any
    module: Any
    weights: Any = None
    output_names: Sequence[str] | None = None
    divergence: Callable[[Any, Any], tf.Tensor] | None = None

    def by_output(self, outputs: Any) -> list[list[tuple[Any, float]]]:
        """Returns the losses of each output with their weights.

        Args:
            outputs: What the model computes: a tensor, or a list, tuple or
                dict of outputs.

        Returns:
            A list for each output as `tf.nest` flattens them, empty for one
            without a loss.
        """
        count = len(tf.nest.flatten(outputs))
        places = tf.nest.pack_sequence_as(outputs, range(count))
        named = isinstance(self.loss, dict) and not isinstance(outputs, dict)
        if named and self.output_names is not None:
            listed = isinstance(places, list | tuple)
            items = places if listed else [places]
            if len(items) == len(self.output_names):
                places = dict(zip(self.output_names, items, strict=True))
        found: list[list[tuple[Any, float]]] = [[] for _ in range(count)]
        for place, loss, weight in _pairs(places, self.loss, self.weights):
            if loss is not None:
                found[place].append((loss, weight))
        return found


def leaves(structure: Any) -> list[Any]:
    """The losses in what `compile` takes, `None` where there is none."""
    if isinstance(structure, dict):
        structure = [structure[key] for key in sorted(structure)]
    if isinstance(structure, list | tuple):
        return [leaf for part in structure for leaf in leaves(part)]
    return [structure]


def _pairs(
    places: Any, loss: Any, weight: Any
) -> Iterator[tuple[int, Any, float]]:
    """Places of outputs, the loss of each and its weight, as Keras finds them.

    Keras flattens dicts by their keys in order, as `tf.nest` does.
    """
    flat = tf.nest.flatten(places)
    if isinstance(loss, dict):
        for number, key in enumerate(sorted(loss)):
            if isinstance(places, dict) and key in places:
                part = _part(weight, key, number)
                yield from _pairs(places[key], loss[key], part)
        return
    if isinstance(loss, list | tuple):
        simple = all(len(leaves(one)) == 1 for one in loss)
        if simple and len(loss) == len(flat):
            where = flat
        elif isinstance(places, list | tuple):
            where = list(places)
        else:
            where = [places] * len(loss)
        for number, (place, one) in enumerate(zip(where, loss, strict=False)):
            yield from _pairs(place, one, _part(weight, number, number))
        return
    for number, place in enumerate(flat):
        part = _part(weight, number, number)
        yield place, loss, 1.0 if part is None else float(part)


def _part(weights: Any, key: Any, number: int) -> Any:
    """The weight, or the weights, of a part of the losses."""
    if isinstance(weights, dict):
        if key in weights:
            return weights[key]
        weights = [weights[name] for name in sorted(weights)]
    if isinstance(weights, list | tuple):
        return weights[number] if number < len(weights) else None
    return weights

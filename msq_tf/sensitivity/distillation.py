"""How far the outputs of a student are from those of its teacher.

The meaning of an output decides the distance. The compiled loss tells it, if it
is one of Keras's; without a loss, the layer of the output may tell it. All
distances have the unit of the losses that they join: a divergence of classes,
or a loss against the teacher's outputs. If neither is known, the distance is a
share of the variance of the teacher's outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from msq_tf.core.compiled_losses import CompiledLosses
from msq_tf.sensitivity.divergence import AS_IS
from msq_tf.sensitivity.divergence import BINARY
from msq_tf.sensitivity.divergence import CATEGORICAL
from msq_tf.sensitivity.divergence import EPSILON
from msq_tf.sensitivity.divergence import class_axis
from msq_tf.sensitivity.divergence import classes_last
from msq_tf.sensitivity.divergence import kl
from msq_tf.sensitivity.divergence import known
from msq_tf.sensitivity.divergence import log_both
from msq_tf.sensitivity.divergence import log_probabilities

AUTO = "auto"
PROBABILITIES = "probabilities"
LOGITS = "logits"
VALUES = "values"
# What outputs may be said to be.
MEANINGS = (AUTO, PROBABILITIES, LOGITS, VALUES)

# Share of the mean square that a variance counts as at least: outputs of a
# small batch may all be alike.
_LEAST_VARIANCE = 0.01

Function = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Measure:
    """How one output is compared.

    Attributes:
        name: What it is, in words.
        function: Of the teacher's and the student's output, in float32, that
            gives a number, or one for each position; their mean counts.
        weight: Weight of the loss of this output.
    """

    name: str
    function: Function
    weight: float = 1.0


def measures(
    compiled: CompiledLosses,
    outputs: Any,
    activations: Sequence[str],
    temperature: float,
    meaning: str = AUTO,
) -> list[Measure | None]:
    """Chooses how each output is compared.

    Args:
        compiled: The losses that the student was compiled with.
        outputs: What the student computes.
        activations: Name of the activation that each output comes from, as
            they are flattened; empty where that is not known.
        temperature: Of classes.
        meaning: One of `MEANINGS`, which decides in place of the losses.

    Returns:
        A measure an output; `None` for those that have no loss where others
        have one.
    """
    found: list[Measure | None] = []
    for losses, activation in zip(
        compiled.by_output(outputs), activations, strict=True
    ):
        if not losses and compiled.loss is not None:
            found.append(None)
            continue
        # Of several losses of one output the first says what it means.
        loss, weight = losses[0] if losses else (None, 1.0)
        measure = _said(meaning, activation, temperature)
        measure = measure or _by_loss(loss, compiled.module, temperature)
        measure = measure or _by_activation(activation, temperature)
        found.append(
            dataclasses.replace(
                measure or _values(),
                weight=weight,
            )
        )
    return found


def distance(
    chosen: Sequence[Measure | None], reference: Any, outputs: Any
) -> tf.Tensor:
    """The distance of outputs from a reference, a float32 scalar.

    Raises:
        ValueError: If the two are of different structures or shapes.
    """
    pairs = list(
        zip(tf.nest.flatten(reference), tf.nest.flatten(outputs), strict=False)
    )
    if _shapes(reference) != _shapes(outputs) or len(pairs) != len(chosen):
        raise ValueError(
            "The teacher's outputs are not like the model's. Expected as many, "
            f"of the shapes {_shapes(outputs)}. Received: {_shapes(reference)}"
        )
    total = tf.constant(0.0, tf.float32)
    for (a, b), measure in zip(pairs, chosen, strict=True):
        if measure is not None:
            a, b = tf.cast(a, tf.float32), tf.cast(b, tf.float32)
            apart = tf.reduce_mean(measure.function(a, b))
            total += measure.weight * tf.cast(apart, tf.float32)
    return total


def _shapes(outputs: Any) -> list[list[int | None]]:
    # Of the batch a trace may know the size on one side only.
    return [list(leaf.shape)[1:] for leaf in tf.nest.flatten(outputs)]


def _said(meaning: str, activation: str, temperature: float) -> Measure | None:
    if meaning == VALUES:
        return _values()
    if meaning == LOGITS:
        return _classes(True, temperature)
    if meaning == PROBABILITIES:
        both = activation == "sigmoid"
        return (_yes_or_no if both else _classes)(False, temperature)
    return None


def _by_loss(loss: Any, module: Any, temperature: float) -> Measure | None:
    loss, name, from_logits = known(loss, module)
    if name in CATEGORICAL:
        return _classes(from_logits, temperature, class_axis(loss))
    if name in BINARY:
        return _yes_or_no(from_logits, temperature)
    if name not in AS_IS:
        return None

    def own(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        value = tf.reduce_mean(tf.convert_to_tensor(loss(a, b)))
        if isinstance(loss, module.Loss):
            # It has divided by the replicas, over which Keras sums.
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            value *= tf.cast(replicas, value.dtype)
        return value

    # Of most of them the teacher's own outputs have none.
    return Measure(
        f"{name} to the teacher's outputs", lambda a, b: own(a, b) - own(a, a)
    )


def _by_activation(activation: str, temperature: float) -> Measure | None:
    if activation == "softmax":
        return _classes(False, temperature)
    if activation == "sigmoid":
        return _yes_or_no(False, temperature)
    return None


def _classes(from_logits: bool, temperature: float, axis: int = -1) -> Measure:
    def logs(outputs: tf.Tensor) -> tf.Tensor:
        return log_probabilities(classes_last(outputs, axis), from_logits)

    return _divergence("classes", logs, from_logits, temperature)


def _yes_or_no(from_logits: bool, temperature: float) -> Measure:
    def logs(outputs: tf.Tensor) -> tf.Tensor:
        return log_both(outputs, from_logits)

    return _divergence("yes and no", logs, from_logits, temperature)


def _divergence(
    of: str,
    logs: Callable[[tf.Tensor], tf.Tensor],
    from_logits: bool,
    temperature: float,
) -> Measure:
    def function(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        a, b = (tf.nn.log_softmax(logs(t) / temperature) for t in (a, b))
        return temperature**2 * kl(a, b)

    kind = "logits" if from_logits else "probabilities"
    return Measure(f"KL divergence of {of} ({kind})", function)


def _values() -> Measure:
    def function(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        square = tf.reduce_mean(a**2)
        size = tf.maximum(tf.math.reduce_variance(a), _LEAST_VARIANCE * square)
        return tf.reduce_mean((a - b) ** 2) / (size + EPSILON)

    return Measure("squared error over the teacher's variance", function)

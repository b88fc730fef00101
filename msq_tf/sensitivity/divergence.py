"""How far a model's outputs move, measured by its own loss.

The outputs of the unchanged model are the targets. The effect of a change is
the loss of the changed model against these targets, minus that of the unchanged
one.

    D = E[ loss(f(w), f(w + d)) - loss(f(w), f(w)) ]

For cross entropy D is the Kullback-Leibler divergence of the two predicted
distributions, for the squared error the mean squared distance of the outputs.
To second order D is `1/2 d' G d` with the Gauss-Newton matrix G (the Fisher
matrix, for cross entropy), layers' cross terms and the nonlinearity of large
`d` included. Unlike a difference of losses it has no first-order term, which
training undoes and which is mostly noise on a few samples; and it needs no
labels. `docs/sensitivity.md` has how it ranks layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from msq_tf.core.compiled_losses import CompiledLosses
from msq_tf.core.compiled_losses import leaves

Function = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

# Losses with a minimum at prediction = target, taken as they are. Names in
# snake case, of functions and of classes alike.
AS_IS = (
    "mean_squared_error",
    "mean_absolute_error",
    "mean_squared_logarithmic_error",
    "huber",
    "log_cosh",
    "cosine_similarity",
    "poisson",
)
CATEGORICAL = (
    "sparse_categorical_crossentropy",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "kl_divergence",
)
BINARY = ("binary_crossentropy", "binary_focal_crossentropy")
# Probabilities are kept off zero, as Keras's losses keep them.
EPSILON = 1e-7


def output_divergence(
    compiled: CompiledLosses,
) -> Callable[[Any, Any], tf.Tensor] | None:
    """The divergence that belongs to a compiled loss.

    Args:
        compiled: The losses of a model.

    Returns:
        A function of two structures of outputs, the reference first, that
        returns a float32 scalar, the mean over samples. `None` for a loss of
        the user, as its minimum is not known.
    """
    if compiled.divergence is not None:
        return compiled.divergence
    functions: dict[int, Function] = {}
    for part in leaves(compiled.loss):
        function = _divergence(part, compiled.module)
        if function is not None:
            functions[id(part)] = function
        elif part is not None:
            return None
    if not functions:
        return None

    def divergence(reference: Any, outputs: Any) -> tf.Tensor:
        pairs = zip(
            tf.nest.flatten(reference), tf.nest.flatten(outputs), strict=True
        )
        total = tf.constant(0.0, tf.float32)
        for (a, b), losses in zip(
            pairs, compiled.by_output(outputs), strict=True
        ):
            a, b = tf.cast(a, tf.float32), tf.cast(b, tf.float32)
            for loss, weight in losses:
                # A loss may compute in a type of its own.
                apart = tf.reduce_mean(functions[id(loss)](a, b))
                total += weight * tf.cast(apart, tf.float32)
        return total

    return divergence


def relative_distance(reference: Any, outputs: Any) -> tf.Tensor:
    """How far outputs moved when nothing is known of their meaning.

    The squared distance of each over its squared size, summed.
    """
    pairs = zip(
        tf.nest.flatten(reference), tf.nest.flatten(outputs), strict=True
    )
    total = tf.constant(0.0, tf.float32)
    for a, b in pairs:
        a, b = tf.cast(a, tf.float32), tf.cast(b, tf.float32)
        size = tf.reduce_mean(tf.stop_gradient(a) ** 2)
        total += tf.reduce_mean((a - b) ** 2) / (size + EPSILON)
    return total


def loss_names(compiled: CompiledLosses, count: int) -> list[tuple[str, bool]]:
    """The loss of each of `count` outputs, and whether the output is logits.

    Names are in snake case; empty where the output has no loss, or one of the
    user's own.
    """
    parts = _flat(compiled.loss)
    if isinstance(compiled.loss, dict) and compiled.output_names is not None:
        if set(compiled.output_names) == set(compiled.loss):
            parts = [compiled.loss[name] for name in compiled.output_names]
    if len(parts) == 1:
        parts = parts * count
    if len(parts) != count:
        return [("", False)] * count
    return [known(part, compiled.module)[1:] for part in parts]


def known(loss: Any, module: Any) -> tuple[Any, str, bool]:
    """The loss that `compile` takes for this, and what it is.

    Returns:
        The loss, its name in snake case, and whether the outputs are logits.
        The name is empty where it is none that Keras brings.
    """
    if loss is None:
        return None, "", False
    try:
        loss = module.get(loss)
    except ValueError:
        return None, "", False
    return loss, *_identity(loss, module)


def _flat(structure: Any) -> list[Any]:
    if isinstance(structure, dict):
        return [structure[key] for key in sorted(structure)]
    if isinstance(structure, list | tuple):
        return list(structure)
    return [structure]


def _divergence(loss: Any, module: Any) -> Function | None:
    loss, name, from_logits = known(loss, module)
    if name in CATEGORICAL:
        axis = class_axis(loss)
        return lambda a, b: kl(
            log_probabilities(classes_last(a, axis), from_logits),
            log_probabilities(classes_last(b, axis), from_logits),
        )
    if name in BINARY:
        return lambda a, b: kl(
            log_both(a, from_logits), log_both(b, from_logits)
        )
    if name in AS_IS:
        return lambda a, b: _values(loss, a, b) - _values(loss, a, a)
    return None


def _identity(loss: Any, module: Any) -> tuple[str, bool]:
    """Name in snake case, and whether the outputs are logits."""
    if not isinstance(loss, module.Loss):
        name = getattr(loss, "__name__", "")
        known = getattr(module, name, None) is loss
        return name if known else "", False
    kind = type(loss)
    if getattr(module, kind.__name__, None) is not kind:
        return "", False  # a user's subclass
    name = _SNAKE.get(kind.__name__, "")
    return name, bool(loss.get_config().get("from_logits", False))


def class_axis(loss: Any) -> int:
    """The axis on which a loss of Keras has its classes."""
    config = loss.get_config() if hasattr(loss, "get_config") else {}
    return int(config.get("axis", -1))


def classes_last(outputs: tf.Tensor, axis: int) -> tf.Tensor:
    """Outputs with the axis of their classes at the end."""
    rank = len(outputs.shape)
    order = [i for i in range(rank) if i != axis % rank]
    if axis % rank == rank - 1:
        return outputs
    return tf.transpose(outputs, [*order, axis % rank])


_SNAKE = {
    "SparseCategoricalCrossentropy": "sparse_categorical_crossentropy",
    "CategoricalCrossentropy": "categorical_crossentropy",
    "CategoricalFocalCrossentropy": "categorical_focal_crossentropy",
    "CategoricalHinge": "categorical_hinge",
    "KLDivergence": "kl_divergence",
    "BinaryCrossentropy": "binary_crossentropy",
    "BinaryFocalCrossentropy": "binary_focal_crossentropy",
    "MeanSquaredError": "mean_squared_error",
    "MeanAbsoluteError": "mean_absolute_error",
    "MeanSquaredLogarithmicError": "mean_squared_logarithmic_error",
    "Huber": "huber",
    "LogCosh": "log_cosh",
    "CosineSimilarity": "cosine_similarity",
    "Poisson": "poisson",
}


def _values(loss: Any, target: tf.Tensor, prediction: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.convert_to_tensor(loss(target, prediction)))


def kl(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """The divergence of logarithms of probabilities, over the last axis."""
    return tf.reduce_sum(tf.exp(a) * (a - b), axis=-1)


def log_probabilities(outputs: tf.Tensor, from_logits: bool) -> tf.Tensor:
    """Logarithms of the predicted probabilities."""
    if from_logits:
        return tf.nn.log_softmax(outputs)
    total = tf.reduce_sum(outputs, axis=-1, keepdims=True)
    share = tf.math.divide_no_nan(outputs, total)
    return tf.math.log(tf.clip_by_value(share, EPSILON, 1.0))


def log_both(outputs: tf.Tensor, from_logits: bool) -> tf.Tensor:
    """Logarithms of the probabilities of both classes, stacked last."""
    if from_logits:
        return tf.stack(
            [tf.math.log_sigmoid(outputs), tf.math.log_sigmoid(-outputs)], -1
        )
    p = tf.clip_by_value(outputs, EPSILON, 1.0 - EPSILON)
    return tf.stack([tf.math.log(p), tf.math.log1p(-p)], -1)

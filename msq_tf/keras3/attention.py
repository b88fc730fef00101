"""Attention in its parts.

A runtime holds integer tensors between the products of attention: the scores
that its softmax reads, the probabilities that it gives, and the context, their
product with the values. If it can, Keras computes all of this in one operation,
which hides the tensors in between. Here its layers compute it in their other
way, with a softmax layer.

A mask adds a number like -1e9 to scores, and no range has room for it. Far
below the largest score of a row, a softmax gives zero at any distance, so such
scores count as just far enough (`within_reach`). So the grid ends there, its
lowest code stands for all masked scores, and Keras computes with that number,
as the file does.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from msq_tf.core.scoped import scoped
from msq_tf.keras3.call_hooks import active
from msq_tf.keras3.overlay import all_layers

SCORES = "scores"
PROBABILITIES = "probabilities"
CONTEXT = "context"
# Of attention that adds queries to keys.
PAIRS = "pairs"
TANH = "tanh"
WEIGHTED = "weighted"

_LAYERS = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
_MARK = "_msq_tf_opened"
_GATED = "_msq_tf_gated"
# Masks add no less than that; where a row's largest score is below, all of the
# row is masked.
_MASKED = -9000.0
# Whether the layer that runs would compute in one operation by itself. That
# takes the mean of the values where a row is masked altogether.
_FUSED: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "msq_tf_fused_attention", default=False
)


def install(base: Any) -> None:
    """Has attention layers compute by layers where a visitor wants it."""
    for layer in all_layers(base):
        # What a subclass computes in its own way is not known.
        if not hasattr(layer, _MARK) and any(
            isinstance(layer, kind)
            and type(layer)._compute_attention is kind._compute_attention
            for kind in _LAYERS
        ):
            _open(layer)


def _open(layer: Any) -> None:
    compute = layer._compute_attention
    signature = inspect.signature(compute)

    @functools.wraps(compute)
    def opened(*args: Any, **kwargs: Any) -> Any:
        visitor = active()
        if visitor is None or not visitor.opens(layer):
            return compute(*args, **kwargs)
        given = signature.bind(*args, **kwargs)
        # Who asks for scores gets the softmax as a layer.
        if "return_attention_scores" in signature.parameters:
            asked = given.arguments.get("return_attention_scores", False)
            given.arguments["return_attention_scores"] = True
        else:
            asked = layer._return_attention_scores
            layer._return_attention_scores = True
        several = len(given.arguments["query"].shape) != 4
        with scoped(_FUSED, not (asked or several or layer.dropout > 0.0)):
            context, scores = compute(*given.args, **given.kwargs)
        return visitor.context(layer, context), scores

    layer._compute_attention = opened
    setattr(layer, _MARK, True)
    # The two layers call the attribute unlike.
    gated = layer.get_config().get("use_gate", False)
    setattr(layer._softmax, _GATED, bool(gated))


def softmax_of(layer: Any) -> Any:
    """The softmax inside of a layer that `install` opens."""
    return layer._softmax


def is_gated(softmax: Any) -> bool:
    """Whether a gate multiplies the context that a softmax has a part in.

    Else what reads the context has a site.
    """
    return getattr(softmax, _GATED, False)


def is_plain(layer: Any) -> bool:
    """Whether a layer is attention without weights that Keras computes."""
    kinds = keras.layers.Attention, keras.layers.AdditiveAttention
    return type(layer) in kinds


def has_scores(call: Any, found: Any) -> bool:
    """Whether the softmax of a call reads scores that need a site."""
    if is_plain(call.layer):
        return True
    if type(call.layer) is not keras.layers.Softmax:
        return False
    # The second is a mask.
    return len(call.tensors) > 1 or found.is_between(call.tensors[0])


def computes(
    layer: Any, call: Callable[..., Any], at: Callable[[Any, str], Any]
) -> Callable[..., Any]:
    """Replacements for a softmax or plain attention that show its scores.

    `at` is a function of a tensor and its place, that returns what to go on
    with.
    """

    def seen(x: Any, place: str) -> Any:
        # In half precision a grid's numbers come in float32.
        return keras.ops.cast(at(x, place), x.dtype)

    if isinstance(layer, keras.layers.Softmax):
        return functools.partial(_softmax, _over_axes(layer, call), seen)
    return functools.partial(_attention, layer, seen)


def _over_axes(layer: Any, call: Callable[..., Any]) -> Callable[..., Any]:
    """A softmax over one axis, where a layer has several that are the last.

    Keras takes logarithm and exponential then, for which no kernel is exact.
    """
    axes = layer.axis
    if isinstance(axes, int) or len(axes) < 2:
        return call

    def softmax(x: Any) -> Any:
        rank = len(x.shape)
        if sorted(axis % rank for axis in axes) != [*range(rank)][-len(axes) :]:
            return call(x)
        shape = keras.ops.shape(x)
        flat = keras.ops.reshape(x, (*shape[: -len(axes)], -1))
        return keras.ops.reshape(keras.ops.softmax(flat), shape)

    return softmax


def _softmax(
    call: Callable[..., Any],
    at: Callable[[Any, str], Any],
    inputs: Any,
    mask: Any = None,
) -> Any:
    if mask is None:
        return call(at(inputs, SCORES))
    if mask.dtype != tf.bool:
        mask = keras.ops.greater(mask, 0.5)
    far = -3e4 if inputs.dtype == tf.float16 else -1e9
    scores = at(keras.ops.where(mask, inputs, far), SCORES)
    if _FUSED.get():
        return call(scores)
    # Where a row is masked altogether, nothing is left.
    return keras.ops.where(mask, call(scores), 0.0)


def _attention(
    layer: Any,
    at: Callable[[Any, str], Any],
    inputs: Any,
    mask: Any = None,
    training: Any = False,
    return_attention_scores: bool = False,
    use_causal_mask: bool = False,
) -> Any:
    ops = keras.ops
    query, value = inputs[:2]
    key = inputs[2] if len(inputs) > 2 else value
    scores = _scores(layer, at, query, key)
    keep = None
    if mask and mask[1] is not None:
        keep = ops.expand_dims(mask[1], -2)
    if use_causal_mask:
        rows, columns = ops.shape(scores)[-2:]
        causal = ops.arange(rows)[:, None] >= ops.arange(columns)[None]
        keep = causal[None] if keep is None else ops.logical_and(keep, causal)
    if keep is not None:
        far = -65504.0 if scores.dtype == tf.float16 else -1e9
        scores = ops.where(keep, scores, far)
    weights = ops.softmax(at(scores, SCORES), axis=-1)
    weights = at(weights, PROBABILITIES)
    applied = weights
    if training and layer.dropout > 0:
        applied = keras.random.dropout(
            weights, layer.dropout, seed=layer.seed_generator
        )
    outputs = ops.matmul(applied, value)
    if mask and mask[0] is not None:
        outputs = ops.where(ops.expand_dims(mask[0], -1), outputs, 0)
    return (outputs, applied) if return_attention_scores else outputs


def places_before_scores(layer: Any) -> list[str]:
    """Computations of plain attention before its scores, in order."""
    if isinstance(layer, keras.layers.AdditiveAttention):
        return [PAIRS, TANH, *[WEIGHTED] * (layer.scale is not None)]
    return [] if layer.score_mode == "dot" else [PAIRS, TANH]


def _scores(
    layer: Any, at: Callable[[Any, str], Any], query: Any, key: Any
) -> Any:
    ops = keras.ops
    scale = layer.scale
    if not places_before_scores(layer):
        scores = ops.matmul(query, ops.swapaxes(key, -2, -1))
        return scores if scale is None else ops.multiply(scores, scale)
    pairs = ops.expand_dims(query, -2) + ops.expand_dims(key, -3)
    if isinstance(layer, keras.layers.AdditiveAttention):
        weights = at(ops.tanh(at(pairs, PAIRS)), TANH)
        if scale is not None:
            weights = at(scale * weights, WEIGHTED)
        return ops.sum(weights, axis=-1)
    # One number, by which a product rounds nothing.
    pairs = at(pairs if scale is None else scale * pairs, PAIRS)
    scores = ops.sum(at(ops.tanh(pairs), TANH), axis=-1)
    return layer.concat_score_weight * scores


def within_reach(scores: Any, layer: Any, bits: int) -> tf.Tensor:
    """Scores as far as the softmax of a layer tells them apart, in float32.

    All that is far below the largest of its row, as far as together with as
    many of its kind it makes no unit, is just so far below. Rows that are
    masked altogether are zero.
    """
    scores = tf.cast(scores, tf.float32)
    axes = getattr(layer, "axis", -1)
    axes = [axes] if isinstance(axes, int) else list(axes)
    largest = tf.reduce_max(scores, axes, keepdims=True)
    shape = tf.shape(scores)
    count = tf.reduce_prod([shape[axis] for axis in axes])
    reach = math.log(2.0**bits) + tf.math.log(tf.cast(count, tf.float32))
    near = tf.maximum(scores, largest - reach)
    return tf.where(largest < _MASKED, tf.zeros_like(near), near)

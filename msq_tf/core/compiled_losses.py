"""The losses with which a model of either Keras was compiled."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class CompiledLosses:
    """The losses that a model was compiled with.

    Attributes:
        loss: A loss, or a list or dict of losses of a model with several
            outputs; `None` for an output without.
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

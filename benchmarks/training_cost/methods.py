"""Ways to train a network, each as a compiled model of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

import msq_tf
from benchmarks.baselines.bsq import BSQModel
from benchmarks.baselines.csq import CSQModel
from benchmarks.harness.networks import compiled

FLOAT = "float"
# What two models of the same kind differ by in one process.
AGAIN = "float, again"
SEARCHING = "msq, searching"
FROZEN = "msq, frozen"
BSQ = "bsq"
CSQ = "csq"


def build(method: str, base: keras.Model) -> Any:
    """A compiled model that trains `base` by a method.

    Args:
        method: A key of `METHODS`.
        base: A built float model, which the result takes over.

    Raises:
        ValueError: If there is no such method.
    """
    if method not in METHODS:
        raise ValueError(
            f"There is no such method. Expected one of {', '.join(METHODS)}. "
            f"Received: {method}"
        )
    return compiled(METHODS[method](base))


def counts(model: Any) -> dict[str, int]:
    """Elements that a method trains, keeps for that, and has besides.

    Args:
        model: A compiled model that was stepped, so that its slots exist.
    """
    trained = sum(map(_size, model.trainable_variables))
    # What an optimizer has beside its slots are scalars.
    slots = sum(_size(v) for v in model.optimizer.variables if len(v.shape) > 0)
    others = sum(map(_size, model.non_trainable_variables))
    return {
        "trainable": trained,
        "gradients": trained,
        "slots": slots,
        "others": others,
        "bytes": 4 * (2 * trained + slots + others),
    }


def _searching(base: keras.Model) -> msq_tf.MSQModel:
    """As in the middle of a search, with every weight pulled."""
    qmodel = msq_tf.quantize_model(base)
    qmodel.search.lsb.assign([4] * len(qmodel.paths))
    qmodel.search.strength.assign(0.05)
    return qmodel


def _size(variable: Any) -> int:
    return int(np.prod(variable.shape))


METHODS: dict[str, Callable[[keras.Model], Any]] = {
    FLOAT: lambda base: base,
    AGAIN: lambda base: base,
    SEARCHING: _searching,
    FROZEN: msq_tf.quantize_model,
    BSQ: BSQModel,
    CSQ: CSQModel,
}

"""Checks that weights, losses and statistics are finite.

A rule decides on NaN without an error, since NaN compares with everything as
False, and the result looks like that of any other search.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from msq_tf.core.batches import Samples
from msq_tf.core.batches import in_parts
from msq_tf.rules.records import LayerStats

ADVICE = (
    "Expected finite data and a training that has not diverged: look for NaN "
    "in inputs, targets and sample weights, or lower the learning rate."
)
# What samples are made of.
_PARTS = ("x", "y", "sample_weight")
_NAN = (
    "Expected finite numbers, or a layer or loss that leaves others out: "
    "weights that NaN has reached are lost. "
)
# Numbers that are looked at in one step.
_BLOCK = 1 << 20
# Weights that a message names.
_NAMED = 5


def warn_of_rows(name: str, data: Any) -> None:
    """Warns of nested arrays with NaN or infinite values, before `fit`.

    A layer or a loss may know what to do with them, so they are not refused;
    one that does not takes them into weights that nothing brings back. Other
    data than arrays in memory passes unseen.
    """
    for leaf in tf.nest.flatten(data):
        if isinstance(leaf, np.memmap) or not isinstance(leaf, np.ndarray):
            continue
        row = _first_row(leaf)
        if row is not None:
            warnings.warn(
                f"A sample of `{name}` is not finite. {_NAN}"
                f"Received: {name}[{row}]",
                stacklevel=4,
            )
            return


def warn_of_data(given: Any, samples: Samples) -> None:
    """Warns of NaN or infinite values in data for statistics.

    Nobody reads all of a data set before a training: of NaN behind the
    samples the loss tells at a decision, if it has reached a weight.

    Args:
        given: What a search was given of its own; `None` for what `fit` was
            given, whose arrays were looked at there.
        samples: What was read of it.
    """
    if samples.batch_size is None:
        for name, data in zip(_PARTS, in_parts(given) or (), strict=False):
            warn_of_rows(name, data)
        return
    for name, data in zip(_PARTS, samples.parts, strict=True):
        for leaf in tf.nest.flatten(data):
            row = None if leaf is None else _first_row(np.asarray(leaf))
            if row is not None:
                warnings.warn(
                    f"A sample of the data for statistics is not finite. {_NAN}"
                    f"Received: NaN or infinite numbers in `{name}` of sample "
                    f"{row} of the {len(leaf)} that are read",
                    stacklevel=4,
                )
                return


def _first_row(array: np.ndarray) -> int | None:
    """The first sample that is not finite; `None` where all are."""
    if array.dtype.kind != "f" or not array.ndim or not array.size:
        return None
    size = max(1, _BLOCK * len(array) // array.size)
    for start in range(0, len(array), size):
        finite = np.isfinite(array[start : start + size])
        if not finite.all():
            rows = finite.reshape(len(finite), -1).all(axis=1)
            return start + int(np.argmin(rows))
    return None


def check_weights(paths: Sequence[str], weights: Sequence[tf.Tensor]) -> None:
    """Raises a ValueError for latent weights that are not finite."""
    flags = tf.stack([tf.reduce_all(tf.math.is_finite(w)) for w in weights])
    wrong = [
        path
        for path, is_right in zip(paths, flags.numpy(), strict=True)
        if not is_right
    ]
    if wrong:
        raise ValueError(
            f"Weights are not finite at a decision of the search. {ADVICE} "
            f"Received: NaN or infinite numbers in {_some(wrong)}"
        )


def check_loss(loss: float) -> None:
    """Raises a ValueError for a loss that is not finite."""
    if not math.isfinite(loss):
        raise ValueError(
            "The loss is not finite at a decision of the search, on the data "
            f"that statistics are taken on. {ADVICE} Received: loss={loss}"
        )


def check_layers(layers: Sequence[LayerStats]) -> None:
    """Raises a ValueError for statistics that a rule can't compare."""
    wrong = []
    for layer in layers:
        numbers = {"sensitivity": layer.sensitivity, "gain": layer.gain}
        for width, cost in layer.cost.items():
            numbers[f"cost of {width} bits"] = cost
        wrong += [
            f"{what} of '{layer.path}': {number}"
            for what, number in numbers.items()
            if not math.isfinite(number)
        ]
    if wrong:
        raise ValueError(
            "Statistics of the search are not finite, so that a rule can't "
            f"compare them. {ADVICE} A gain is measured on held-out data. "
            f"Received: {_some(wrong)}"
        )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    more = len(names) - _NAMED
    return shown + (f" and {more} more" if more > 0 else "")

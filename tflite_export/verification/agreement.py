"""Decisions of a file's outputs, and how many of them may differ.

Only outputs with classes decide. A softmax or a sigmoid at the end has classes.
For other outputs the compiled loss tells: with a cross entropy they are logits,
with the squared error they are numbers of any shape. `differences.Decision`
says when two runs decide alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from msq_tf.sensitivity.divergence import loss_names
from tflite_export.conversion.source import CompiledModel
from tflite_export.differences import Decision as Decision
from tflite_export.flatbuffer import model as fb

# Share of samples on which a file has to decide as Keras does.
LEAST = 0.97
_CATEGORICAL = {
    "sparse_categorical_crossentropy",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "categorical_hinge",
}
_BINARY = {"binary_crossentropy", "binary_focal_crossentropy"}
# These give what they read, or nearly.
_THROUGH = {
    "DEQUANTIZE",
    "EXPAND_DIMS",
    "QUANTIZE",
    "RESHAPE",
    "SQUEEZE",
    "TRANSPOSE",
}


Decisions = Sequence[Decision | None]


def decisions(
    data: bytes, model: Any, ask: bool = False, states: int = 0
) -> Decisions:
    """How each output of a file decides, `None` where there are no classes.

    Args:
        data: The bytes of a file.
        model: The quantized model that it was made from; `None` for none.
        ask: Whether outputs of which nothing is known count as scores of
            classes if they look like them.
        states: How many outputs at the end are states, which decide nothing.
    """
    parsed = fb.read(data)
    outputs = fb.outputs(parsed.subgraphs[0])
    count = len(outputs) - states
    losses = [("", False)] * count
    if isinstance(model, CompiledModel) and model.compiled:
        losses = loss_names(model.compiled_losses(), count)
    operators = last_operators(parsed, outputs[:count])
    found = [
        _decision(operator, *loss, ask)
        for operator, loss in zip(operators, losses, strict=True)
    ]
    return found + [None] * states


def _decision(
    op: str, loss: str, from_logits: bool, ask: bool
) -> Decision | None:
    if op == "SOFTMAX" or loss in _CATEGORICAL:
        return Decision()
    if loss in _BINARY:
        return Decision(0.0 if from_logits else 0.5)
    if op == "LOGISTIC" and not loss:
        return Decision(0.5)
    return Decision() if ask and not loss else None


def last_operators(model: schema.ModelT, indices: Sequence[int]) -> list[str]:
    """The operators that compute outputs; empty for what none computes."""
    writers = fb.writers(model.subgraphs[0])
    known: dict[int, str] = {}
    for index in indices:
        passed = []
        name = ""
        while index not in known and (op := writers.get(index)) is not None:
            passed.append(index)
            name = fb.op_name(model, op)
            if name not in _THROUGH or not fb.inputs(op):
                break
            index = fb.inputs(op)[0]
            name = ""
        # Outputs may lead to one operator by a long way, each again.
        name = known.get(index, name)
        known |= dict.fromkeys(passed, name)
        known.setdefault(index, name)
    return [known[index] for index in indices]


def rows(batches: Sequence[Sequence[np.ndarray]], output: int) -> np.ndarray:
    """All samples of an output."""
    return np.concatenate([np.atleast_1d(batch[output]) for batch in batches])


def misses(count: int, least: float) -> int:
    """How many of `count` decisions may differ.

    One of few may always, unless all have to be the same.
    """
    return max(int(least < 1.0), int((1.0 - least) * count + 1e-9))

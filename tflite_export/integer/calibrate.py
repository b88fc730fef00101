"""Ranges of activations over representative inputs."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.data.effort import effort
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.runtime import interpreter

Range = tuple[float, float]


def calibrate(
    model: schema.ModelT,
    tensors: Collection[int],
    samples: Sequence[np.ndarray],
    seen: Callable[[int, np.ndarray], np.ndarray] = lambda _, values: values,
) -> dict[int, Range]:
    """Smallest and largest value of each tensor over all samples.

    `seen` is a function of a tensor of the main graph and what it holds, that
    returns what has a part in its range.

    Raises:
        ExportError: If a tensor holds NaN, or the samples are none that the
            model takes.
    """
    data = fb.dump(_runnable(fb.load(fb.dump(model))))
    session = interpreter.Session(data, "builtin", keep_all=True)
    found: dict[int, Range] = {}
    at_once = effort(data, samples).at_once()
    for chunk in interpreter.chunks(samples, at_once, session):
        try:
            session(chunk)
        except RuntimeError as error:
            raise ExportError(
                "The model can't be computed on representative_data. Expected "
                "values that its operators take, such as ids that its tables "
                f"have. Received: {' '.join(str(error).split())}"
            ) from error
        for index in tensors:
            low, high = finite_range(seen(index, session.tensor(index)))
            if np.isnan(low) or np.isnan(high):
                raise ExportError(
                    "The model computes NaN on representative_data. Expected "
                    "finite activations. Received: NaN, first in the tensor "
                    f"'{fb.name(model.subgraphs[0].tensors[index])}'"
                )
            before = found.get(index, (low, high))
            found[index] = (min(before[0], low), max(before[1], high))
    return found


def infinite(values: np.ndarray) -> np.ndarray:
    """Which numbers are infinite; the converter writes the largest for that."""
    return np.abs(values) >= np.finfo(np.float32).max


def finite_range(values: np.ndarray) -> Range:
    """Smallest and largest number.

    Infinite ones are left out, with which a model masks or pads: the code at
    the end of a grid stands for them. NaN stays.
    """
    if values.size:
        low, high = values.min(), values.max()
        # Without a copy, as nearly all are.
        if not infinite(np.array([low, high])).any():
            return float(low), float(high)
    finite = values[~infinite(values)]
    if not finite.size:
        return 0.0, 0.0
    return float(finite.min()), float(finite.max())


def _runnable(model: schema.ModelT) -> schema.ModelT:
    """Replaces the requantizations of a float graph by multiplications by 1.

    They stand between two floats until both have grids, which no kernel runs.
    """
    graph = model.subgraphs[0]
    one = np.ones((), np.float32)
    for op in graph.operators:
        if fb.op_name(model, op) != "QUANTIZE":
            continue
        inputs = [*fb.inputs(op), edit.new_constant(model, one)]
        twin = edit.new_operator(
            model, "MUL", 1, inputs, fb.outputs(op), "MulOptions"
        )
        graph.operators[edit.before(graph, op)] = twin
    return model

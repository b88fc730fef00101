"""Ranges of activations over representative inputs."""

from __future__ import annotations

import functools
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
    data = fb.dump(_showing(_runnable(fb.load(fb.dump(model))), tensors))
    at_once = effort(data, samples).at_once()
    try:
        found = _ranges(data, "xnnpack", tensors, samples, at_once, seen)
    except RuntimeError:
        # It takes over more than it can run, here and there.
        try:
            found = _ranges(data, "builtin", tensors, samples, at_once, seen)
        except RuntimeError as error:
            raise ExportError(
                "The model can't be computed on representative_data. Expected "
                "values that its operators take, such as ids that its tables "
                f"have. Received: {' '.join(str(error).split())}"
            ) from error
    return found


def _ranges(
    data: bytes,
    kernels: str,
    tensors: Collection[int],
    samples: Sequence[np.ndarray],
    at_once: int,
    seen: Callable[[int, np.ndarray], np.ndarray],
) -> dict[int, Range]:
    rows = min(at_once, len(samples[0]))
    session = interpreter.Session(data, kernels, batch_size=rows)
    found: dict[int, Range] = {}
    for chunk in interpreter.chunks(samples, at_once, session):
        session.invoke(chunk)
        for index in tensors:
            low, high = session.reduced(
                index, functools.partial(_seen_range, seen, index)
            )
            if np.isnan(low) or np.isnan(high):
                name = fb.name(fb.read(data).subgraphs[0].tensors[index])
                raise ExportError(
                    "The model computes NaN on representative_data. Expected "
                    "finite activations. Received: NaN, first in the tensor "
                    f"'{name}'"
                )
            before = found.get(index, (low, high))
            found[index] = (min(before[0], low), max(before[1], high))
    return found


def _seen_range(
    seen: Callable[[int, np.ndarray], np.ndarray],
    index: int,
    values: np.ndarray,
) -> Range:
    return finite_range(seen(index, values))


def _showing(model: schema.ModelT, tensors: Collection[int]) -> schema.ModelT:
    """Makes tensors outputs, so that no kernels keep them to themselves.

    Where every tensor is kept instead, XNNPACK, which is several times as
    fast as the builtin kernels, runs nothing.
    """
    graph = model.subgraphs[0]
    written = {index for op in graph.operators for index in fb.outputs(op)}
    outputs = fb.outputs(graph)
    shown = [i for i in tensors if i in written and i not in outputs]
    graph.outputs = np.array([*outputs, *shown], np.int32)
    return model


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

"""LiteRT's kernels against the TOSA reference model.

A deep network can turn single units inside into many at its output, see
`verification.amplification`; so where outputs differ, operators are compared
one by one, on what LiteRT's kernels read in that very run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tflite_export.devices import tosa
from tflite_export.devices import widen
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.runtime import interpreter
from tflite_export.runtime import litert
from tflite_export.runtime import ports
from tflite_export.targets import Target
from tflite_export.verification import amplification
from tflite_export.verification import float_twin

_SAMPLES = 4
# From end to end, as `integer_outputs.END_UNITS`: a unit of 16 bits is 1/256 of
# one of 8 bits.
_UNITS = {"int8": 2.0, "int16": 16.0}
# They compute nothing, and where the shape stays TOSA's tools fold them and
# then miss their outputs.
_RENAMING = ("EXPAND_DIMS", "RESHAPE", "SQUEEZE")


@dataclasses.dataclass(frozen=True)
class _Apart:
    """A file whose operators don't feed each other.

    Attributes:
        data: The bytes of the file.
        inputs: Tensors of the original that it takes, in order.
        steps: The operators behind its outputs, in order.
        outputs: Tensors of the original that it computes, in order.
    """

    data: bytes
    inputs: tuple[int, ...]
    steps: tuple[float_twin.Step, ...]
    outputs: tuple[int, ...]


def verify(
    data: bytes, samples: Sequence[np.ndarray], target: Target
) -> dict[str, Any]:
    """Compares LiteRT's kernels with the TOSA reference model.

    The model runs the file with its weights in int8 containers, as it lacks
    several operators on packed ones.

    Args:
        data: The bytes of a file with integer inputs and outputs.
        samples: One array per input.
        target: Where the file shall run.

    Returns:
        The largest difference in units of the output per set of kernels, or
        why there is none: the tools are not installed, or the file has an
        operator that they lack. Where it is beyond two units (16 with int16),
        also why the file is right all the same.

    Raises:
        ExportError: If no kernels compute nearly the same, and single units
            inside don't explain it. TOSA rounds nearly like the reference
            kernels; XNNPACK rounds once where they round twice, which long
            chains of layers add up.
    """
    if reason := tosa.absent():
        return {"skipped": reason}
    wide = widen.widened(data)
    try:
        few = ports.whole_batches(wide, samples, _SAMPLES)
        wanted = tosa.run(wide, few)
    except ValueError as error:
        return {"skipped": str(error)}
    outputs = ports.outputs(data)
    units = {}
    for kernels in interpreter.KERNELS:
        try:
            # The reference kernels lack operators on packed weights.
            own = wide if kernels == "reference" else data
            got = litert.run(own, few, kernels)
        except (RuntimeError, ValueError):
            # Not every set of kernels holds every operator.
            continue
        units[kernels] = ports.units(outputs, got, wanted)
    figures: dict[str, Any] = {"units": units, "samples": len(few[0])}
    nearest = min(units, key=lambda kernels: units[kernels])
    most = _UNITS[target.mode]
    if not units[nearest] <= most:
        # Not every set holds every operator: no reference kernel copies.
        kernels = next(
            k for k in ("reference", "builtin", *units) if k in units
        )
        reason = _explanation(wide, few, target, kernels) or ""
        if not reason:
            raise ExportError(
                f"LiteRT's {nearest} kernels and the TOSA reference model "
                f"compute different numbers. Expected at most {most:g} units "
                "of an output, or single units inside that explain more. "
                f"Received: {units[nearest]:g}"
            )
        figures["amplified"] = reason
    return figures


def _explanation(
    data: bytes, samples: Sequence[np.ndarray], target: Target, kernels: str
) -> str | None:
    """How single units inside explain a difference at the output, if they do.

    On every sample, each operator of LiteRT's `kernels` has to be within its
    own limit of the TOSA reference model on the same inputs, and all of them
    off by less than `amplification.MOST_ON_AVERAGE` units on average.
    Operators in float between integers count as one, up to where they are
    quantized.

    Raises:
        ExportError: If one of the tools fails.
    """
    session = interpreter.Session(float_twin.probe(data), kernels)
    apart = _apart(data)
    fed = ports.quantized(data, samples)
    tally = amplification.Tally()
    for chunk in interpreter.chunks(fed, 1, session):
        session(chunk)
        read = [session.tensor(index) for index in apart.inputs]
        wanted = tosa.run(apart.data, read)
        for step, index, exact in zip(
            apart.steps, apart.outputs, wanted, strict=True
        ):
            got = session.tensor(index).astype(np.int64)
            difference = np.abs(got - exact.astype(np.int64))
            if difference.max(initial=0) > target.operator_units(step.name):
                return None
            tally.add_values(
                int((difference > 0).sum()),
                int(difference.sum()),
                difference.size,
            )
    return tally.explanation()


def _apart(data: bytes) -> _Apart:
    """The file in which every operator reads inputs of the graph."""
    model = fb.load(data)
    graph = model.subgraphs[0]
    known = set(float_twin.activations(model))
    steps = {step.position: step for step in float_twin.steps(model)}
    kept, read, results = [], [], []
    for position, op in enumerate(graph.operators):
        step = steps.get(position)
        if step is None and set(fb.outputs(op)) <= set(fb.outputs(graph)):
            # What leaves the integers for good has nothing to compare.
            continue
        if step is not None and step.name in _RENAMING:
            continue
        kept.append(op)
        read += [index for index in fb.inputs(op) if index in known]
        outputs = []
        for index in fb.outputs(op):
            if index in known:
                tensor = graph.tensors[index]
                outputs.append(edit.new_tensor(graph, "INT8", tensor))
                copied = graph.tensors[outputs[-1]]
                copied.type = tensor.type
                copied.quantization = tensor.quantization
                results.append((step, index, outputs[-1]))
            else:
                outputs.append(index)
        op.outputs = np.array(outputs, np.int32)
    inputs = tuple(dict.fromkeys((*fb.inputs(graph), *read)))
    graph.operators = kept
    graph.inputs = np.array(inputs, np.int32)
    graph.outputs = np.array([new for _, _, new in results], np.int32)
    model.signatureDefs = None
    return _Apart(
        fb.dump(model),
        inputs,
        tuple(step for step, _, _ in results if step is not None),
        tuple(index for _, index, _ in results),
    )

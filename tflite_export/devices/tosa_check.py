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
from ai_edge_litert import schema_py_generated as schema

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
# They take elements, or add others: where the shape stays, all of them and no
# more.
_SELECTING = ("PAD", "PADV2", "SLICE", "SPLIT", "SPLIT_V", "TILE")


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
    kept = []
    # Floats are read as they are.
    read = [(i, i) for i in fb.inputs(graph) if i not in known]
    results = []
    for position, op in enumerate(graph.operators):
        step = steps.get(position)
        if step is None and set(fb.outputs(op)) <= set(fb.outputs(graph)):
            # What leaves the integers for good has nothing to compare.
            continue
        if step is not None and _moves_nothing(model, graph, op, step):
            continue
        kept.append(op)
        # Of its own: TOSA's tools make one of operators that do the same with
        # the same tensor, and then miss the output of all but one.
        own: dict[int, int] = {}
        for index in fb.inputs(op):
            if index in known and index not in own:
                own[index] = _like(graph, index)
                read.append((index, own[index]))
        op.inputs = np.array(
            [own.get(index, index) for index in fb.inputs(op)], np.int32
        )
        outputs = []
        for index in fb.outputs(op):
            if index in known:
                outputs.append(_like(graph, index))
                results.append((step, index, outputs[-1]))
            else:
                outputs.append(index)
        op.outputs = np.array(outputs, np.int32)
    graph.operators = kept
    graph.inputs = np.array([new for _, new in read], np.int32)
    graph.outputs = np.array([new for _, _, new in results], np.int32)
    model.signatureDefs = None
    return _Apart(
        fb.dump(model),
        tuple(index for index, _ in read),
        tuple(step for step, _, _ in results if step is not None),
        tuple(index for _, index, _ in results),
    )


def _moves_nothing(
    model: schema.ModelT,
    graph: schema.SubGraphT,
    op: schema.OperatorT,
    step: float_twin.Step,
) -> bool:
    """Whether an operator gives back what it reads.

    TOSA's tools fold such ones, as those of images of one pixel, too.
    """
    if step.name in _RENAMING:
        return True
    if len(step.reads) != 1 or len(step.writes) != 1:
        return False
    shape = fb.shape(graph.tensors[step.reads[0]])
    if shape != fb.shape(graph.tensors[step.writes[0]]):
        return False
    if step.name in _SELECTING:
        return True
    if step.name == "MAX_POOL_2D":
        return shape[1:3] == (1, 1)
    # Which axes, in which order or with which strides.
    place = {"REVERSE_V2": 1, "STRIDED_SLICE": 3, "TRANSPOSE": 1}.get(step.name)
    if place is None:
        return False
    said = fb.constant(model, graph.tensors[fb.inputs(op)[place]])
    if said is None:
        return False
    if step.name == "REVERSE_V2":
        return all(shape[axis] == 1 for axis in said.reshape(-1))
    if step.name == "TRANSPOSE":
        return list(said) == sorted(said)
    return bool((said > 0).all())


def _like(graph: schema.SubGraphT, index: int) -> int:
    """Another tensor of the same shape, type and grid."""
    tensor = graph.tensors[index]
    new = edit.new_tensor(graph, "INT8", tensor)
    graph.tensors[new].type = tensor.type
    graph.tensors[new].quantization = tensor.quantization
    return new

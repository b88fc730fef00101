"""Puts integer codes in the place of float weights.

A matched constant becomes an integer tensor with scales, and a DEQUANTIZE in
front of its first reader makes the float tensor that its readers see.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ai_edge_litert import schema_py_generated as schema

from tflite_export.errors import ExportError
from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer import packing
from tflite_export.flatbuffer.operators import conversion_version
from tflite_export.matching.match import Match
from tflite_export.targets import CONTAINERS
from tflite_export.targets import Target


@dataclasses.dataclass(frozen=True)
class ChannelChanges:
    """Changes to a weight's channels for the accumulators of integers.

    Attributes:
        axis: Axis along which operators of integers see channels.
        silenced: Channels whose codes are zero in the file, because no scale
            gives them and their bias room in the accumulator.
        rescaled: Channels whose codes have another scale than the trained one
            for that reason.
        units: By how many units of the integer output these channels move at
            most, over all inputs.
    """

    axis: int = 0
    silenced: tuple[int, ...] = ()
    rescaled: tuple[int, ...] = ()
    units: float = 0.0


@dataclasses.dataclass(frozen=True)
class Written:
    """A weight tensor as it was written.

    Attributes:
        match: Which weight it is.
        tensor: Index of the tensor in the file's graph.
        container: Weight type, such as `"INT4"`.
        granularity: `"per_tensor"` or `"per_channel"`.
        payload_bytes: Bytes of the packed codes.
        ops: Operators of the file that read it.
        channels: What became of its channels beside integer activations.
    """

    match: Match
    tensor: int
    container: str
    granularity: str
    payload_bytes: int
    ops: tuple[str, ...]
    channels: ChannelChanges = ChannelChanges()


def rewrite(
    model: schema.ModelT, matches: Sequence[Match], target: Target
) -> list[Written]:
    """Replaces matched constants in place; returns one record per match.

    Tensors keep their indices; new ones come after them.

    Raises:
        ExportError: If the target has no cell for an operator that reads a
            weight.
    """
    return [_rewrite_one(model, match, target) for match in matches]


def _rewrite_one(model: schema.ModelT, match: Match, target: Target) -> Written:
    container = target.container(match.weight.bits)
    scale, axis = match.fit.scale, match.fit.axis
    if axis is None or (scale == scale[0]).all():
        scale, axis = scale[:1], None
    granularity = "per_tensor" if axis is None else "per_channel"
    # Whatever else reads it computes with a float tensor like any other.
    for op in match.constant.weighs:
        if not target.allows(op, container, granularity):
            raise ExportError(
                f"Layer '{match.weight.path}': target '{target.name}' has no "
                f"evidence that {op} runs with {granularity} {container} "
                f"weights ({target.mode}). Expected another target, or the "
                "layer left out of quantize_model (filters=). Received: "
                f"{match.weight.bits} bits, {len(scale)} scales"
            )
    graph = model.subgraphs[match.constant.graph]
    index = match.constant.tensor
    tensor = graph.tensors[index]
    data = packing.pack(match.codes, CONTAINERS[container])

    output = edit.new_tensor(graph, "FLOAT32", tensor)
    edit.redirect(graph, index, output)
    tensor.type = getattr(schema.TensorType, container)
    tensor.name = match.weight.path.encode()
    tensor.quantization = edit.quantization(scale, axis=axis)
    tensor.buffer = edit.new_buffer(model, data)
    version = conversion_version("DEQUANTIZE", container, granularity)
    _insert_dequantize(model, graph, index, output, version)
    if match.fit.columns is not None:
        edit.scale_inputs(
            model, graph, output, match.fit.columns, match.weight.path
        )
    return Written(
        match, index, container, granularity, data.size, match.constant.readers
    )


def _insert_dequantize(
    model: schema.ModelT,
    graph: schema.SubGraphT,
    source: int,
    result: int,
    version: int,
) -> None:
    op = edit.new_operator(
        model, "DEQUANTIZE", version, [source], [result], "DequantizeOptions"
    )
    first = next(
        (
            position
            for position, reader in enumerate(graph.operators)
            if result in fb.inputs(reader)
        ),
        len(graph.operators),
    )
    graph.operators.insert(first, op)

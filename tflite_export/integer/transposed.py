"""Transposed convolutions without padding, and their edges cut off.

Two of LiteRT's back ends compute the padding of a TRANSPOSE_CONV as if it were
a convolution of its input, see `gpu_rules.pads_otherwise`. If that is another
number, the GPU accelerator is wrong by up to 255 units, and the compiler for
Qualcomm's NPU leaves the operator to the CPU (LiteRT 2.3.0, onnxruntime-qnn
2.7.0). Without padding both take it, and what the padding would have cut off
is cut off behind it.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.targets import Target
from tflite_export.targets import gpu_rules

_OPTION = "padded_transposed_convolutions"


def crop(
    model: schema.ModelT, target: Target, kept: Collection[int] = ()
) -> dict[int, tuple[int, float]]:
    """Takes the padding from TRANSPOSE_CONV where its number is another one.

    Args:
        model: The float model, changed in place; tensors keep their indices.
        target: Where it shall run. Its option
            `padded_transposed_convolutions` says whether padding is computed
            as everywhere else.
        kept: `id` of operators to leave as they are.

    Returns:
        By tensor that edges are cut from: what is left of it, and 1, as they
        have one grid.
    """
    parts: dict[int, tuple[int, float]] = {}
    if target.options.get(_OPTION, True):
        return parts
    graph = model.subgraphs[0]
    for op in list(graph.operators):
        if fb.op_name(model, op) != "TRANSPOSE_CONV" or id(op) in kept:
            continue
        result = fb.outputs(op)[0]
        cut = _cut(model, op)
        if cut is not None:
            graph.operators.insert(edit.before(graph, op) + 1, cut)
            parts[fb.inputs(cut)[0]] = (result, 1.0)
    return parts


def _cut(model: schema.ModelT, op: schema.OperatorT) -> schema.OperatorT | None:
    """What cuts the edges off, if the padding is not that of a convolution."""
    graph, options = model.subgraphs[0], op.builtinOptions
    shape, weight, source = fb.inputs(op)[:3]
    result = fb.outputs(op)[0]
    read, written = (fb.axes(graph.tensors[i]) for i in (source, result))
    if options.padding != schema.Padding.SAME or -1 in (*read, *written):
        return None
    kernel = fb.shape(graph.tensors[weight])[1:3]
    strides = (options.strideH, options.strideW)
    whole, start = list(written), [0] * len(written)
    if not gpu_rules.pads_otherwise(read[1:3], written[1:3], kernel, strides):
        return None
    for axis, pixels, step in zip((1, 2), kernel, strides, strict=True):
        full = (read[axis] - 1) * step + pixels
        padding = max(full - written[axis], 0)
        start[axis] = padding // 2
        whole[axis] = max(full, start[axis] + written[axis])
    uncut = edit.new_tensor(graph, "FLOAT32", shape=tuple(whole))
    lengths, place, size = (
        edit.new_constant(model, np.array(values, np.int32))
        for values in (whole, start, written)
    )
    options.padding = schema.Padding.VALID
    op.inputs = np.array([lengths, *fb.inputs(op)[1:]], np.int32)
    op.outputs = np.array([uncut], np.int32)
    edit.drop_unread(graph, [shape])
    return edit.new_operator(
        model, "SLICE", 1, [uncut, place, size], [result], "SliceOptions"
    )

"""Pools of images that are down to one row, one column or one pixel.

Deep in a network for large images, the window of a padded pool is larger than
a small image, and reads the one row that there is. The compiler of Qualcomm's
NPU computes something else then (60 and 146 units off, LiteRT 2.3.0 and
onnxruntime-qnn 2.7.0, SM8650). A window of one row is the same pool.
"""

from __future__ import annotations

from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb

_POOLS = ("AVERAGE_POOL_2D", "MAX_POOL_2D")


def shrink_windows(model: schema.ModelT) -> None:
    """Cuts windows down to one row or column where there is one.

    A pool that reads one pixel and computes nothing becomes a RESHAPE.
    """
    graph = model.subgraphs[0]
    for place, op in enumerate(graph.operators):
        if fb.op_name(model, op) not in _POOLS:
            continue
        source, result = fb.inputs(op)[0], fb.outputs(op)[0]
        height, width = fb.shape(graph.tensors[source])[1:3]
        options = op.builtinOptions
        if height == 1:
            options.filterHeight = options.strideH = 1
        if width == 1:
            options.filterWidth = options.strideW = 1
        computes = (
            options.fusedActivationFunction
            != schema.ActivationFunctionType.NONE
        )
        if height == width == 1 and not computes:
            graph.operators[place] = edit.reshape(model, source, result)

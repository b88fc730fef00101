"""Rules of LiteRT's GPU accelerator: what it leaves, or computes wrong.

The table of a target has what was measured, see `benchmarks/files/gpu_cells.py`
and `integer/for_gpu.py`. All of it is notes: on a CPU the file is right.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import model as fb
from tflite_export.targets.nodes import Node

_BINARY = (
    *("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM"),
    "SQUARED_DIFFERENCE",
)
# Channels that a GPU keeps together.
_TOGETHER = 4
_PIECES = ("SPLIT", "SPLIT_V", "UNPACK")


def notes(node: Node, name: str, rules: Mapping[str, Any]) -> Iterator[str]:
    """Remarks on what a GPU makes of an operator.

    Args:
        node: The operator.
        name: Its name.
        rules: `versions`, the newest of an operator that the accelerator
            takes, and `types` that it doesn't.
    """
    version = fb.op_code(node.model, node.op).version
    newest = rules["versions"].get(name, version)
    if version > newest:
        yield (
            f"a GPU leaves version {version} to the CPU, it takes {newest} at "
            "most"
        )
    kinds = {
        fb.type_name(node.graph.tensors[i])
        for i in (*node.inputs, *node.outputs)
        if i >= 0
    }
    for kind in sorted(kinds & set(rules["types"])):
        yield f"a GPU leaves {kind} to the CPU"
    if name == "FULLY_CONNECTED" and _drops_bias(node):
        yield (
            "wrong on a GPU, without an error: it drops the bias where the "
            "weight is unpacked at run time"
        )
    wrong = _wrong(node, name) or (
        _wrong_on_int8(node, name) if "INT8" in kinds else None
    )
    if wrong:
        yield f"wrong on a GPU, without an error: {wrong}"


def groups(source: Sequence[int], weight: Sequence[int]) -> int:
    """Computes the number of groups of a CONV_2D, 1 where it isn't known.

    Args:
        source: Axes of what it reads, -1 for an open one; channels last.
        weight: Axes of its weight: outputs, height, width, channels a group.
    """
    channels, each = source[-1], weight[-1]
    return channels // each if each > 0 and channels > 0 else 1


def mixes_groups(source: Sequence[int], weight: Sequence[int]) -> bool:
    """Tells whether the accelerator is wrong on a grouped int8 CONV_2D.

    It is right where a group reads and writes multiples of four channels and
    looks at more than one pixel. Otherwise it computes something else, or ends
    the process. Measured with LiteRT 2.3.0 on SwiftShader: 22 layers of 2 to 32
    groups.

    Args:
        source: Axes of what it reads, -1 for an open one; channels last.
        weight: Axes of its weight: outputs, height, width, channels a group.
    """
    count = groups(source, weight)
    if count == 1:
        return False
    outputs, height, width, each = weight
    apart = (each, outputs // count)
    return height * width == 1 or any(n % _TOGETHER for n in apart)


def spreads(first: Sequence[int], second: Sequence[int]) -> bool:
    """Tells whether a product has more matrices in one of its operands.

    Args:
        first: Axes of the first operand.
        second: Axes of the second one.
    """
    rank = max(len(first), len(second))
    batches = [
        (*(1,) * (rank - len(axes)), *axes)[:-2] for axes in (first, second)
    ]
    return batches[0] != batches[1]


def flattens(axes: Sequence[int], op: schema.OperatorT) -> bool:
    """Tells whether a FULLY_CONNECTED makes two axes of more.

    Args:
        axes: Axes of what it reads.
        op: The operator.
    """
    inner = any(n != 1 for n in axes[1:-1])
    return inner and not getattr(op.builtinOptions, "keepNumDims", False)


def pads_otherwise(
    read: Sequence[int],
    written: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
) -> bool:
    """Tells whether a padded TRANSPOSE_CONV has an unusual padding.

    The accelerator, and the plugin for Qualcomm's NPU, compute the padding as
    if it were a convolution of its input (LiteRT 2.3.0; on SwiftShader 34
    layers of kernels from 1 to 6 and strides from 1 to 4).

    Args:
        read: Height and width of what it reads.
        written: Height and width of what it writes.
        kernel: Height and width of its kernel.
        strides: Its strides along both.
    """
    for length, result, size, step in zip(
        read, written, kernel, strides, strict=True
    ):
        cut = max((length - 1) * step + size - result, 0)
        steps = -(-length // step)
        if cut != max((steps - 1) * step + size - length, 0):
            return True
    return False


def _wrong(node: Node, name: str) -> str | None:
    """A fault that floats have, too."""
    same = node.option("padding") == schema.Padding.SAME
    if name == "TRANSPOSE_CONV" and same:
        sizes = (
            node.input_shape(2)[1:3],
            node.output_shape()[1:3],
            node.input_shape(1)[1:3],
            (node.option("strideH", 1), node.option("strideW", 1)),
        )
        if {len(pair) for pair in sizes} == {2} and pads_otherwise(*sizes):
            return "it cuts other edges off than the padding says"
    if (
        name == "BATCH_MATMUL"
        and len(set(node.inputs)) == len(node.inputs)
        and spreads(node.input_shape(0), node.input_shape(1))
    ):
        return "it does not spread one matrix along several"
    if name == "FULLY_CONNECTED" and flattens(node.input_shape(0), node.op):
        return "it mixes up rows where a dense layer makes two axes of more"
    slope = getattr(node.op.builtinOptions, "alpha", 0.0)
    if name == "LEAKY_RELU" and not 0 <= slope <= 1:
        return "it takes the larger of a number and its part"
    return None


def _wrong_on_int8(node: Node, name: str) -> str | None:
    options = node.op.builtinOptions
    if name == "CONV_2D":
        weight = node.input(1)
        strides = {getattr(options, side, 1) for side in ("strideH", "strideW")}
        if weight and fb.shape(weight)[1:3] == (1, 1) and strides != {1}:
            return "it ignores the strides of 1x1 convolutions"
        source = node.input(0)
        if weight and source and mixes_groups(fb.axes(source), fb.axes(weight)):
            return "it computes such grouped convolutions as if without groups"
    if name in _BINARY:
        ranks = {
            len(fb.shape(node.graph.tensors[i])) for i in node.inputs if i >= 0
        }
        computed = [
            tensor
            for tensor in map(node.input, range(len(node.inputs)))
            if tensor is not None
            and fb.raw_data(node.model, tensor) is None
            and len(fb.shape(tensor)) < max(ranks)
        ]
        if computed:
            return "it spreads an operand of fewer axes along others"
    if name == "BATCH_MATMUL" and len(set(node.inputs)) < len(node.inputs):
        return "a matrix times itself ends the process"
    if name in _PIECES and not _read(node).issuperset(node.outputs):
        return "an output that nothing reads may end the process"
    return None


def _drops_bias(node: Node) -> bool:
    weight, bias = node.input(1), node.input(2)
    return (
        weight is not None
        and bias is not None
        and fb.raw_data(node.model, weight) is None
    )


def _read(node: Node) -> set[int]:
    """All tensors that something reads in the node's graph."""
    key = ("read", id(node.graph))
    if key not in node.known:
        found = set(fb.outputs(node.graph))
        for op in node.graph.operators or ():
            found.update(fb.inputs(op))
        node.known[key] = found
    return node.known[key]

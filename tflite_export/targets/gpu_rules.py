"""Rules of LiteRT's GPU accelerator: what it leaves, or computes wrong.

The table of a target has what was measured, see `benchmarks/files/gpu_cells.py`
and `integer/for_gpu.py`. All of it is notes: on a CPU the file is right.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from tflite_export.flatbuffer import model as fb
from tflite_export.targets.restrictions import Node

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
    if "INT8" in kinds:
        wrong = _wrong(node, name)
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


def _wrong(node: Node, name: str) -> str | None:
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

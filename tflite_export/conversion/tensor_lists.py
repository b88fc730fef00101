"""Lists of tensors that are written at known places, as one operator.

A loop that is unrolled while it is traced may collect its results in a
`tf.TensorArray`. The converter has no lists without a loop, and none whose
elements have an open batch size.
"""

from __future__ import annotations

import tensorflow as tf

from tflite_export.conversion import rounding


def pack(graph: tf.compat.v1.GraphDef) -> bool:
    """Stacks what is written at known places, without lists, in place.

    Returns whether the graph has other lists.
    """
    nodes = {node.name: node for node in graph.node}
    done = set()
    for node in graph.node:
        if node.op != "TensorListStack":
            continue
        found = _written(nodes, node)
        if found is None:
            continue
        begin, items = found
        done.add(begin)
        kind = node.attr["element_dtype"].type
        node.op = "Pack"
        node.input[:] = items
        node.attr.clear()
        node.attr["N"].i = len(items)
        node.attr["T"].type = kind
        node.attr["axis"].i = 0
    return any(
        node.op == "TensorListReserve" and node.name not in done
        for node in rounding.nodes(graph)
    )


def _written(
    nodes: dict[str, tf.compat.v1.NodeDef], stack: tf.compat.v1.NodeDef
) -> tuple[str, list[str]] | None:
    """Where a list begins, and its items; `None` where that is not known."""
    items: dict[int, str] = {}
    node = nodes.get(_name(stack.input[0]))
    while node is not None and node.op == "TensorListSetItem":
        place = _constant(nodes, node.input[1])
        if place is None:
            return None
        # What is written last is nearest.
        items.setdefault(place, node.input[2])
        node = nodes.get(_name(node.input[0]))
    if node is None or node.op != "TensorListReserve":
        return None
    count = _constant(nodes, node.input[1])
    if not items or count is None or sorted(items) != list(range(count)):
        return None
    return node.name, [items[place] for place in range(count)]


def _constant(nodes: dict[str, tf.compat.v1.NodeDef], read: str) -> int | None:
    node = nodes.get(_name(read))
    if node is None or node.op != "Const":
        return None
    return int(tf.make_ndarray(node.attr["value"].tensor))


def _name(read: str) -> str:
    return read.split(":")[0]

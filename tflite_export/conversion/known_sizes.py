"""Sizes of axes that a model asks for although they are known.

Code that reads `tf.shape(x)[axis]` gets a node that computes the size. With an
open batch the shape is not known as a whole, and what follows from that size
is computed in the file, also in types that no kernel has.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

# Bits of a slice that say that one axis is taken away.
_SHRINKS = "shrink_axis_mask"


def find(graph: Any) -> dict[str, np.ndarray]:
    """Known sizes by the names of the nodes that compute them.

    Args:
        graph: A `FuncGraph`, whose tensors have the shapes that tracing knows.
    """
    found = {}
    for op in graph.get_operations():
        if op.type != "StridedSlice" or op.inputs[0].op.type != "Shape":
            continue
        axes = op.inputs[0].op.inputs[0].shape
        begin = tf.get_static_value(op.inputs[1])
        if axes.rank is None or begin is None or op.get_attr(_SHRINKS) != 1:
            continue
        place = int(np.ravel(begin)[0])
        if np.size(begin) == 1 and -axes.rank <= place < axes.rank:
            size = axes[place]
            if size is not None:
                kind = op.outputs[0].dtype.as_numpy_dtype
                found[op.name] = np.asarray(size, kind)
    return found


def settle(graph: tf.compat.v1.GraphDef, sizes: dict[str, np.ndarray]) -> None:
    """Makes constants of the nodes whose sizes are known.

    Args:
        graph: Is changed.
        sizes: As `find` has them.
    """
    for node in graph.node:
        if node.name in sizes and node.op == "StridedSlice":
            proto = tf.make_tensor_proto(sizes[node.name])
            name = node.name
            node.Clear()
            node.name, node.op = name, "Const"
            node.attr["dtype"].type = proto.dtype
            node.attr["value"].tensor.CopyFrom(proto)

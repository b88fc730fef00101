"""Kernels that the model's code computes from literals, as constants.

An identity matrix that takes an image apart, or a bell curve that blurs it: the
converter leaves the computation in the file, where no integer kernel takes its
result as a weight, or computes it with other rounding.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import tensorflow as tf

from tflite_export.conversion.uses import Uses


def fold(
    graph: tf.compat.v1.GraphDef, uses: Uses, weights: Collection[str]
) -> list[np.ndarray]:
    """Makes constants of what products read.

    Args:
        graph: Is changed.
        uses: Of the graph as it is; where a constant was made, it is no more.
        weights: Names of nodes that hold the model's weights; what is computed
            from these stays.

    Returns:
        The values of the constants.
    """
    found = uses.kernels(weights)
    nodes = {node.name: node for node in graph.node} if found else {}
    for (name, place), value in found.items():
        constant = graph.node.add(name=f"{name}/kernel_{place}", op="Const")
        proto = tf.make_tensor_proto(value)
        constant.attr["dtype"].type = proto.dtype
        constant.attr["value"].tensor.CopyFrom(proto)
        for reader, index in uses.readers((name, place)):
            nodes[reader].input[index] = constant.name
    return list(found.values())

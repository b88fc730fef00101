"""Nodes of a graph as bytes, with few copies of the weights in them.

A table of tokens can be a third of a model, and the converter gets all of it.
"""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
import tensorflow as tf

# Field 1 of a `GraphDef`, a node, of which the length follows.
_NODE = b"\x0a"


def write(stream: BinaryIO, node: tf.compat.v1.NodeDef) -> None:
    """Writes what a `GraphDef` of one node serializes to, without that copy."""
    data = node.SerializeToString()
    stream.write(_NODE + _varint(len(data)))
    stream.write(data)


def constant(name: str, value: np.ndarray) -> tf.compat.v1.NodeDef:
    """The node that `tf.make_tensor_proto` leads to, with one copy less."""
    found = tf.compat.v1.NodeDef(name=name, op="Const")
    tensor = found.attr["value"].tensor
    tensor.dtype = found.attr["dtype"].type = tf.float32.as_datatype_enum
    tensor.tensor_shape.CopyFrom(tf.TensorShape(value.shape).as_proto())
    tensor.tensor_content = value.tobytes()
    return found


def _varint(number: int) -> bytes:
    """A number as protocol buffers write it."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])

"""Dilated convolutions as one node.

TensorFlow writes one as a convolution of batches that hold every second pixel,
or every third. The converter makes one operator of that only where the batch
size is fixed. With an open one the file would copy all pixels twice, fold no
batch normalization, and fuse no activation, so that it would round where
training does not. For volumes it has no operator at all.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

# With the order of their axes, samples first and channels last.
_CONVOLUTIONS = {
    "Conv2D": b"NHWC",
    "Conv3D": b"NDHWC",
    "DepthwiseConv2dNative": b"NHWC",
}


def merged(
    nodes: Iterable[tf.compat.v1.NodeDef],
    value: Callable[[tf.compat.v1.NodeDef], np.ndarray | None],
) -> dict[str, tf.compat.v1.NodeDef]:
    """Finds dilated convolutions.

    `value` is a function of a node that returns what it holds; `None` if it is
    no constant. Returns the nodes to write in the place of others, by their
    names, which they keep.
    """
    known = {node.name: node for node in nodes}
    reads = collections.Counter(
        read.split(":")[0] for node in known.values() for read in node.input
    )
    found: dict[str, tf.compat.v1.NodeDef] = {}
    for node in known.values():
        if node.op == "BatchToSpaceND":
            pattern = _Pattern(known, reads, value, node)
            found.update({new.name: new for new in pattern.written()})
    return found


class _Pattern:
    """A convolution between two copies of all pixels.

    That of a sequence stands between two reshapes, inside of the copies.
    """

    def __init__(
        self,
        nodes: Mapping[str, tf.compat.v1.NodeDef],
        reads: Mapping[str, int],
        value: Callable[[tf.compat.v1.NodeDef], np.ndarray | None],
        end: tf.compat.v1.NodeDef,
    ):
        self._nodes = nodes
        self._reads = reads
        self._value = value
        self._end = end

    def written(self) -> list[tf.compat.v1.NodeDef]:
        """The changes to make; none where it is something else."""
        squeeze = self._read(self._end)
        is_sequence = squeeze is not None and squeeze.op == "Squeeze"
        convolution = self._read(squeeze) if is_sequence else squeeze
        expand = self._read(convolution) if is_sequence else convolution
        start = self._read(expand)
        if (
            squeeze is None
            or convolution is None
            or expand is None
            or start is None
            or not _is_plain(convolution)
            or start.op != "SpaceToBatchND"
            or expand.op != ("ExpandDims" if is_sequence else convolution.op)
            or any(
                self._reads[node.name] > 1
                for node in (squeeze, convolution, expand)
            )
        ):
            return []
        padding = self._padding(start, convolution, is_sequence)
        if padding is None:
            return []
        rates, kind = padding
        if convolution.op == "Conv3D" and kind == b"VALID":
            # TensorFlow 2.21 mistakes one rate for the other in the shape,
            # and its converter refuses what does not fit.
            if rates[1] != rates[2]:
                return []
        new = tf.compat.v1.NodeDef()
        new.CopyFrom(convolution)
        new.attr["dilations"].list.i[:] = [1, *([1] * is_sequence), *rates, 1]
        new.attr["padding"].s = kind
        end = tf.compat.v1.NodeDef(
            name=self._end.name, op="Identity", input=[squeeze.name]
        )
        end.attr["T"].CopyFrom(self._end.attr["T"])
        if not is_sequence:
            new.input[0] = start.input[0]
            return [new, end]
        image = tf.compat.v1.NodeDef()
        image.CopyFrom(expand)
        image.input[0] = start.input[0]
        return [image, new, end]

    def _read(
        self, node: tf.compat.v1.NodeDef | None, place: int = 0
    ) -> tf.compat.v1.NodeDef | None:
        """The node that another one reads."""
        if node is None or len(node.input) <= place:
            return None
        found = self._nodes.get(node.input[place].split(":")[0])
        if found is not None and found.op == "Identity":
            return self._read(found)
        return found

    def _constant(
        self, node: tf.compat.v1.NodeDef, place: int
    ) -> np.ndarray | None:
        found = self._read(node, place)
        return None if found is None else self._value(found)

    def _padding(
        self,
        start: tf.compat.v1.NodeDef,
        convolution: tf.compat.v1.NodeDef,
        is_sequence: bool,
    ) -> tuple[list[int], bytes] | None:
        """Rates along the pixels' axes, and how they are padded."""
        rates, pads = self._constant(start, 1), self._constant(start, 2)
        again, crops = (self._constant(self._end, k) for k in (1, 2))
        size = self._kernel(convolution)
        if rates is None or pads is None or crops is None or size is None:
            return None
        size = size[1:] if is_sequence else size
        if (
            again is None
            or not np.array_equal(rates, again)
            or len(rates) != len(size)
            or crops[:, 0].any()
        ):
            return None
        # What is padded so that all batches are of one size is cropped again.
        left, right = pads[:, 0], pads[:, 1] - crops[:, 1]
        whole = np.asarray(rates) * (np.asarray(size) - 1)
        if not left.any() and not right.any():
            return rates.tolist(), b"VALID"
        if (left == whole // 2).all() and (right == whole - left).all():
            return rates.tolist(), b"SAME"
        return None

    def _kernel(
        self, convolution: tf.compat.v1.NodeDef
    ) -> Sequence[int] | None:
        """Size of the kernel along the pixels' axes."""
        found = self._read(convolution, 1)
        value = None if found is None else self._value(found)
        if found is not None and found.op == "ExpandDims":
            value = self._constant(found, 0)
            return None if value is None else (1, value.shape[0])
        if value is None:
            return None
        return value.shape[: 3 if convolution.op == "Conv3D" else 2]


def _is_plain(node: tf.compat.v1.NodeDef) -> bool:
    return (
        node.attr["data_format"].s == _CONVOLUTIONS.get(node.op)
        and node.attr["padding"].s == b"VALID"
        and set(node.attr["strides"].list.i) == {1}
        and set(node.attr["dilations"].list.i) <= {1}
    )

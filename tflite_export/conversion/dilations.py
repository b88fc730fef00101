"""Dilated convolutions as one node.

TensorFlow writes a dilated convolution as a convolution of batches that hold
every second pixel, or every third. The converter makes one operator of it only
for a fixed batch size. With an open one the file would copy all pixels twice,
fold no batch normalization and fuse no activation, so it would round where
training does not. For volumes the converter has no operator at all.
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
) -> dict[str, list[tf.compat.v1.NodeDef]]:
    """Finds dilated convolutions.

    `value` is a function of a node that returns what it holds; `None` if it is
    no constant. Returns the nodes to write in the place of others, by their
    names: one keeps the name, and may read the rest.
    """
    known = {node.name: node for node in nodes}
    reads = collections.Counter(
        read.split(":")[0] for node in known.values() for read in node.input
    )
    found: dict[str, list[tf.compat.v1.NodeDef]] = {}
    for node in known.values():
        if node.op == "BatchToSpaceND":
            pattern = _Pattern(known, reads, value, node)
            found.update(pattern.written())
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

    def written(self) -> dict[str, list[tf.compat.v1.NodeDef]]:
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
            return {}
        padding = self._padding(start, convolution, is_sequence)
        if padding is None:
            return {}
        rates, whole, kind = padding
        last = [
            tf.compat.v1.NodeDef(
                name=self._end.name, op="Identity", input=[squeeze.name]
            )
        ]
        last[0].attr["T"].CopyFrom(self._end.attr["T"])
        volume = convolution.op == "Conv3D" and kind == b"VALID"
        if volume and rates[1] != rates[2]:
            # TensorFlow 2.21 mistakes one rate for the other in the shape, and
            # its converter refuses what does not fit. Padded pixels have none.
            kind = b"SAME"
            last = _inner(self._end, squeeze.name, whole)
        new = tf.compat.v1.NodeDef()
        new.CopyFrom(convolution)
        new.attr["dilations"].list.i[:] = [1, *([1] * is_sequence), *rates, 1]
        new.attr["padding"].s = kind
        changed = {new.name: [new], self._end.name: last}
        if not is_sequence:
            new.input[0] = start.input[0]
            return changed
        image = tf.compat.v1.NodeDef()
        image.CopyFrom(expand)
        image.input[0] = start.input[0]
        return {image.name: [image], **changed}

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
    ) -> tuple[list[int], np.ndarray, bytes] | None:
        """How a convolution goes along the axes of pixels, and pads them.

        Rates, by how much a kernel reaches over a pixel, and the padding.
        """
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
            return rates.tolist(), whole, b"VALID"
        if (left == whole // 2).all() and (right == whole - left).all():
            return rates.tolist(), whole, b"SAME"
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
        if found is not None and found.op == "Split":
            # In groups, along the last axis (`volumes`).
            value = self._constant(found, 1)
        if value is None:
            return None
        return value.shape[: 3 if convolution.op == "Conv3D" else 2]


def _inner(
    end: tf.compat.v1.NodeDef, read: str, whole: np.ndarray
) -> list[tf.compat.v1.NodeDef]:
    """Nodes that cut off what a convolution computed of padded pixels.

    The last has the name of `end`.
    """
    left = whole // 2
    cuts = {
        "begin": [0, *left, 0],
        "end": [0, *(left - whole), 0],
        "strides": [1] * (len(whole) + 2),
    }
    found = []
    for name, numbers in cuts.items():
        constant = tf.compat.v1.NodeDef(name=f"{end.name}/{name}", op="Const")
        proto = tf.make_tensor_proto(np.asarray(numbers, np.int32))
        constant.attr["dtype"].type = proto.dtype
        constant.attr["value"].tensor.CopyFrom(proto)
        found.append(constant)
    cut = tf.compat.v1.NodeDef(
        name=end.name,
        op="StridedSlice",
        input=[read, *(constant.name for constant in found)],
    )
    cut.attr["T"].CopyFrom(end.attr["T"])
    cut.attr["Index"].type = tf.int32.as_datatype_enum
    cut.attr["begin_mask"].i = 0
    # An end of 0 would be the beginning.
    cut.attr["end_mask"].i = sum(
        1 << axis for axis, number in enumerate(cuts["end"]) if not number
    )
    for name in ("ellipsis_mask", "new_axis_mask", "shrink_axis_mask"):
        cut.attr[name].i = 0
    return [*found, cut]


def _is_plain(node: tf.compat.v1.NodeDef) -> bool:
    return (
        node.attr["data_format"].s == _CONVOLUTIONS.get(node.op)
        and node.attr["padding"].s == b"VALID"
        and set(node.attr["strides"].list.i) == {1}
        and set(node.attr["dilations"].list.i) <= {1}
    )

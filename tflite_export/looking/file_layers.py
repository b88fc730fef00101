"""The weights of a file as layers of a page: codes, bytes, scales."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from msq_tf.page.records import Layer
from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer import names
from tflite_export.flatbuffer import packing
from tflite_export.targets import CONTAINERS
from tflite_export.text_tables import printable
from tflite_export.text_tables import short

# A page with more is read by nobody, and larger than it may be.
MOST_LAYERS = 1000
# Scales that are shown of one weight.
_MOST_SCALES = 256
# Elements beyond which the next width is not tried.
_MOST_TRIED = 1 << 23
_LONGEST_NAME = 120
_FLOAT_BITS = {"FLOAT16": 16, "FLOAT32": 32, "FLOAT64": 64}
# Types of integers whose codes are counted, with their bits.
_INTEGERS = {**CONTAINERS, "UINT8": 8}
# Axis of the output channels, where no scales tell it.
_CHANNEL_AXIS = {
    "CONV_2D": 0,
    "CONV_3D": 4,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 0,
    "TRANSPOSE_CONV": 0,
}
# Share of the codes at the ends, from so many bits, that is worth a word.
_MANY_AT_ENDS, _ENDS_BITS = 0.1, 4


@dataclasses.dataclass(frozen=True)
class Weight:
    """A constant of a file that is a weight.

    Attributes:
        graph: Index of the subgraph.
        tensor: Index of the tensor in it.
        operator: Place of the operator that computes with it.
        kind: Name of that operator.
        name: Name of the tensor, fit to be shown.
        type: Type of the tensor.
        shape: Its shape.
        data: Its bytes.
        scales: Its scales, of shape (number,), possibly empty.
        zero_point: Its first zero point.
        axis: Axis of the scales.
        shared: Whether an earlier weight has the same bytes.
    """

    graph: int
    tensor: int
    operator: int
    kind: str
    name: str
    type: str
    shape: tuple[int, ...]
    data: np.ndarray
    scales: np.ndarray
    zero_point: int
    axis: int
    shared: bool = False

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def codes(self) -> np.ndarray | None:
        """int16 array of its shape, 0 for zero; `None` for floats."""
        bits = _INTEGERS.get(self.type)
        if bits is None:
            return None
        if self.type == "UINT8":
            flat = self.data.astype(np.int16)
        else:
            flat = packing.unpack(self.data, bits, self.size).astype(np.int16)
        return (flat - np.int16(self.zero_point)).reshape(self.shape)

    @property
    def plain(self) -> bool:
        """Whether its scales fit its axes."""
        if self.scales.size <= 1:
            return self.axis < len(self.shape) or not self.scales.size
        return (
            self.axis < len(self.shape)
            and self.shape[self.axis] == self.scales.size
        )

    def per_element(self, values: np.ndarray) -> np.ndarray:
        """One value a channel, or one for all, as it broadcasts."""
        rank = [1] * len(self.shape)
        if values.size <= 1:
            return (values if values.size else np.ones(1)).reshape(rank)
        rank[self.axis] = -1
        return values.reshape(rank)


def weights(model: schema.ModelT) -> list[Weight]:
    """The weights of a parsed file in the order of its operators."""
    found = []
    buffers: set[int] = set()
    for weight, buffer in _weights(model):
        found.append(dataclasses.replace(weight, shared=buffer in buffers))
        buffers.add(buffer)
        if len(found) == MOST_LAYERS:
            break
    return found


def _weights(model: schema.ModelT) -> Iterator[tuple[Weight, int]]:
    for number, graph in enumerate(model.subgraphs):
        places = {id(op): k for k, op in enumerate(graph.operators)}
        behind: dict[int, schema.OperatorT] = {}
        for op in graph.operators:
            for index in fb.inputs(op):
                behind.setdefault(index, op)
        seen: set[int] = set()
        for op in graph.operators:
            for index in fb.inputs(op):
                if index < 0 or index in seen:
                    continue
                seen.add(index)
                tensor = graph.tensors[index]
                data = fb.raw_data(model, tensor)
                if data is None or not _is_weight(tensor):
                    continue
                reader = op
                if fb.op_name(model, op) == "DEQUANTIZE" and fb.outputs(op):
                    reader = behind.get(fb.outputs(op)[0], op)
                scales, zero = _grid(tensor)
                kind = _shown(fb.op_name(model, reader))
                axis = _CHANNEL_AXIS.get(kind, 0)
                if scales.size > 1:
                    axis = int(tensor.quantization.quantizedDimension)
                place = places[id(reader)]
                yield (
                    Weight(
                        graph=number,
                        tensor=index,
                        operator=place,
                        kind=kind,
                        name=_shown(names.own(tensor)) or f"{kind} {place}",
                        type=fb.type_name(tensor),
                        shape=fb.shape(tensor),
                        data=data,
                        scales=scales,
                        zero_point=zero,
                        axis=axis,
                    ),
                    tensor.buffer,
                )


def _is_weight(tensor: schema.TensorT) -> bool:
    if tensor.sparsity is not None or math.prod(fb.shape(tensor)) < 1:
        return False
    kind = fb.type_name(tensor)
    axes = len(fb.shape(tensor))
    if kind in _INTEGERS:
        return axes >= 2 and bool(_grid(tensor)[0].size)
    return kind in _FLOAT_BITS and axes >= 2


def _grid(tensor: schema.TensorT) -> tuple[np.ndarray, int]:
    q = tensor.quantization
    if q is None or q.scale is None or not len(q.scale):
        return np.zeros(0, np.float32), 0
    zeros = [] if q.zeroPoint is None else q.zeroPoint
    zero = int(zeros[0]) if len(zeros) else 0
    # What no byte holds is no zero point of bytes.
    return np.asarray(q.scale, np.float32), min(max(zero, -128), 255)


def _shown(name: str) -> str:
    return short(printable(name), _LONGEST_NAME)


def layer(weight: Weight, total: int) -> Layer:
    """A weight of a file of `total` bytes, as a page shows it."""
    codes = weight.codes
    stored = 0 if weight.shared else int(weight.data.size)
    common: dict[str, Any] = {
        "key": weight.name,
        "name": weight.name,
        "kind": weight.kind,
        "shape": weight.shape,
        "size": weight.size,
        "type": weight.type,
        "stored_bytes": stored,
        "share": stored / total if total else None,
        "operator": None if weight.graph else weight.operator,
    }
    shared = ("another weight has the same bytes; they are stored once",)
    remarks = shared if weight.shared else ()
    if codes is None:
        bits = _FLOAT_BITS[weight.type]
        return Layer(bits=bits, ideal_bytes=stored, remarks=remarks, **common)
    values, counts = np.unique(codes, return_counts=True)
    bits = used_bits(values)
    top = max(2 ** (bits - 1) - 1, 1)
    at_ends = int(counts[np.abs(values) >= top].sum())
    rim = at_ends / codes.size
    # The largest weight of each scale stands there and loses nothing.
    lost = (at_ends - weight.scales.size) / codes.size
    share = counts / codes.size
    dead, channels = _dead(weight, codes)
    if lost > _MANY_AT_ENDS and bits >= _ENDS_BITS:
        remarks = (
            *remarks,
            f"{rim:.0%} of the codes stand at the ends of the grid: large "
            "weights were clipped",
        )
    if dead:
        remarks = (
            *remarks,
            f"{dead:,} of {channels:,} channels are all zero: fewer would do",
        )
    following = next_width(bits, weight.type)
    ideal = 0 if weight.shared else -(-weight.size * bits // 8)
    return Layer(
        bits=bits,
        ideal_bytes=ideal,
        codes=tuple(zip(values.tolist(), counts.tolist(), strict=True)),
        entropy=abs(float((share * np.log2(share)).sum())),
        dead=dead,
        channels=channels,
        rim=rim,
        scales=tuple(
            map(float, weight.scales[np.isfinite(weight.scales)][:_MOST_SCALES])
        ),
        scale_count=int(weight.scales.size),
        next_bits=following,
        next_saves=None
        if following is None
        else max(ideal - packing.packed_size(weight.size, following), 0),
        next_noise=None
        if following is None or codes.size > _MOST_TRIED or not weight.plain
        else noise(weight, codes, following),
        remarks=remarks,
        **common,
    )


def used_bits(values: np.ndarray) -> int:
    """Smallest width from 2 whose symmetric grid holds all codes."""
    top = int(np.abs(values.astype(np.int64)).max(initial=0))
    return max(top.bit_length() + 1, 2)


def next_width(bits: int, kind: str) -> int | None:
    """The widest container that is narrower than a weight's own."""
    below = [
        width
        for width in CONTAINERS.values()
        if width < bits and width < _INTEGERS.get(kind, 0)
    ]
    return max(below, default=None)


def noise(weight: Weight, codes: np.ndarray, bits: int) -> float:
    """Error of a weight that is rounded to fewer bits, relative to itself."""
    values = codes.astype(np.float32)
    others = tuple(k for k in range(values.ndim) if k != weight.axis)
    largest = np.abs(values).max(axis=others, keepdims=True)
    step = np.maximum(largest, 1e-9) / (2 ** (bits - 1) - 1)
    rounded = np.round(values / step) * step
    scale = weight.per_element(weight.scales)
    with np.errstate(all="ignore"):
        error = np.square((rounded - values) * scale, dtype=np.float64).sum()
        power = np.square(values * scale, dtype=np.float64).sum()
        return float(np.sqrt(error / power)) if power > 0 else 0.0


def _dead(weight: Weight, codes: np.ndarray) -> tuple[int | None, int | None]:
    if not (weight.scales.size > 1 or weight.kind in _CHANNEL_AXIS):
        return None, None
    if weight.axis >= codes.ndim:
        return None, None
    others = tuple(k for k in range(codes.ndim) if k != weight.axis)
    alive = codes.any(axis=others)
    return int(alive.size - np.count_nonzero(alive)), int(alive.size)

"""Inputs and outputs of a file: types, scales, and units of their error."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer.operators import RANDOM

_DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "FLOAT32": np.dtype(np.float32),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "UINT8": np.dtype(np.uint8),
}


@dataclasses.dataclass(frozen=True)
class Port:
    """One input or output of a file.

    Attributes:
        name: Name of its tensor.
        dtype: NumPy type.
        shape: Shape; 1 where the file leaves an axis open.
        scale: Value of one unit. For a float output that a DEQUANTIZE writes
            it is that of the integers behind it; `None` for other floats.
        zero_point: Integer that stands for 0.
        axes: Shape with -1 for the axes that the file leaves open.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    scale: float | None
    zero_point: int
    axes: tuple[int, ...] = ()

    def quantize(self, array: np.ndarray) -> np.ndarray:
        """Real values as the file takes them; integers stay."""
        array = np.asarray(array)
        if self.dtype.kind not in "iu" or array.dtype.kind != "f":
            return array.astype(self.dtype, copy=False)
        if self.scale is None:
            return array.astype(self.dtype)
        info = np.iinfo(self.dtype)
        codes = np.round(array / self.scale) + self.zero_point
        return np.clip(codes, info.min, info.max).astype(self.dtype)

    def real(self, array: np.ndarray) -> np.ndarray:
        """The numbers that the file's values stand for, as float64."""
        values = np.asarray(array).astype(np.float64)
        if self.dtype.kind == "f" or self.scale is None:
            return values
        return (values - self.zero_point) * self.scale


def inputs(data: bytes) -> list[Port]:
    """Inputs of the main graph."""
    model = fb.read(data)
    graph = model.subgraphs[0]
    return [_port(graph.tensors[i]) for i in fb.inputs(graph)]


def input_grids(data: bytes) -> list[Port | None]:
    """The integers that hold each input; `None` where floats are read.

    Those of the input itself, or of what a QUANTIZE makes of it.
    """
    model = fb.read(data)
    graph = model.subgraphs[0]
    behind = {
        fb.inputs(op)[0]: fb.outputs(op)[0]
        for op in graph.operators or ()
        if fb.op_name(model, op) == "QUANTIZE"
        and fb.outputs(op)
        and min(fb.inputs(op)[:1], default=-1) >= 0
    }
    found: list[Port | None] = []
    for index in fb.inputs(graph):
        tensor = graph.tensors[index]
        if fb.type_name(tensor) == "FLOAT32":
            tensor = graph.tensors[behind.get(index, index)]
        kind = _DTYPES.get(fb.type_name(tensor))
        port = None if kind is None or kind.kind not in "iu" else _port(tensor)
        found.append(None if port is None or port.scale is None else port)
    return found


def outputs(data: bytes) -> list[Port]:
    """Outputs of the main graph."""
    model = fb.read(data)
    graph = model.subgraphs[0]
    behind = {
        fb.outputs(op)[0]: fb.inputs(op)[0]
        for op in graph.operators or ()
        if fb.op_name(model, op) == "DEQUANTIZE"
        and fb.outputs(op)
        and min(fb.inputs(op)[:1], default=-1) >= 0
    }
    ports = []
    for index in fb.outputs(graph):
        port = _port(graph.tensors[index])
        if port.scale is None and index in behind:
            integers = _port(graph.tensors[behind[index]])
            port = dataclasses.replace(port, scale=integers.scale)
        ports.append(port)
    return ports


def passed_through(data: bytes) -> str | None:
    """Reason why `CompiledModel` computes wrong outputs; `None` for right ones.

    It does where an input is an output, too: then all of them are wrong, in
    LiteRT 2.3.0 and LiteRT.js 2.5.3, on CPU and GPU. The interpreter is right.
    """
    graph = fb.read(data).subgraphs[0]
    for index in set(fb.inputs(graph)) & set(fb.outputs(graph)):
        return (
            f"the input '{fb.name(graph.tensors[index])}' is an output, too: "
            "LiteRT's CompiledModel gives wrong values for all outputs of "
            "such a file, and its interpreter right ones"
        )
    return None


def closed(
    data: bytes, given: Sequence[np.ndarray], results: Sequence[np.ndarray]
) -> bytes:
    """The same file for one shape of inputs, where it leaves axes open.

    `CompiledModel` makes buffers for outputs by the shapes in the file, and
    writes past their end if a run gives more (LiteRT 2.3.0).

    Args:
        data: The bytes of a file.
        given: Arrays as the file takes them, in the order of its inputs.
        results: What it makes of them.
    """
    if all(-1 not in port.axes for port in (*inputs(data), *outputs(data))):
        return data
    model = fb.load(data)
    graph = model.subgraphs[0]
    indices = (*fb.inputs(graph), *fb.outputs(graph))
    for index, array in zip(indices, (*given, *results), strict=True):
        graph.tensors[index].shape = np.array(array.shape, np.int32)
        graph.tensors[index].shapeSignature = None
    return fb.dump(model)


def draws(data: bytes) -> str | None:
    """Reason why two runs of a file differ; `None` for one that repeats."""
    model = fb.read(data)
    for graph in model.subgraphs:
        for op in graph.operators:
            kind = fb.op_name(model, op)
            if kind in RANDOM:
                return f"{kind} draws new numbers at every run"
    return None


def quantized(data: bytes, samples: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Samples as a file takes them, see `Port.quantize`."""
    return [
        port.quantize(array)
        for port, array in zip(inputs(data), samples, strict=True)
    ]


def whole_batches(
    data: bytes, samples: Sequence[np.ndarray], most: int
) -> list[np.ndarray]:
    """The first samples, as many as fill batches of the file.

    At most so many, if a batch is not larger.

    Raises:
        ValueError: If there are fewer samples than one batch takes.
    """
    size = max((port.shape or (1,))[0] for port in inputs(data))
    count = min(max(most, size), len(samples[0])) // size * size
    if not count:
        raise ValueError(
            "There are too few samples (arguments representative_data, "
            f"samples). Expected at least {size} samples, one batch of the "
            f"file (argument batch_size). Received: {len(samples[0])}"
        )
    return [array[:count] for array in samples]


def units(
    ports: Sequence[Port],
    got: Sequence[np.ndarray],
    wanted: Sequence[np.ndarray],
) -> float:
    """Largest difference of two runs in units of their outputs.

    Outputs without a scale count in float32 terms: 0 where they are close to
    equal, infinite where they are not.
    """
    worst = 0.0
    for port, a, b in zip(ports, got, wanted, strict=True):
        difference = np.abs(a.astype(np.float64) - b.astype(np.float64))
        top = float(np.where(np.isnan(difference), np.inf, difference).max())
        if port.dtype.kind == "f":
            if port.scale is None:
                top = 0.0 if np.allclose(a, b, 1e-4, 1e-5) else np.inf
            else:
                top /= port.scale
        worst = max(worst, top)
    # A DEQUANTIZE rounds to float32.
    nearest = round(worst) if np.isfinite(worst) else worst
    return float(nearest) if abs(worst - nearest) < 1e-3 else worst


def _port(tensor: schema.TensorT) -> Port:
    name = fb.type_name(tensor)
    if name not in _DTYPES:
        raise ValueError(
            f"Inputs and outputs of the type {name} can't be run. Expected "
            f"one of {', '.join(_DTYPES)}. Received: '{fb.name(tensor)}'"
        )
    q = tensor.quantization
    scale = zero_point = None
    if q is not None and q.scale is not None and len(q.scale) == 1:
        scale = float(q.scale[0])
        zeros = [] if q.zeroPoint is None else q.zeroPoint
        zero_point = int(zeros[0]) if len(zeros) else 0
        if scale <= 0:
            raise ValueError(
                "Inputs and outputs need a positive scale. Received: "
                f"{scale} for '{fb.name(tensor)}'"
            )
    return Port(
        name=fb.name(tensor),
        dtype=_DTYPES[name],
        shape=fb.shape(tensor),
        scale=scale,
        zero_point=zero_point or 0,
        axes=fb.axes(tensor),
    )

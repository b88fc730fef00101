"""How far each tensor of a file is from its float model's, on real inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import model as fb
from tflite_export.looking import reference
from tflite_export.runtime import interpreter
from tflite_export.runtime import ports
from tflite_export.verification import float_twin

# No error at all is as good as this, in decibels.
_MOST_DECIBELS = 120.0
# Steps beyond a range from which a value is lost: of the largest value of a
# softmax one is.
_BEYOND = 1.5
# Below this accumulated SNR a tensor has gone wrong: a third is error.
WRONG_DECIBELS = 10.0
_ENDS = {"INT8": (-128, 127), "INT16": (-32768, 32767), "UINT8": (0, 255)}


@dataclasses.dataclass
class _Sums:
    """What is added up over samples."""

    signal: float = 0.0
    isolated: float | None = None
    accumulated: float | None = None
    largest: float = 0.0
    ends: int = 0
    beyond: int = 0
    count: int = 0

    def decibels(self, noise: float | None) -> float | None:
        """Signal to noise; `None` where it is not known."""
        if noise is None or not np.isfinite([noise, self.signal]).all():
            return None
        if noise <= 0.0:
            return _MOST_DECIBELS
        if self.signal <= 0.0:
            return -_MOST_DECIBELS
        ratio = 10.0 * np.log10(self.signal / noise)
        return float(np.clip(ratio, -_MOST_DECIBELS, _MOST_DECIBELS))


def measure(
    data: bytes,
    floats: Mapping[int, np.ndarray],
    samples: Sequence[np.ndarray],
) -> list[dict[str, Any]]:
    """Runs a file and its float model, and compares what both compute.

    Args:
        data: The bytes of a TFLite file.
        floats: Float weights by the index of their tensor.
        samples: Inputs, one array per input of real values.

    Returns:
        For each integer input, and each tensor that an operator writes, in
        order: its index, its operator's place, the SNR in decibels where only
        that operator is quantized and where all before it are, the largest
        difference in units of its grid, the share of its values at the ends
        of the grid and of those that lie beyond them where the weights are
        those of the codes and nothing else is quantized.

    Raises:
        ValueError: If the file has no float model, see `reference`.
        RuntimeError: If one of them can't be run.
    """
    twin = reference.unquantized(data, floats)
    model = fb.read(data)
    graph = model.subgraphs[0]
    plain = interpreter.Session(twin.data, "builtin", keep_all=True)
    # Ranges belong to the weights that the file has.
    coded = plain
    if floats:
        own = reference.unquantized(data, {})
        coded = interpreter.Session(own.data, "builtin", keep_all=True)
    shown = _Shown(data)
    ends = ports.inputs(data)
    written = list(_written(model, twin))
    sums = {index: _Sums() for index, _ in written}
    alone: tuple[reference.Apart, interpreter.Session] | None = None
    size = len(samples[0])
    for piece in interpreter.chunks(samples, size, plain):
        fed = [p.quantize(x) for p, x in zip(ends, piece, strict=True)]
        real = [
            (p.real(x) if x.dtype.kind in "iu" and p.scale else x)
            for p, x in zip(ends, piece, strict=True)
        ]
        plain(real)
        if coded is not plain:
            coded(real)
        shown.run(fed)
        recorded = _recorded(model, twin, plain)
        if alone is None:
            graphs = reference.apart(data, recorded)
            alone = graphs, interpreter.Session(graphs.data, "builtin")
        computed = _computed(alone, recorded)
        for index, _ in written:
            wanted = recorded[twin.root[index]].astype(np.float64)
            _add(
                sums[index],
                graph.tensors[index],
                wanted,
                shown.value(index),
                computed.get(index, wanted),
                coded.tensor(twin.root[index]),
            )
    return [
        {
            "tensor": index,
            "operator": place,
            "isolated": sums[index].decibels(sums[index].isolated),
            "accumulated": sums[index].decibels(sums[index].accumulated),
            "units": sums[index].largest
            if reference.quantized(graph.tensors[index])
            else None,
            "rim": _share(sums[index].ends, sums[index].count),
            "clipped": _share(sums[index].beyond, sums[index].count),
        }
        for index, place in written
    ]


def _share(part: int, count: int) -> float | None:
    return part / count if count else None


class _Shown:
    """A file whose tensors can be seen after a run."""

    def __init__(self, data: bytes):
        try:
            self._session = interpreter.Session(data, "builtin", keep_all=True)
        except RuntimeError:
            # Only a delegate runs it, which shows what is an output.
            self._session = interpreter.Session(
                float_twin.probe(data), "xnnpack"
            )

    def run(self, arrays: Sequence[np.ndarray]) -> None:
        """Runs one batch."""
        self._session(arrays)

    def value(self, index: int) -> np.ndarray | None:
        """A tensor of the last run; `None` where it is not to be had."""
        try:
            return self._session.tensor(index)
        except (ValueError, IndexError):
            return None


def _written(
    model: schema.ModelT, twin: reference.Reference
) -> Iterator[tuple[int, int | None]]:
    """Tensors that are compared, and the place of what writes them."""
    graph = model.subgraphs[0]
    for index in dict.fromkeys(fb.inputs(graph)):
        if reference.quantized(graph.tensors[index]):
            yield index, None
    for place, op in enumerate(graph.operators):
        if fb.op_name(model, op) == "DEQUANTIZE":
            continue  # it gives what it reads
        for index in fb.outputs(op):
            tensor = graph.tensors[index]
            constant = graph.tensors[twin.root[index]]
            if (
                reference.quantized(tensor) or fb.type_name(tensor) == "FLOAT32"
            ) and fb.raw_data(model, constant) is None:
                yield index, place


def _recorded(
    model: schema.ModelT,
    twin: reference.Reference,
    plain: interpreter.Session,
) -> dict[int, np.ndarray]:
    """All activations of the float model, by index."""
    graph = model.subgraphs[0]
    wanted = dict.fromkeys(fb.inputs(graph))
    for op in graph.operators:
        wanted |= dict.fromkeys(fb.outputs(op))
    roots = dict.fromkeys(twin.root[index] for index in wanted)
    return {
        index: plain.tensor(index)
        for index in roots
        if fb.raw_data(model, graph.tensors[index]) is None
    }


def _computed(
    alone: tuple[reference.Apart, interpreter.Session],
    recorded: Mapping[int, np.ndarray],
) -> dict[int, np.ndarray]:
    """What each operator gives on what the float model has before it."""
    graphs, session = alone
    results = session([recorded[index] for index in graphs.inputs])
    return dict(zip(graphs.outputs, results, strict=True))


def _add(
    sums: _Sums,
    tensor: schema.TensorT,
    wanted: np.ndarray,
    got: np.ndarray | None,
    computed: np.ndarray,
    coded: np.ndarray,
) -> None:
    sums.signal += float(np.square(wanted).sum())
    alone = computed.astype(np.float64)
    scale, zero = _grid(tensor)
    ends = _ENDS.get(fb.type_name(tensor))
    if scale is not None and ends is not None:
        codes = np.clip(np.round(alone / scale) + zero, *ends)
        alone = (codes - zero) * scale
    if alone.shape == wanted.shape:
        sums.isolated = (sums.isolated or 0.0) + float(
            np.square(alone - wanted).sum()
        )
    if got is None or got.shape != wanted.shape:
        return
    real = got.astype(np.float64)
    if scale is not None:
        if ends is not None:
            # Zeros behind a ReLU stand at an end and lose nothing.
            clipped = [end for end in ends if end != zero]
            sums.ends += int(np.isin(got, clipped).sum())
            low, high = ((end - zero) * scale for end in ends)
            outside = np.maximum(low - coded, coded - high)
            sums.beyond += int((outside > _BEYOND * scale).sum())
            sums.count += got.size
        real = (real - zero) * scale
    off = np.abs(real - wanted)
    sums.accumulated = (sums.accumulated or 0.0) + float(np.square(off).sum())
    if scale is not None:
        sums.largest = max(sums.largest, float(off.max(initial=0)) / scale)


def _grid(tensor: schema.TensorT) -> tuple[float | None, int]:
    if not reference.quantized(tensor) or len(tensor.quantization.scale) != 1:
        return None, 0
    zeros = tensor.quantization.zeroPoint
    zero = int(zeros[0]) if zeros is not None and len(zeros) else 0
    return float(tensor.quantization.scale[0]), zero


def first_wrong(rows: Sequence[Mapping[str, Any]]) -> int | None:
    """Place of the first row whose error has become too much."""
    for place, row in enumerate(rows):
        found = row["accumulated"]
        if found is not None and found < WRONG_DECIBELS:
            return place
    return None

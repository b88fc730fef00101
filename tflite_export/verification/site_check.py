"""Compares Keras and a file point by point, on the file's own values.

From end to end the two may be far apart though both are right: a sum falls on
a tie in one of them, which is one unit, and the network amplifies it. So Keras
runs once more, and at each quantization point (a site) the file's values
replace those of Keras. The difference at a site then comes from the operators
since the site before, on the same inputs. It has to be within the units that
these operators may be off, and seldom be there at all. Then these units are the
only difference of the two.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from tflite_export.conversion.source import Source
from tflite_export.flatbuffer import model as fb
from tflite_export.integer import factors
from tflite_export.runtime import interpreter
from tflite_export.runtime import ports
from tflite_export.targets import Target
from tflite_export.verification import arrangement
from tflite_export.verification import float_twin
from tflite_export.verification.amplification import MOST_ON_AVERAGE

# Of few values as many may be off.
_FEW = 2
# An average of two or four integers is a tie every second or fourth time.
_TIES = 0.5
# What a weight passes on its way.
_OF_TABLES = {
    "BROADCAST_TO",
    "DEQUANTIZE",
    "EXPAND_DIMS",
    "QUANTIZE",
    "RESHAPE",
    "SLICE",
    "STRIDED_SLICE",
    "TRANSPOSE",
}
# What rounding is off by, on average, where what follows averages it.
_ROUNDING = 0.25


@dataclasses.dataclass
class SiteDifference:
    """The difference at one site or output.

    Attributes:
        name: Name of the tensor in the file.
        op: The operator that computes it.
        limit: Units that it may be off, one or for each channel; `None` where
            the file rounds in between, so that nothing is known.
        excess: Largest difference beyond the limit, in units.
        units: Largest difference in units.
        off: How many values differ.
        total: Sum of all differences in units, without what the rounding of a
            bias explains.
        size: How many values there are.
    """

    name: str
    op: str
    limit: np.ndarray | None
    most: float = MOST_ON_AVERAGE
    excess: int = 0
    units: int = 0
    off: int = 0
    total: int = 0
    size: int = 0

    @property
    def wrong(self) -> bool:
        """Whether there is more than single units explain."""
        if self.limit is None:
            return False
        most = max(_FEW, self.most * self.size)
        return self.excess > 0 or self.total > most

    def add(self, got: np.ndarray, wanted: np.ndarray) -> None:
        """Takes in more values, in units."""
        apart = np.abs(got - wanted)
        self.units = max(self.units, int(apart.max(initial=0)))
        self.off += int((apart > 0).sum())
        self.size += apart.size
        if self.limit is None:
            return
        excess = apart - self.limit
        self.excess = max(self.excess, int(excess.max(initial=0)))
        slack = self.limit - self.limit.min()
        self.total += int(np.maximum(apart - slack, 0).sum())


def compare(
    data: bytes,
    source: Source,
    kernels: str | None,
    chunks: Sequence[Sequence[np.ndarray]],
    sites: Mapping[int, int],
    target: Target,
    rounded: Collection[int] = (),
) -> list[SiteDifference]:
    """Compares all sites, in the order of execution, and then outputs.

    Args:
        data: The bytes of an integer file.
        source: The Keras model, with trained ranges.
        kernels: The kernel set; `None` for the float twin.
        chunks: Batches of inputs as the file takes them.
        sites: Tensor of the file by the position of the site.
        target: Where the file shall run.
        rounded: Weights that Keras has in float, so that what they give can't
            be compared.
    """
    shown = float_twin.probe(data)
    model = fb.load(shown)
    graph = model.subgraphs[0]
    if kernels is None:
        shown, kernels = float_twin.chained(shown).data, "builtin"
    session = interpreter.Session(shown, kernels)
    taken = ports.inputs(data)
    ends = _ends(fb.read(data))
    rest = [
        (place, index)
        for place, index in enumerate(ends)
        if index is not None and index not in sites.values()
    ]
    # A table that is read at known places: the file has its codes, unrounded.
    constants = {
        index: values
        for index in set(sites.values())
        if (values := _constant(model, index)) is not None
    }
    segments = _Segments(model, set(sites.values()), source, target, rounded)
    found: dict[int, SiteDifference] = {}
    file: dict[int, np.ndarray] = {}

    def note(index: int, value: np.ndarray) -> np.ndarray:
        scale, zero = _grid(graph.tensors[index])
        if index not in found:
            found[index] = segments.difference(index)
        codes = file[index].astype(np.int64) - zero
        if codes.size == value.size:
            own = np.round(value / np.float64(scale))
            low, high = _LIMITS[fb.type_name(graph.tensors[index])]
            own = np.clip(own, low - zero, high - zero).astype(np.int64)
            codes = arrangement.arranged(codes, own, segments.moves(index))
            found[index].add(codes, own.reshape(codes.shape))
        return (codes * np.float64(scale)).astype(np.float32)

    def tap(site: int, value: tf.Tensor) -> tf.Tensor:
        index = sites.get(site)
        # What is read in float only has no grid in the file.
        if index is None or not segments.has_grid(index):
            return value
        real = constants.get(index)
        if real is None:
            real = note(index, value.numpy())
        if real.size != value.numpy().size:
            return value
        return tf.reshape(tf.constant(real), value.shape)

    kept: list[dict[int, np.ndarray]] = []

    def run_before() -> Iterator[Sequence[np.ndarray]]:
        """The chunks, each as soon as the file has computed it."""
        for chunk in chunks:
            results = session(
                [p.quantize(x) for p, x in zip(taken, chunk, strict=True)]
            )
            file.update(zip(fb.outputs(graph), results, strict=True))
            kept.append({index: file[index] for _, index in rest})
            yield chunk

    for outputs, own in zip(
        source.predict(run_before(), tap), kept, strict=True
    ):
        file.update(own)
        for place, index in rest:
            note(index, outputs[place])
    return list(found.values())


_LIMITS = {"INT8": (-128, 127), "INT16": (-32768, 32767)}


def _grid(tensor: schema.TensorT) -> tuple[float, int]:
    q = tensor.quantization
    return float(q.scale[0]), int(q.zeroPoint[0])


def _constant(model: schema.ModelT, index: int) -> np.ndarray | None:
    """What a tensor holds that no operator computes, else `None`."""
    return float_twin.constant_values(model, model.subgraphs[0].tensors[index])


def _ends(model: schema.ModelT) -> list[int | None]:
    """The integer tensor of each output, `None` where it has none."""
    graph = model.subgraphs[0]
    behind = {
        fb.outputs(op)[0]: fb.inputs(op)[0]
        for op in graph.operators
        if fb.op_name(model, op) == "DEQUANTIZE"
    }
    known = set(float_twin.activations(model))
    found = [behind.get(index, index) for index in fb.outputs(graph)]
    return [index if index in known else None for index in found]


class _Segments:
    """What lies between the tensors of sites in an integer file."""

    def __init__(
        self,
        model: schema.ModelT,
        sites: set[int],
        source: Source,
        target: Target,
        rounded: Collection[int],
    ):
        self._model = model
        self._graph = model.subgraphs[0]
        self._sites = sites
        self._target = target
        self._rounded = set(rounded)
        self._rounds_biases = source.rounds_biases
        self._writers = fb.writers(self._graph)

    def difference(self, index: int) -> SiteDifference:
        """An empty record of a tensor."""
        name = fb.name(self._graph.tensors[index])
        op = self._writers.get(index)
        kind = "input" if op is None else fb.op_name(self._model, op)
        limit, ties = self._limit(index)
        if self._is_table(index):
            # The grid was learned from these few values, which are ties at its
            # ends: Keras breaks them upwards, QUANTIZE away from zero.
            ties = max(ties, _TIES)
        return SiteDifference(name, kind, limit, max(MOST_ON_AVERAGE, ties))

    def moves(self, index: int) -> list[arrangement.Move]:
        """The operators that move a tensor before it is written."""
        found: list[arrangement.Move] = []
        while (op := self._writers.get(index)) is not None:
            name = fb.op_name(self._model, op)
            if name not in ("RESHAPE", "TRANSPOSE"):
                break
            index = fb.inputs(op)[0]
            axes = None
            if name == "TRANSPOSE":
                tensor = self._graph.tensors[fb.inputs(op)[1]]
                axes = fb.constant(self._model, tensor)
                if axes is None:
                    break
            found.append((fb.shape(self._graph.tensors[index]), axes))
        return found

    def _limit(self, index: int) -> tuple[np.ndarray | None, float]:
        """Units that a tensor may be off, and by ties on average."""
        own, extra, ties, at = self._scale(index), 0, 0.0, index
        while (op := self._writers.get(at)) is not None:
            reads = self._reads(op)
            name = fb.op_name(self._model, op)
            if len(reads) != 1:
                break
            between = 0.0
            if name == "QUANTIZE" and self._is_integer(reads[0]):
                between = self._scale(reads[0]) / own
                extra += math.ceil(between)
            elif self._mixes(op):
                # It averages what it reads, errors as well, and rounds anew.
                units = self._scale(at) / own
                extra += math.ceil(units) * bool(ties)
                ties += units * (_ROUNDING if ties else _TIES)
            elif not self._moves(op):
                break
            at = reads[0]
            if at in self._sites:
                return np.array(1 + extra), ties
            if between:
                # On a grid that training does not know it was rounded before.
                ties += between * _ROUNDING + MOST_ON_AVERAGE
        if op is None:
            return np.array(1 + extra), ties
        if self._rounded & set(fb.inputs(op)) or not all(
            self._known(i, own) for i in self._reads(op)
        ):
            return None, ties
        units = self._target.operator_units(fb.op_name(self._model, op))
        return units + extra + self._of_bias(op, own), ties

    def _of_bias(self, op: schema.OperatorT, own: float) -> np.ndarray:
        """Units that the rounding of a bias is worth, for each channel."""
        row = self._target.operators.get(fb.op_name(self._model, op))
        places = [
            index
            for place, index in enumerate(fb.inputs(op))
            if row is not None and row.role(place) == "bias" and index >= 0
        ]
        if self._rounds_biases or not places:
            return np.array(0)
        scale = np.asarray(
            self._graph.tensors[places[0]].quantization.scale, np.float64
        )
        return np.ceil(0.5 * scale / own)

    def _known(self, index: int, own: float) -> bool:
        """Whether a tensor holds what Keras goes on with."""
        if index in self._sites:
            return True
        op = self._writers.get(index)
        if op is None:
            return True
        name = fb.op_name(self._model, op)
        if name == "QUANTIZE" and self._is_integer(fb.inputs(op)[0]):
            # One of several parts, converted to the grid of the whole.
            if self._scale(index) != own:
                return False
        elif not (self._moves(op) or not self._is_integer(index)):
            return False
        return all(self._known(i, own) for i in self._reads(op))

    def _moves(self, op: schema.OperatorT) -> bool:
        row = self._target.operators.get(fb.op_name(self._model, op))
        if row is not None and row.output == "same":
            # Of one pixel there are copies only.
            return not row.mixes or self._pixels(fb.inputs(op)[0]) == 1
        return factors.keeps_codes(self._model, op)

    def _mixes(self, op: schema.OperatorT) -> bool:
        row = self._target.operators.get(fb.op_name(self._model, op))
        return row is not None and row.mixes and not self._moves(op)

    def _pixels(self, index: int) -> int:
        return math.prod(fb.axes(self._graph.tensors[index])[1:-1])

    def _reads(self, op: schema.OperatorT) -> list[int]:
        """The inputs of an operator that are no constants."""
        return [
            i
            for i in fb.inputs(op)
            if i >= 0
            and fb.raw_data(self._model, self._graph.tensors[i]) is None
        ]

    def _is_table(self, index: int) -> bool:
        """Whether a tensor holds a weight, whatever the data is."""
        while (op := self._writers.get(index)) is not None:
            if fb.op_name(self._model, op) not in _OF_TABLES:
                return False
            index = fb.inputs(op)[0]
        return fb.is_constant(self._model, self._graph, index)

    def has_grid(self, index: int) -> bool:
        """Whether a tensor holds codes."""
        found = self._graph.tensors[index].quantization
        return found is not None and found.scale is not None

    def _is_integer(self, index: int) -> bool:
        return fb.type_name(self._graph.tensors[index]) in _LIMITS

    def _scale(self, index: int) -> float:
        return _grid(self._graph.tensors[index])[0]


def explanation(
    found: Sequence[SiteDifference], partly: bool = False
) -> tuple[bool, str]:
    """Whether single units explain a difference at the output, and how.

    With `partly` sites may be left out behind which the file is known to round
    where Keras does not.
    """
    for difference in found:
        if difference.wrong:
            return False, (
                "on the very inputs that the file computed before, "
                f"{difference.op} ('{difference.name}') differs from Keras by "
                f"{difference.units} units, in {difference.off} of "
                f"{difference.size:,} values"
            )
    known = [d for d in found if d.limit is not None]
    unknown = len(found) - len(known)
    off, size = sum(d.off for d in known), sum(d.size for d in known)
    words = (
        f"on what the file computed before, {off} of {size:,} values at "
        f"{len(known)} sites differ from Keras, by a unit or so"
    )
    if unknown:
        words += f", and {unknown} sites can't be compared"
    return partly or not unknown, f"{words}; the network amplifies that"

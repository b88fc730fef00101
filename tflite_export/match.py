"""Which tensor of a converted file holds which trained weight.

Matching is by value and needs no names: every element of a matched tensor is
proven to be its trained code times the factor of its channel. What the
converter did in between (permuting, batch-norm folding, sharing) is found
out, not assumed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from msq_tf.weights import Layout
from msq_tf.weights import QuantizedWeight
from tflite_export import explain
from tflite_export import fit as fitting
from tflite_export import flatbuffer as fb
from tflite_export import unfold
from tflite_export.errors import ExportError
from tflite_export.layouts import Arrangement
from tflite_export.layouts import arrangements
from tflite_export.layouts import slices

# Inputs of operators that hold weights. A float constant there that no weight
# of the model explains would be a weight left behind unnoticed.
WEIGHT_INPUTS = {
    "BATCH_MATMUL": (0, 1),
    "CONV_2D": (1,),
    "CONV_3D": (1,),
    "CONV_3D_TRANSPOSE": (1,),
    "DEPTHWISE_CONV_2D": (1,),
    "EMBEDDING_LOOKUP": (1,),
    "FULLY_CONNECTED": (1,),
    "GATHER": (0,),
    "TRANSPOSE_CONV": (1,),
}
# Elements at which a weight has to agree before all of them are looked at.
_SAMPLE = 4096


@dataclasses.dataclass(frozen=True, eq=False)
class FloatWeight:
    """A float array that a model is known to hold.

    Attributes:
        path: Name for reports.
        value: float32 array.
        reason: Why it stays float.
        layout: Meaning of the axes, where known.
        channel_axes: Axes that index output channels, where known.
    """

    path: str
    value: np.ndarray
    reason: str
    layout: Layout = Layout.OTHER
    channel_axes: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Constant:
    """A float32 constant of two or more axes in a file.

    Attributes:
        graph: Index of the subgraph.
        tensor: Index of the tensor in it.
        name: Name the converter gave it.
        value: float32 array.
        readers: Names of the operators that read it, each once.
        weighs: Names of those that read it where weights belong.
    """

    graph: int
    tensor: int
    name: str
    value: np.ndarray
    readers: tuple[str, ...]
    weighs: tuple[str, ...]

    @property
    def is_weight(self) -> bool:
        """Whether an operator reads it where weights belong."""
        return bool(self.weighs)


@dataclasses.dataclass(frozen=True, eq=False)
class Match:
    """A constant explained by a quantized weight.

    Attributes:
        constant: The tensor.
        weight: The quantized weight.
        arrangement: How the weight is laid out in the tensor.
        fit: Factors and signs.
        twins: Further weights that the same tensor holds, because the
            converter merged equal constants.
    """

    constant: Constant
    weight: QuantizedWeight
    arrangement: Arrangement
    fit: fitting.Fit
    twins: tuple[Match, ...] = ()

    @property
    def codes(self) -> np.ndarray:
        """int8 codes in the tensor's shape, signs of the factors applied."""
        shape = self.constant.value.shape
        codes = self.arrangement.apply(self.weight.codes, shape)
        return codes * self.fit.along(self.fit.signs, len(shape))


@dataclasses.dataclass(frozen=True, eq=False)
class Matching:
    """All float constants of a file, explained.

    Attributes:
        matches: Tensors that hold quantized weights.
        floats: Tensors that stay float, with the weight that explains them.
        others: Number of further float constants (vectors, scalars and
            operands of elementwise operators).
        ambiguous: Paths of weights that tensors may hold which were given to
            others: both explain them, by different codes.
    """

    matches: tuple[Match, ...]
    floats: tuple[tuple[Constant, FloatWeight], ...]
    others: int
    ambiguous: tuple[str, ...] = ()


class Unmatched(ExportError):
    """A file in which weights were not found again.

    Attributes:
        paths: Weights whose codes may have got lost by folding.
    """

    def __init__(self, message: str, paths: Sequence[str] = ()):
        super().__init__(message)
        self.paths = tuple(paths)


def match(
    model: schema.ModelT,
    quantized: Sequence[QuantizedWeight],
    floats: Sequence[FloatWeight],
    held: Mapping[tuple[int, int], QuantizedWeight] | None = None,
    computed: Callable[[], Sequence[FloatWeight]] = tuple,
) -> Matching:
    """Explains the float constants of a file by the weights of a model.

    Args:
        model: A float TFLite model.
        quantized: The quantized weights.
        floats: Weights and constants that are float on purpose.
        held: What tensors are known to hold, by subgraph and tensor.
        computed: Function that returns further `floats`, called where these
            are not enough.

    Returns:
        The matching; every quantized weight is in it.

    Raises:
        Unmatched: If a quantized weight isn't in the file, or an operator
            reads a float weight that nothing explains.
    """
    held = held or {}
    constants, vectors = find_constants(model)
    candidates = {
        index: _candidates(constant, quantized, floats)
        if (constant.graph, constant.tensor) not in held
        else _known(constant, held, quantized)
        for index, constant in enumerate(constants)
    }
    chosen = _assign(constants, candidates, quantized)
    lost = [
        weight
        for number, weight in enumerate(quantized)
        if not _covered(weight, number, candidates)
    ]
    if lost:
        raise Unmatched(
            explain.unmatched(lost[0], constants), [w.path for w in lost]
        )
    matches, explained, others = [], [], vectors
    for index, constant in enumerate(constants):
        if index in chosen:
            matches.append(chosen[index])
            continue
        if not (constant.is_weight and constant.value.any()):
            others += 1
            continue
        found = _float_for(constant, floats)
        if found is None:
            found = _float_for(constant, computed())
        if found is None:
            raise Unmatched(explain.unexplained(constant, quantized))
        explained.append((constant, found))
    return Matching(
        tuple(matches),
        tuple(explained),
        others,
        _ambiguous(chosen, candidates, quantized),
    )


def _known(
    constant: Constant,
    held: Mapping[tuple[int, int], QuantizedWeight],
    quantized: Sequence[QuantizedWeight],
) -> list[tuple[int, Match]]:
    """The one candidate of a tensor that is known to hold a weight."""
    weight = held[constant.graph, constant.tensor]
    fit = fitting.fit(
        constant.value,
        weight.codes,
        np.broadcast_to(weight.step, weight.codes.shape),
    )
    if fit is None:
        return []
    return [
        (number, Match(constant, weight, Arrangement(_axes(weight)), fit))
        for number, other in enumerate(quantized)
        if other.path == weight.path
    ]


def _axes(weight: QuantizedWeight) -> tuple[int, ...]:
    return tuple(range(weight.codes.ndim))


def _ambiguous(
    chosen: Mapping[int, Match],
    candidates: Mapping[int, list[tuple[int, Match]]],
    quantized: Sequence[QuantizedWeight],
) -> tuple[str, ...]:
    """Weights that a tensor may hold as well as the one that was chosen."""
    found: dict[str, None] = {}
    for index, match in chosen.items():
        if match.fit.exact:
            continue
        for number, other in candidates[index]:
            if (
                other.weight is not match.weight
                and _preference(other) == _preference(match)
                and not np.array_equal(other.codes, match.codes)
            ):
                found[match.weight.path] = None
                found[quantized[number].path] = None
    return tuple(found)


def _preference(match: Match) -> tuple[Any, ...]:
    """Smaller for what takes fewer factors to reproduce a tensor."""
    return (
        not match.fit.exact,
        match.fit.columns is not None,
        match.fit.muted,
        # One factor for every element would explain anything.
        match.fit.scale.size,
    )


def find_constants(model: schema.ModelT) -> tuple[list[Constant], int]:
    """Float32 constants of all subgraphs.

    Returns:
        Those of two or more axes in the order in which they are first read,
        and the number of the others.
    """
    found, others = [], 0
    for number, graph in enumerate(model.subgraphs):
        readers = _readers(model, graph)
        rest = [i for i in range(len(graph.tensors)) if i not in readers]
        for index in (*readers, *rest):
            tensor = graph.tensors[index]
            if tensor.type != schema.TensorType.FLOAT32:
                continue
            value = fb.constant(model, tensor)
            if value is None:
                continue
            if value.ndim < 2:
                others += 1
                continue
            uses = readers.get(index, [])
            found.append(
                Constant(
                    graph=number,
                    tensor=index,
                    name=fb.name(tensor),
                    value=value,
                    readers=tuple(dict.fromkeys(op for op, _ in uses)),
                    weighs=tuple(
                        dict.fromkeys(
                            op
                            for op, position in uses
                            if position in WEIGHT_INPUTS.get(op, ())
                        )
                    ),
                )
            )
    return found, others


def _readers(
    model: schema.ModelT, graph: schema.SubGraphT
) -> dict[int, list[tuple[str, int]]]:
    readers: dict[int, list[tuple[str, int]]] = {}
    for op in graph.operators or ():
        for position, index in enumerate(fb.inputs(op)):
            if index < 0:
                continue  # an optional input that isn't there
            readers.setdefault(index, []).append(
                (fb.op_name(model, op), position)
            )
    return readers


def _candidates(
    constant: Constant,
    quantized: Sequence[QuantizedWeight],
    floats: Sequence[FloatWeight],
) -> list[tuple[int, Match]]:
    found: list[tuple[int, Match]] = []
    shape = constant.value.shape
    if not (constant.is_weight or constant.value.any()):
        return found  # an initial state, not a weight
    places = _places(constant.value.size)
    values = constant.value.reshape(-1)[places]
    for number, weight in enumerate(quantized):
        step = np.broadcast_to(weight.step, weight.codes.shape)
        for arrangement in arrangements(
            weight.layout, weight.codes.shape, weight.channel_axes, shape
        ):
            if arrangement.stop is not None and not constant.is_weight:
                # A vector of as many numbers as a slice of gates has would
                # be one code times a factor, each.
                continue
            if not fitting.zeros_agree(
                values, arrangement.sample(weight.codes, places)
            ):
                continue
            codes = arrangement.apply(weight.codes, shape)
            fit = fitting.fit(
                constant.value, codes, arrangement.apply(step, shape)
            )
            if fit is None and constant.readers == ("FULLY_CONNECTED",):
                fit = unfold.fit_rows_and_columns(constant.value, codes)
            if fit is not None and (
                fit.exact or _tells(fit, codes) or constant.is_weight
            ):
                match = Match(constant, weight, arrangement, fit)
                found.append((number, match))
                if fit.exact:
                    break
    if (
        found
        and not any(m.fit.exact or _tells(m.fit, m.codes) for _, m in found)
        and _equal_float(constant, floats)
    ):
        return []
    return found


def _tells(fit: fitting.Fit, codes: np.ndarray) -> bool:
    """Whether a fit says anything: with a factor an element all agree."""
    return np.count_nonzero(codes) >= 2 * fit.scale.size


def _places(size: int) -> np.ndarray:
    """Some elements that tell most tensors that don't match.

    Without them, the work would grow with the square of a model's layers.
    """
    return np.linspace(0, size - 1, min(size, _SAMPLE)).astype(np.int64)


def _assign(
    constants: Sequence[Constant],
    candidates: dict[int, list[tuple[int, Match]]],
    quantized: Sequence[QuantizedWeight],
) -> dict[int, Match]:
    """Chooses one weight for every constant that has candidates.

    Each candidate reproduces the tensor; the one that takes the fewest factors
    to do so is right. What is left to choose is the name, so that each weight
    gets a tensor of its own if there are enough: the least ambiguous constants
    choose first.
    """
    chosen: dict[int, Match] = {}
    taken: set[int] = set()
    for index in sorted(candidates, key=lambda i: len(candidates[i])):
        options = candidates[index]
        if not options:
            continue
        number, match = min(
            options,
            key=lambda option: (*_preference(option[1]), option[0] in taken),
        )
        taken.add(number)
        chosen[index] = match
    for number in set(range(len(quantized))) - taken:
        for index, twin in _holding(number, candidates):
            if np.array_equal(twin.codes, chosen[index].codes):
                twins = (*chosen[index].twins, twin)
                chosen[index] = dataclasses.replace(chosen[index], twins=twins)
                break
    return chosen


def _holding(
    number: int, candidates: dict[int, list[tuple[int, Match]]]
) -> Iterator[tuple[int, Match]]:
    for index, options in candidates.items():
        for other, match in options:
            if other == number:
                yield index, match


def _covered(
    weight: QuantizedWeight,
    number: int,
    candidates: dict[int, list[tuple[int, Match]]],
) -> bool:
    seen = np.zeros(weight.codes.shape[-1], bool)
    for _, match in _holding(number, candidates):
        seen[match.arrangement.start : match.arrangement.stop] = True
    return bool(seen.all())


def _equal_float(constant: Constant, floats: Sequence[FloatWeight]) -> bool:
    """Whether a tensor is a float weight as it is."""
    shape = constant.value.shape
    return any(
        np.array_equal(arrangement.apply(weight.value, shape), constant.value)
        for weight in floats
        for arrangement in arrangements(
            weight.layout, weight.value.shape, weight.channel_axes, shape
        )
    )


def _float_for(
    constant: Constant, floats: Sequence[FloatWeight]
) -> FloatWeight | None:
    shape = constant.value.shape
    for weight in floats:
        for arrangement in arrangements(
            weight.layout, weight.value.shape, weight.channel_axes, shape
        ):
            laid_out = arrangement.apply(weight.value, shape)
            if fitting.fit(constant.value, laid_out, None) is not None:
                return weight
    places = _places(constant.value.size)
    values = constant.value.reshape(-1)[places]
    for weight in floats:
        for arrangement in slices(weight.value.shape, shape):
            # A part that was scaled could be anything.
            if np.array_equal(
                arrangement.sample(weight.value, places), values
            ) and np.array_equal(
                arrangement.apply(weight.value, shape), constant.value
            ):
                return weight
    return None

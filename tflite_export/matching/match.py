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

from msq_tf.core.quantized_weight import QuantizedWeight
from msq_tf.core.quantized_weight import SkippedWeight
from tflite_export.errors import ExportError
from tflite_export.matching import input_scales
from tflite_export.matching import mismatch
from tflite_export.matching import scales as fitting
from tflite_export.matching.file_constants import Constant
from tflite_export.matching.file_constants import find_constants
from tflite_export.matching.file_constants import sample_places
from tflite_export.matching.float_weights import equal_float
from tflite_export.matching.float_weights import float_for
from tflite_export.matching.layouts import Arrangement
from tflite_export.matching.layouts import arrangements


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
        least_bits: Width of the narrowest container to take.
    """

    constant: Constant
    weight: QuantizedWeight
    arrangement: Arrangement
    fit: fitting.Fit
    twins: tuple[Match, ...] = ()
    least_bits: int = 0

    @property
    def stored_bits(self) -> int:
        """Bits that its container has at least."""
        return max(self.weight.bits, self.least_bits)

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
    floats: tuple[tuple[Constant, SkippedWeight], ...]
    others: int
    ambiguous: tuple[str, ...] = ()


class Unmatched(ExportError):
    """A file in which weights were not found again.

    `paths` are weights whose codes may have got lost by folding.
    """

    def __init__(self, message: str, paths: Sequence[str] = ()):
        super().__init__(message)
        self.paths = tuple(paths)


def match(
    model: schema.ModelT,
    quantized: Sequence[QuantizedWeight],
    floats: Sequence[SkippedWeight],
    held: Mapping[tuple[int, int], QuantizedWeight] | None = None,
    computed: Callable[[], Sequence[SkippedWeight]] = tuple,
) -> Matching:
    """Explains the float constants of a file by the weights of a model.

    Args:
        model: A float TFLite model.
        quantized: The quantized weights, which are all in the result.
        floats: Weights and constants that are float on purpose.
        held: What tensors are known to hold, by subgraph and tensor.
        computed: Function that returns further `floats`, called where these
            are not enough.

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
    chosen = _assign(candidates, quantized)
    lost = [
        weight
        for number, weight in enumerate(quantized)
        if not _covered(weight, number, candidates)
    ]
    if lost:
        raise Unmatched(
            mismatch.unmatched(lost[0], constants), [w.path for w in lost]
        )
    matches, explained, others = [], [], vectors
    for index, constant in enumerate(constants):
        if index in chosen:
            matches.append(chosen[index])
            continue
        if not (constant.is_weight and constant.value.any()):
            others += 1
            continue
        found = float_for(constant, floats)
        if found is None:
            found = float_for(constant, computed())
        if found is None:
            raise Unmatched(mismatch.unexplained(constant, quantized))
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


def _candidates(
    constant: Constant,
    quantized: Sequence[QuantizedWeight],
    floats: Sequence[SkippedWeight],
) -> list[tuple[int, Match]]:
    found: list[tuple[int, Match]] = []
    shape = constant.value.shape
    if not (constant.is_weight or constant.value.any()):
        return found  # an initial state, not a weight
    places = sample_places(constant.value.size)
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
                fit = input_scales.fit_rows_and_columns(constant.value, codes)
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
        and equal_float(constant, floats)
    ):
        return []
    return found


def _tells(fit: fitting.Fit, codes: np.ndarray) -> bool:
    """Whether a fit says anything: with a factor an element all agree."""
    return int(np.count_nonzero(codes)) >= 2 * fit.scale.size


def _assign(
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

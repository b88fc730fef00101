"""Builds the file of an integer target."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export import targets
from tflite_export.conversion import float_file
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer.prune import compact
from tflite_export.flatbuffer.prune_constants import slim
from tflite_export.integer import affine
from tflite_export.integer import calibrate
from tflite_export.integer import float_islands
from tflite_export.integer import last_axis
from tflite_export.integer import lookup
from tflite_export.integer import masks
from tflite_export.integer import regions
from tflite_export.integer import ties
from tflite_export.integer import trained_grids
from tflite_export.integer import weight_grids
from tflite_export.integer.assign_grids import Solution
from tflite_export.integer.assign_grids import Solver
from tflite_export.integer.grids import grid_of_range
from tflite_export.integer.quantize_graph import Quantizer
from tflite_export.integer.respell import respell
from tflite_export.integer.restructure import prepare
from tflite_export.matching.match import Match
from tflite_export.matching.match import Matching
from tflite_export.matching.records import Written
from tflite_export.matching.records import rewrite
from tflite_export.runtime import ports
from tflite_export.targets import Target


@dataclasses.dataclass(frozen=True)
class IntegerFile:
    """An integer file before it is verified.

    Attributes:
        data: The bytes.
        written: Its trained weights.
        trained: Activation tensors whose grid comes from training.
        activations: Activation tensors in all.
        untrained: Operators that round to a grid which training doesn't know.
        notes: Sentences for the report.
        sites: The tensor of each site of training, by the site's position.
        rounded: Constants that are weights in float in training.
    """

    data: bytes
    written: tuple[Written, ...]
    trained: int
    activations: int
    untrained: tuple[str, ...]
    notes: tuple[str, ...]
    sites: Mapping[int, int]
    rounded: frozenset[int]


def build(
    converted: float_file.FloatFile,
    matching: Matching,
    target: Target,
    samples: Sequence[np.ndarray] | None,
    integer_io: bool = False,
) -> IntegerFile:
    """Makes an integer file of a float file.

    Args:
        converted: The float file, with the trained ranges as pairs of
            QUANTIZE and DEQUANTIZE.
        matching: Which constants hold which weights.
        target: Where it shall run.
        samples: Inputs to measure ranges with that were not trained.
        integer_io: Whether the inputs and outputs are integers, too.

    Raises:
        ExportError: If the target has no row for an operator, no cell for a
            weight, or a range is not known.
    """
    return _Build(converted, matching, target, samples).run(integer_io)


class _Build:
    """An integer file in the making; each step takes what those before left."""

    def __init__(
        self,
        converted: float_file.FloatFile,
        matching: Matching,
        target: Target,
        samples: Sequence[np.ndarray] | None,
    ):
        self._model = fb.load(converted.data)
        self._target = target
        self._samples = samples
        self._sites: dict[int, int] = {}
        self._trained = trained_grids.take_pairs(
            self._model,
            target.mode,
            converted.source.site_ranges,
            self._sites,
        )
        self._matches = prepare(self._model, matching.matches, target)
        self._state_count = len(converted.source.states)

    def run(self, integer_io: bool) -> IntegerFile:
        """All steps in their order."""
        self._choose_floats()
        self._join_chains()
        self._measure_ranges()
        self._surround_floats()
        solution = self._assign_grids()
        untrained = tuple(_producer(self._model, i) for i in solution.untrained)
        written = self._quantize(solution, integer_io)
        return self._packed(written, untrained)

    def _choose_floats(self) -> None:
        """Finds the operators that stay float, and those that become tables."""
        model, target, trained = self._model, self._target, self._trained
        normal = float_islands.find(model, trained)
        if normal and not target.float_regions:
            raise ExportError(_no_normalization(model, normal, target))
        self._known = respell(model, target, trained, {id(op) for op in normal})
        self._floats = normal
        self._functions: list[list[schema.OperatorT]] = []
        if target.float_regions:
            normal = [*normal, *self._apart(normal)]
            odd = weight_grids.unreadable(model, self._matches, target)
            self._floats = regions.find(model, target, trained, normal, odd)
        elif target.tables:
            self._functions = lookup.find(
                model,
                regions.find(model, target, trained),
                lambda op: regions.row_of(model, target, op) is not None,
            )

        last_axis.avoid(model, target, self._floats)

    def _apart(
        self, kept: Sequence[schema.OperatorT]
    ) -> list[schema.OperatorT]:
        """Normalizations of inputs that no grid holds."""
        model, trained = self._model, self._trained
        chains = affine.find(model, trained, {id(op) for op in kept})
        return affine.apart(model, self._target, chains, trained, self._samples)

    def _join_chains(self) -> None:
        """Makes one operator of multiplications and additions in a row."""
        model, target, trained = self._model, self._target, self._trained
        left = [*self._floats, *(op for f in self._functions for op in f)]
        chains = affine.find(model, trained, {id(op) for op in left})
        affine.join(model, target, chains, trained, self._samples)
        # A sum that was multiplied on is no tensor any more: its mean has a
        # range of its own.
        there = trained_grids.float_tensors(model)
        for part, (whole, _) in tuple(self._known.parts.items()):
            if whole not in there:
                del self._known.parts[part]
        # Before anything is measured: a target without the operators ends here.
        regions.rows_of(model, target, left)

    def _measure_ranges(self) -> None:
        """Finds the range of each activation that training left none for."""
        model, trained = self._model, self._trained
        inside = _inside(model, self._floats) - set(trained)
        self._activations = trained_grids.float_tensors(model) - inside
        ranges: dict[int, calibrate.Range] = {}
        scores = masks.Scores(model, self._target.mode)
        if self._samples is not None and self._activations - set(trained):
            given = ports.quantized(fb.dump(model), self._samples)
            ranges = calibrate.calibrate(
                model, self._activations, given, scores.seen
            )
        self._masking = scores.limit(trained, ranges)
        ranges |= regions.known_ranges(model, self._floats)
        self._ranges = ranges | self._known.ranges

    def _surround_floats(self) -> None:
        """Puts conversions around what stays float, and tables into place."""
        model, trained = self._model, self._trained
        self._alone = _left_alone(model, self._floats) - set(trained)
        self._floats = float_islands.surround(
            model, self._floats, self._target.mode, trained, self._alone
        )
        self._lookups = lookup.replace(model, self._functions)
        self._activations &= trained_grids.float_tensors(model)
        self._activations -= {i for op in self._floats for i in fb.outputs(op)}
        self._activations -= self._alone
        self._own = [
            m for m in self._matches if not _is_read_by(m, self._floats)
        ]

    def _assign_grids(self) -> Solution:
        """Gives every integer tensor its grid, and fills the tables."""
        model, target, trained = self._model, self._target, self._trained
        lookups = self._lookups
        left = [*self._floats, *(k.operator for k in lookups)]
        self._rows = regions.rows_of(model, target, left)
        for each in lookups:
            place = edit.before(model.subgraphs[0], each.operator)
            self._rows[place] = lookup.WIDENING
        ranges = self._ranges
        tables = {
            k.table: grid_of_range(target.mode, *ranges[k.result])
            for k in lookups
            # On a trained grid a table is made for it.
            if k.result not in trained and k.result in ranges
        }
        tables |= weight_grids.find(model, self._rows, self._own, target)
        tables |= self._masking
        self._states = ties.pairs(model, self._state_count)
        ranges = ties.joined(model, self._rows, ranges, self._states)
        solution = ties.solve(
            lambda tied: Solver(
                model,
                self._rows,
                target,
                self._activations,
                trained,
                ranges,
                tables,
                self._known,
                tied,
            ).solve(),
            self._states,
            trained,
        )
        lookup.fill(model, lookups, solution.tensors)
        return solution

    def _quantize(self, solution: Solution, integer_io: bool) -> list[Written]:
        """Writes codes and grids; returns one record per trained weight."""
        model, target = self._model, self._target
        quantizer = Quantizer(model, self._rows, self._own, solution, target)
        written = quantizer.run(integer_io)
        self._notes = tuple(quantizer.notes)
        self._rounded = quantizer.rounded
        if integer_io:
            tensors = model.subgraphs[0].tensors
            self._notes += tuple(
                f"input '{fb.name(tensors[i])}' stays float: only float "
                "operators read it"
                for i in sorted(self._alone)
                if fb.type_name(tensors[i]) == "FLOAT32"
            )
            ties.align(model, self._states, target.mode)
        return written + _in_float(model, self._matches, self._own, target)

    def _packed(
        self, written: Sequence[Written], untrained: tuple[str, ...]
    ) -> IntegerFile:
        """The file without what nothing reads."""
        model = self._model
        # Float biases and what stood between the pairs are still there.
        places = compact(model)
        moved = tuple(
            dataclasses.replace(
                r, tensor=places[r.match.constant.graph, r.tensor]
            )
            for r in written
        )
        named = {(r.match.constant.graph, r.tensor) for r in moved}
        slim(model, named, f"msq_tf {self._target.name}")
        return IntegerFile(
            data=fb.dump(model),
            written=moved,
            trained=len(set(self._trained) & self._activations),
            activations=len(self._activations),
            untrained=untrained,
            notes=self._notes,
            sites={
                site: places[0, tensor]
                for site, tensor in self._sites.items()
                if (0, tensor) in places
            },
            rounded=frozenset(places[0, i] for i in self._rounded),
        )


def _no_normalization(
    model: schema.ModelT, found: Sequence[schema.OperatorT], target: Target
) -> str:
    roots = [op for op in found if fb.op_name(model, op) == "RSQRT"]
    named = fb.name(model.subgraphs[0].tensors[fb.outputs(roots[0])[0]])
    return (
        f"Target '{target.name}' has no policy for layer normalization: RSQRT "
        "of a variance in 8 bits is off by large factors, and the device has "
        "no float operators. Expected BatchNormalization, which is folded, or "
        f"UnitNormalization; MSQConfig(targets=('{target.name}',)) says so "
        f"before the training. Received: RSQRT (tensor '{named}')"
    )


def _is_read_by(match: Match, floats: Sequence[schema.OperatorT]) -> bool:
    """Whether a weight is one of a float region."""
    constant = match.constant
    return bool(constant.graph) or any(
        constant.tensor in fb.inputs(op) for op in floats
    )


def _in_float(
    model: schema.ModelT,
    matches: Sequence[Match],
    own: Sequence[Match],
    target: Target,
) -> list[Written]:
    """Writes the weights of float regions, which a DEQUANTIZE unpacks."""
    rest = [m for m in matches if all(m is not other for other in own)]
    if not rest:
        return []
    if not target.float_regions:
        raise ExportError(
            f"Layer '{rest[0].weight.path}': its weight is part of a loop, "
            f"which target '{target.name}' can't run. Expected a layer built "
            "with unroll=True. Received: a loop"
        )
    # Factors along the inputs have become a MUL already.
    plain = [
        dataclasses.replace(m, fit=dataclasses.replace(m.fit, columns=None))
        for m in rest
    ]
    records = rewrite(model, plain, targets.load(target.float_regions))
    return [
        dataclasses.replace(record, match=match)
        for record, match in zip(records, rest, strict=True)
    ]


def _inside(
    model: schema.ModelT, floats: Sequence[schema.OperatorT]
) -> set[int]:
    """Tensors that only float operators know, or nobody."""
    graph = model.subgraphs[0]
    known = {*fb.inputs(graph), *fb.outputs(graph)}
    for op in graph.operators:
        if all(op is not kept for kept in floats):
            known.update((*fb.inputs(op), *fb.outputs(op)))
    return {i for op in floats for i in fb.outputs(op)} - known


def _left_alone(
    model: schema.ModelT, floats: Sequence[schema.OperatorT]
) -> set[int]:
    """Inputs of the graph that only float operators read, as they are."""
    graph = model.subgraphs[0]
    read = {
        i
        for op in graph.operators
        if all(op is not kept for kept in floats)
        for i in fb.inputs(op)
    }
    return set(fb.inputs(graph)) - read


def _producer(model: schema.ModelT, index: int) -> str:
    for op in model.subgraphs[0].operators:
        if index in fb.outputs(op):
            return fb.op_name(model, op)
    return "input"

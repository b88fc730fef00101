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
from tflite_export.integer import lookup
from tflite_export.integer import masks
from tflite_export.integer import regions
from tflite_export.integer import ties
from tflite_export.integer import trained_grids
from tflite_export.integer import weight_grids
from tflite_export.integer.assign_grids import Solver
from tflite_export.integer.grids import Grid
from tflite_export.integer.grids import grid_of_range
from tflite_export.integer.quantize_graph import Quantizer
from tflite_export.integer.quantize_graph import Rows
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
    """

    data: bytes
    written: tuple[Written, ...]
    trained: int
    activations: int
    untrained: tuple[str, ...]
    notes: tuple[str, ...]
    sites: Mapping[int, int]


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
    model = fb.load(converted.data)
    sites: dict[int, int] = {}
    trained = trained_grids.take_pairs(
        model, target.mode, converted.source.site_ranges, sites
    )
    matches = prepare(model, matching.matches, target)
    normal = float_islands.find(model, trained)
    if normal and not target.float_regions:
        raise ExportError(_no_normalization(model, normal, target))
    known = respell(model, target, trained, {id(op) for op in normal})
    if target.float_regions:
        normal = [*normal, *_apart(model, target, trained, normal, samples)]
    floats = normal
    functions: list[list[schema.OperatorT]] = []
    if target.float_regions:
        odd = weight_grids.unreadable(model, matches, target)
        floats = regions.find(model, target, trained, normal, odd)
    elif target.tables:
        found = regions.find(model, target, trained)
        functions = lookup.find(
            model,
            found,
            lambda op: regions.row_of(model, target, op) is not None,
        )
    left = {id(op) for op in [*floats, *(op for f in functions for op in f)]}
    chains = affine.find(model, trained, left)
    affine.join(model, target, chains, trained, samples)
    # Before anything is measured: a target without the operators ends here.
    rows_of(model, target, [*floats, *(op for f in functions for op in f)])
    inside = _inside(model, floats) - set(trained)
    activations = trained_grids.float_tensors(model) - inside
    ranges: dict[int, calibrate.Range] = {}
    scores = masks.Scores(model, target.mode)
    if samples is not None and activations - set(trained):
        given = ports.quantized(fb.dump(model), samples)
        ranges = calibrate.calibrate(model, activations, given, scores.seen)
    masking = scores.limit(trained, ranges)
    ranges |= regions.known_ranges(model, floats) | known.ranges
    alone = _left_alone(model, floats) - set(trained)
    floats = float_islands.surround(model, floats, target.mode, trained, alone)
    lookups = lookup.replace(model, functions)
    activations &= trained_grids.float_tensors(model)
    activations -= {i for op in floats for i in fb.outputs(op)}
    activations -= alone
    own = [m for m in matches if not _is_read_by(m, floats)]
    rows = rows_of(model, target, [*floats, *(k.operator for k in lookups)])
    for each in lookups:
        rows[edit.before(model.subgraphs[0], each.operator)] = lookup.WIDENING
    tables = {
        k.table: grid_of_range(target.mode, *ranges[k.result])
        for k in lookups
        # On a trained grid a table is made for it.
        if k.result not in trained and k.result in ranges
    }
    tables |= weight_grids.find(model, rows, own, target)
    tables |= masking
    states = ties.pairs(model, len(converted.source.states))
    ranges = ties.joined(model, rows, ranges, states)
    solution = ties.solve(
        lambda tied: Solver(
            model,
            rows,
            target,
            activations,
            trained,
            ranges,
            tables,
            known,
            tied,
        ).solve(),
        states,
        trained,
    )
    lookup.fill(model, lookups, solution.tensors)
    untrained = tuple(_producer(model, i) for i in solution.untrained)
    quantizer = Quantizer(model, rows, own, solution, target)
    written = quantizer.run(integer_io)
    if integer_io:
        quantizer.notes += [
            f"input '{fb.name(model.subgraphs[0].tensors[i])}' stays float: "
            "only float operators read it"
            for i in sorted(alone)
            if fb.type_name(model.subgraphs[0].tensors[i]) == "FLOAT32"
        ]
        ties.align(model, states, target.mode)
    written += _in_float(model, matches, own, target)
    # Float biases and what stood between the pairs are still there.
    places = compact(model)
    written = [
        dataclasses.replace(
            record, tensor=places[record.match.constant.graph, record.tensor]
        )
        for record in written
    ]
    named = {(r.match.constant.graph, r.tensor) for r in written}
    slim(model, named, f"msq_tf {target.name}")
    return IntegerFile(
        data=fb.dump(model),
        written=tuple(written),
        trained=len(set(trained) & activations),
        activations=len(activations),
        untrained=untrained,
        notes=tuple(quantizer.notes),
        sites={
            site: places[0, tensor]
            for site, tensor in sites.items()
            if (0, tensor) in places
        },
    )


def _apart(
    model: schema.ModelT,
    target: Target,
    trained: Mapping[int, Grid],
    kept: Sequence[schema.OperatorT],
    samples: Sequence[np.ndarray] | None,
) -> list[schema.OperatorT]:
    """Normalizations of inputs that no grid holds."""
    chains = affine.find(model, trained, {id(op) for op in kept})
    return affine.apart(model, target, chains, trained, samples)


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


def rows_of(
    model: schema.ModelT,
    target: Target,
    floats: Sequence[schema.OperatorT] = (),
) -> Rows:
    """The row of each operator of the main graph.

    `None` where it touches no float tensor that becomes an integer one, as
    those of `floats`.

    Raises:
        ExportError: If the target has no row for an operator that does, with
            the names of all of them.
    """
    rows: Rows = []
    missing: dict[str, str] = {}
    graph = model.subgraphs[0]
    for op in graph.operators:
        name = fb.op_name(model, op)
        touched = not any(
            op is kept for kept in floats
        ) and regions.touches_floats(model, op)
        row = regions.row_of(model, target, op) if touched else None
        if touched and row is None:
            output = graph.tensors[fb.outputs(op)[0]]
            missing.setdefault(name, fb.name(output))
        rows.append(row)
    if missing:
        listed = ", ".join(f"{k} (tensor '{v}')" for k, v in missing.items())
        advice = ""
        if "WHILE" in missing:
            advice = (
                " A recurrent layer that runs as a loop has no integer form "
                "here: build it with unroll=True."
            )
        raise ExportError(
            f"Target '{target.name}' has no policy for the operators "
            f"{listed} with {target.mode} activations.{advice} Expected "
            f"operators from {', '.join(sorted(target.operators))}. "
            f"Received: {', '.join(missing)}"
        )
    return rows

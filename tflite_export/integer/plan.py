"""How an integer target makes its file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export import convert
from tflite_export import flatbuffer as fb
from tflite_export.compact import compact
from tflite_export.errors import ExportError
from tflite_export.integer import calibrate
from tflite_export.integer import islands
from tflite_export.integer import pairs
from tflite_export.integer.grids import Grid
from tflite_export.integer.grids import make_grid
from tflite_export.integer.prepare import prepare
from tflite_export.integer.quantize import Quantizer
from tflite_export.integer.quantize import Rows
from tflite_export.integer.solve import Solver
from tflite_export.match import Match
from tflite_export.match import Matching
from tflite_export.rewrite import Written
from tflite_export.slim import slim
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
    converted: convert.FloatFile,
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

    Returns:
        The file.

    Raises:
        ExportError: If the target has no row for an operator, no cell for a
            weight, or a range is not known.
    """
    model = fb.load(converted.data)
    sites: dict[int, int] = {}
    trained = pairs.take_pairs(model, target.mode, sites)
    prepare(model, matching.matches, target)
    floats: list[schema.OperatorT] = []
    if target.float_normalizations:
        floats = islands.find(model, trained)
    # Before anything is measured: a target without the operators ends here.
    rows_of(model, target, floats)
    activations = pairs.float_tensors(model)
    ranges = {}
    if samples is not None and activations - set(trained):
        ranges = calibrate.calibrate(model, activations, samples)
    floats = islands.surround(model, floats, target.mode, trained)
    activations -= {i for op in floats for i in fb.outputs(op)}
    rows = rows_of(model, target, floats)
    solution = Solver(
        model,
        rows,
        target,
        activations,
        trained,
        ranges,
        _tables(model, rows, matching.matches, target),
    ).solve()
    untrained = tuple(_producer(model, i) for i in solution.untrained)
    quantizer = Quantizer(model, rows, matching.matches, solution, target)
    written = quantizer.run(integer_io)
    # Float biases and what stood between the pairs are still there.
    places = compact(model)
    written = [
        dataclasses.replace(record, tensor=places[0, record.tensor])
        for record in written
    ]
    named = {(0, record.tensor) for record in written}
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

    Args:
        model: The model.
        target: Where it shall run.
        floats: Operators that stay in float.

    Returns:
        One entry per operator, `None` where it touches no float tensor that
        becomes an integer one.

    Raises:
        ExportError: If the target has no row for an operator that does, with
            the names of all of them.
    """
    rows: Rows = []
    missing: dict[str, str] = {}
    graph = model.subgraphs[0]
    for op in graph.operators:
        name = fb.op_name(model, op)
        touched = not any(op is kept for kept in floats) and any(
            i >= 0 and fb.type_name(graph.tensors[i]) == "FLOAT32"
            for i in (*fb.inputs(op), *fb.outputs(op))
        )
        row = target.operators.get(name) if touched else None
        if touched and (row is None or row.version(target.mode) is None):
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
            f"operators from {', '.join(sorted(target.operators))}"
        )
    return rows


def _tables(
    model: schema.ModelT,
    rows: Rows,
    matches: Sequence[Match],
    target: Target,
) -> Mapping[int, Grid]:
    """Grids of trained weights that operators read as activations."""
    found = {m.constant.tensor: m for m in matches}
    tables: dict[int, Grid] = {}
    for position, op in enumerate(model.subgraphs[0].operators):
        row = rows[position]
        for place, index in enumerate(fb.inputs(op)):
            match = found.get(index)
            if row is None or match is None:
                continue
            if row.role(place) not in ("activation", "same"):
                continue
            scale = match.fit.scale
            if (
                target.mode != "int8"
                or (scale != scale[0]).any()
                or not target.allows(row.name, "INT8", "per_tensor")
            ):
                raise ExportError(
                    f"Layer '{match.weight.path}': {row.name} reads its "
                    f"weight like an activation, which target '{target.name}' "
                    "does with int8 and one scale for all channels only. Use "
                    "per-tensor granularity for the layer, or leave it out of "
                    "quantize_model (filters=)"
                )
            tables[index] = make_grid(target.mode, float(scale[0]), 0)
    return tables

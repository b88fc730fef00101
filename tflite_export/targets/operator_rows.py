"""How integer graphs use operators, as data.

A row says for one operator which of its tensors need a grid of their own,
which share one, and which the kernel takes for granted. Rows live in
`targets/_integer.json`; a target names that table and what it does otherwise.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import json
from collections.abc import Mapping
from typing import Any

from tflite_export.flatbuffer.operators import conversion_version

ROLES = ("activation", "same", "weight", "bias", "integers", "any")
OUTPUTS = ("free", "same", "fixed", "integers")
ACTIVATIONS = {"int8": "INT8", "int16": "INT16"}
_REPEAT = "..."


@dataclasses.dataclass(frozen=True)
class OperatorRow:
    """How one operator runs on integers.

    Attributes:
        name: Operator, as the schema spells it.
        operands: Role of each input, see `role`.
        output: `"free"` (a grid of its own), `"same"` (that of the inputs
            with the role `"same"`), `"fixed"` (`grid`) or `"integers"`.
        versions: Operator version by activation type, `"int8"` or `"int16"`,
            with the weight type behind it where that makes a difference.
        grid: Scale and zero point of a fixed output, by activation type.
        mixes: Whether output values are weighted sums of input values, so
            that a narrower grid of the output must not clip the input.
        channel_axis: Axis of a weight's scales.
        reads: Types of the first input that the row is for; empty for float.
        delicate: Whether a unit of the input can be many of the output, so
            that it computes in float where training knows no grid for it.
        units: Largest difference from float arithmetic that is known of the
            kernels, by activation type, where it is more than one unit.
        finest: Least unit of a free output that kernels compute right, by
            activation type, as a multiple of the largest unit of the inputs;
            of their product where `multiplies`; 0 for any.
        multiplies: Whether the output is made of products of activations.
        coarsest: Largest unit of an input that kernels compute right, by
            activation type; infinite where it is not there.
        least: Smallest unit of an input that kernels compute right, by
            activation type; 0 where it is not there.
        evidence: Why, with the measurement.
    """

    name: str
    operands: tuple[str, ...]
    output: str
    versions: Mapping[str, int]
    grid: Mapping[str, tuple[float, int]]
    mixes: bool
    channel_axis: int
    reads: tuple[str, ...]
    delicate: bool
    units: Mapping[str, int]
    evidence: str
    finest: Mapping[str, float] = dataclasses.field(default_factory=dict)
    multiplies: bool = False
    coarsest: Mapping[str, float] = dataclasses.field(default_factory=dict)
    least: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def role(self, position: int) -> str:
        """Role of an input by its position."""
        if self.operands[-1] == _REPEAT:
            return self.operands[min(position, len(self.operands) - 2)]
        if position < len(self.operands):
            return self.operands[position]
        return "integers"

    def version(self, mode: str, weights: str = "") -> int | None:
        """Operator version, `None` where there is no such kernel."""
        default = self.versions.get(mode)
        return self.versions.get(f"{mode} {weights}", default)


def parse_rows(table: Mapping[str, Any], where: str) -> dict[str, OperatorRow]:
    """Makes rows by operator of a target's `operators` entry.

    Args:
        table: `like` names a shared table; `without` lists operators that the
            target lacks, `only` those it has; `change` holds rows, whole or
            the fields that differ.
        where: Start of error messages.

    Raises:
        ValueError: If a row is not valid.
    """
    rows: dict[str, dict[str, Any]] = {}
    if "like" in table:
        rows = {k: dict(v) for k, v in _shared(table["like"]).items()}
    kept = table.get("only", list(rows))
    unknown = sorted({*kept, *table.get("without", ())} - set(rows))
    if unknown:
        raise ValueError(f"{where}: no rows for {', '.join(unknown)}")
    for name in set(rows) - (set(kept) - set(table.get("without", ()))):
        del rows[name]
    for name, change in table.get("change", {}).items():
        rows[name] = {**rows.get(name, {}), **change}
    return {name: _row(name, row, where) for name, row in sorted(rows.items())}


def _row(name: str, row: Mapping[str, Any], where: str) -> OperatorRow:
    try:
        result = OperatorRow(
            name=name,
            operands=tuple(row["operands"]),
            output=row["output"],
            versions=_versions(name, row),
            grid={k: (v[0], v[1]) for k, v in row.get("grid", {}).items()},
            mixes=row.get("mixes", False),
            channel_axis=row.get("channel_axis", 0),
            reads=tuple(row.get("reads", ())),
            delicate=row.get("delicate", False),
            units=dict(row.get("units", {})),
            evidence=row.get("evidence", ""),
            finest=dict(row.get("finest", {})),
            multiplies=row.get("multiplies", False),
            coarsest=dict(row.get("coarsest", {})),
            least=dict(row.get("least", {})),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{where}: row of {name} lacks {error}") from error
    valid = (
        set(result.operands) <= {*ROLES, _REPEAT}
        and result.output in OUTPUTS
        and {key.split()[0] for key in result.versions} <= set(ACTIVATIONS)
        and (result.output != "fixed" or result.grid)
        and (
            result.evidence
            or not (result.units or result.finest)
            and not (result.coarsest or result.least)
        )
    )
    if not valid:
        raise ValueError(f"{where}: row out of range: {result}")
    return result


def _versions(name: str, row: Mapping[str, Any]) -> dict[str, int]:
    if name == "QUANTIZE" and "versions" not in row:
        return {
            mode: conversion_version(name, kind)
            for mode, kind in ACTIVATIONS.items()
        }
    return dict(row["versions"])


@functools.cache
def _shared(name: str) -> dict[str, Any]:
    folder = importlib.resources.files("tflite_export.targets") / "tables"
    text = (folder / f"{name}.json").read_text(encoding="utf-8")
    rows: dict[str, Any] = json.loads(text)["operators"]
    return rows

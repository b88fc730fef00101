"""Means and spreads of the accuracy benchmark's rows."""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any

COLUMNS = (
    "row",
    "seeds",
    "compression",
    "accuracy %",
    "min..max",
    "to float",
    "to uniform",
)
_UNIFORM = "uniform "


@dataclasses.dataclass(frozen=True)
class RowSummary:
    """One row over its seeds, accuracies in percent.

    Attributes:
        name: Name of the row.
        seeds: Number of seeds.
        compression: Mean compression by stored bits.
        mean: Mean test accuracy.
        least: Smallest.
        most: Largest.
        to_float: Mean difference from the float row with the same seed.
        to_uniform: Mean difference, seed by seed, from uniform widths at the
            same bytes, interpolated between the two nearest; `None` where
            that is not defined.
    """

    name: str
    seeds: int
    compression: float
    mean: float
    least: float
    most: float
    to_float: float | None
    to_uniform: float | None


def summarize(runs: list[dict[str, Any]]) -> list[RowSummary]:
    """Every row of a study, in order."""
    groups: dict[str, dict[int, dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault(run["row"]["name"], {})[run["seed"]] = run
    return [_summary(name, rows, groups) for name, rows in groups.items()]


def uniform_accuracy(
    runs: list[dict[str, Any]], seed: int, average_bits: float
) -> float | None:
    """Accuracy of uniform widths at a size, between its two neighbours.

    Args:
        runs: All runs of a study.
        seed: Which seed's uniform rows to use.
        average_bits: Stored bits per weight.

    Returns:
        Accuracy from 0 to 1; `None` outside the widths that were run.
    """
    points = sorted(
        (run["average_bits"], run["accuracy"])
        for run in runs
        if run["seed"] == seed and run["row"]["name"].startswith(_UNIFORM)
    )
    for (low, a), (high, b) in zip(points, points[1:], strict=False):
        if low <= average_bits <= high:
            return a + (b - a) * (average_bits - low) / (high - low)
    return None


def _summary(
    name: str,
    rows: dict[int, dict[str, Any]],
    groups: dict[str, dict[int, dict[str, Any]]],
) -> RowSummary:
    values = [100 * run["accuracy"] for run in rows.values()]
    floats = groups.get("float", {})
    uniform = [
        run
        for key, runs in groups.items()
        if key.startswith(_UNIFORM)
        for run in runs.values()
    ]
    to_float = [
        100 * (run["accuracy"] - floats[seed]["accuracy"])
        for seed, run in rows.items()
        if seed in floats
    ]
    to_uniform = []
    for seed, run in rows.items():
        same = uniform_accuracy(uniform, seed, run["average_bits"])
        if same is not None:
            to_uniform.append(100 * (run["accuracy"] - same))
    plain = name == "float" or name.startswith(_UNIFORM)
    return RowSummary(
        name=name,
        seeds=len(rows),
        compression=statistics.mean(r["compression"] for r in rows.values()),
        mean=statistics.mean(values),
        least=min(values),
        most=max(values),
        to_float=statistics.mean(to_float) if to_float else None,
        to_uniform=(
            statistics.mean(to_uniform) if to_uniform and not plain else None
        ),
    )


def cells(row: RowSummary) -> tuple[str, ...]:
    """One row as text."""
    return (
        row.name,
        str(row.seeds),
        f"{row.compression:.2f}x",
        f"{row.mean:.2f}",
        f"{row.least:.2f}..{row.most:.2f}" if row.seeds > 1 else "",
        "" if row.to_float is None else f"{row.to_float:+.2f}",
        "" if row.to_uniform is None else f"{row.to_uniform:+.2f}",
    )

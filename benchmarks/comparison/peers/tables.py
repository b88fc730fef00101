"""Rows of what was measured of peers."""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any

_FLOAT = "float"


@dataclasses.dataclass(frozen=True)
class Summary:
    """One row of a peer over its seeds, accuracies in percent.

    Attributes:
        peer: Name of the peer.
        row: Name of the row.
        seeds: Number of seeds.
        compression: Mean compression by stored bits.
        told: Mean compression with the widths of elements told.
        uniform: Mean compression where a layer has one width, that of its
            widest element.
        mean: Mean test accuracy.
        least: Smallest.
        most: Largest.
        to_float: Mean difference from the same peer's float row, seed by
            seed.
    """

    peer: str
    row: str
    seeds: int
    compression: float
    told: float
    uniform: float
    mean: float
    least: float
    most: float
    to_float: float


def summaries(results: dict[str, Any]) -> list[Summary]:
    """All accuracy rows of all peers, in order."""
    found = []
    for peer, entry in results["peers"].items():
        rows: dict[str, dict[int, dict[str, Any]]] = {}
        for run in entry.get("accuracy", {}).get("runs", []):
            rows.setdefault(run["row"], {})[run["seed"]] = run
        for row, runs in rows.items():
            values = [100 * run["accuracy"] for run in runs.values()]
            found.append(
                Summary(
                    peer=peer,
                    row=row,
                    seeds=len(runs),
                    compression=_mean(runs, "compression"),
                    told=_by_bytes(runs, "told_bytes"),
                    uniform=_by_bytes(runs, "uniform_bytes"),
                    mean=statistics.mean(values),
                    least=min(values),
                    most=max(values),
                    to_float=100
                    * statistics.mean(
                        run["accuracy"] - rows[_FLOAT][seed]["accuracy"]
                        for seed, run in runs.items()
                    ),
                )
            )
    return found


def accuracy_cells(summary: Summary) -> tuple[str, ...]:
    """An accuracy row as text."""
    return (
        summary.peer,
        summary.row,
        str(summary.seeds),
        f"{summary.compression:.2f}x",
        f"{summary.told:.2f}x",
        f"{summary.uniform:.2f}x",
        f"{summary.mean:.2f}",
        (
            f"{summary.least:.2f}..{summary.most:.2f}"
            if summary.seeds > 1
            else ""
        ),
        f"{summary.to_float:+.2f}",
    )


ACCURACY_COLUMNS = (
    "peer",
    "row",
    "seeds",
    "compression",
    "with widths stored",
    "one width a layer",
    "accuracy %",
    "min..max",
    "to float",
)
COST_COLUMNS = (
    "peer",
    "row",
    "model",
    "step ms",
    "step",
    "trainable",
    "optimizer slots",
)


def cost_rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """All forms of all peers but float, against the float step beside them."""
    found = []
    for peer, entry in results["peers"].items():
        for model in entry.get("cost", {}).get("models", []):
            plain = model["rows"][_FLOAT]
            for name, row in model["rows"].items():
                if name != _FLOAT:
                    found.append(
                        (
                            peer,
                            name,
                            model["model"],
                            f"{row['step_ms']:.0f}",
                            f"{row['step_ratio']:.2f}x",
                            f"{row['trainable'] / plain['trainable']:.2f}x",
                            f"{row['slots'] / plain['slots']:.2f}x",
                        )
                    )
    return found


def _mean(runs: dict[int, dict[str, Any]], key: str) -> float:
    return statistics.mean(run[key] for run in runs.values())


def _by_bytes(runs: dict[int, dict[str, Any]], key: str) -> float:
    return statistics.mean(
        4 * run["weights"] / run[key] for run in runs.values()
    )

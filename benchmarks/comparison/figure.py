"""The picture of all methods: accuracy against bytes, same data and budget."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

_KIB = 1024
_STYLES = {
    "MSQ": ("tab:blue", "o"),
    "uniform": ("0.4", "s"),
    "BSQ": ("tab:orange", "^"),
    "CSQ": ("tab:red", "v"),
    "TFMOT": ("tab:green", "D"),
    "HGQ2, a width a layer": ("tab:purple", "P"),
    "HGQ2, a width a weight, told": ("tab:pink", "X"),
}
_FLOAT = "float"


@dataclasses.dataclass(frozen=True)
class Point:
    """One row of one method over its seeds.

    Attributes:
        series: Name of the method, a key of the legend.
        row: Name of the row.
        kib: Mean KiB of the kernels, by stored bits.
        accuracies: Test accuracy of every seed, percent.
    """

    series: str
    row: str
    kib: float
    accuracies: tuple[float, ...]


def points(peers: dict[str, Any], targets: dict[str, Any]) -> list[Point]:
    """Every row that trained on the same batches for as many steps.

    Args:
        peers: What `benchmarks/results/peers.json` holds.
        targets: What `benchmarks/results/time_to_target.json` holds, for BSQ
            and CSQ.

    Raises:
        ValueError: If the two were trained with other budgets.
    """
    budget = peers["results"]["budget"]
    steps = budget["epochs"] * budget["steps"]
    theirs = targets["results"]["budget"]
    if any(budget[key] != value for key, value in theirs.items()):
        raise ValueError(
            "The rows of one picture need one budget. Received: "
            f"peers={budget}, time_to_target={theirs}"
        )
    found = []
    size = 0
    for peer, entry in peers["results"]["peers"].items():
        groups: dict[str, list[dict[str, Any]]] = {}
        for run in entry.get("accuracy", {}).get("runs", []):
            size = run["weights"]
            groups.setdefault(run["row"], []).append(run)
        for row, runs in groups.items():
            series = _series(peer, row)
            if series:
                key = "told_bytes" if "told" in series else "stored_bytes"
                found.append(_point(series, row, runs, key))
    seeds = {trial["seed"] for trial in targets["results"]["trials"]}
    trials = (
        trial | {"bytes": size * 4 / trial["compression"]}
        for trial in targets["results"]["trials"]
        if trial["steps"] == steps and trial["method"] in ("bsq", "csq")
    )
    for row, group in itertools.groupby(trials, lambda t: t["setting"]):
        runs = list(group)
        if len(runs) == len(seeds):
            found.append(_point(runs[0]["method"].upper(), row, runs, "bytes"))
    return found


def _series(peer: str, row: str) -> str:
    """The method that a peer's row belongs to; empty for none."""
    if row == _FLOAT:
        return _FLOAT if peer == "msq" else ""
    if peer == "msq":
        return "uniform" if row.startswith("uniform") else "MSQ"
    if peer == "tfmot":
        return "TFMOT"
    if peer == "hgq2":
        if "a width a layer" in row:
            return "HGQ2, a width a layer"
        return "HGQ2, a width a weight, told"
    return ""


def _point(
    series: str, row: str, runs: Iterable[dict[str, Any]], key: str
) -> Point:
    runs = list(runs)
    return Point(
        series,
        row,
        statistics.mean(run[key] for run in runs) / _KIB,
        tuple(100 * run["accuracy"] for run in runs),
    )


def draw(peers: dict[str, Any], targets: dict[str, Any], path: Path) -> None:
    """Draws all methods in one picture, mean and range over seeds."""
    figure = Figure(figsize=(8.8, 4.4), layout="constrained")
    axes = figure.subplots()
    by_series: dict[str, list[Point]] = {}
    for point in points(peers, targets):
        by_series.setdefault(point.series, []).append(point)
    for point in by_series.pop(_FLOAT, []):
        mean = statistics.mean(point.accuracies)
        axes.axhline(
            mean, color="0.2", linestyle="--", lw=1, label="float, as long"
        )
        axes.axhspan(
            min(point.accuracies), max(point.accuracies), color="0.2", alpha=0.1
        )
    for series, (color, marker) in _STYLES.items():
        row = sorted(by_series.get(series, []), key=lambda p: p.kib)
        if not row:
            continue
        means = [statistics.mean(p.accuracies) for p in row]
        low = [m - min(p.accuracies) for m, p in zip(means, row, strict=True)]
        high = [max(p.accuracies) - m for m, p in zip(means, row, strict=True)]
        axes.errorbar(
            [p.kib for p in row],
            means,
            yerr=[low, high],
            label=series,
            color=color,
            marker=marker,
            markersize=5,
            lw=1.2,
            capsize=3,
        )
    budget = peers["results"]["budget"]
    axes.set_title(
        f"ResNet-8, {budget['dataset']}, {budget['epochs']} x "
        f"{budget['steps']} steps: mean and range over seeds",
        fontsize=10,
    )
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("KiB of kernels, by stored bits")
    axes.set_ylabel("test accuracy %")
    axes.legend(
        frameon=False,
        fontsize=8,
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)

"""Pictures of docs/accuracy.md, from the benchmark's results."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

_KIB = 8 * 1024
# Negative traces have no place on a logarithmic axis.
_LEAST = 1e-9
_SERIES = (
    ("MSQ ", "MSQ", "tab:blue", "o"),
    ("uniform ", "uniform", "0.4", "s"),
)


def draw_accuracy(accuracy: dict[str, Any], path: Path) -> None:
    """Draws accuracy against bytes, a panel for every study, with spread."""
    studies = {n: s for n, s in accuracy["results"].items() if s["runs"]}
    figure = Figure(figsize=(5.2 * len(studies), 3.8), layout="constrained")
    panels = figure.subplots(1, len(studies), squeeze=False)[0]
    for axes, (name, study) in zip(panels, studies.items(), strict=True):
        _draw_study(axes, name, study["runs"])
    figure.savefig(path, dpi=120)


def _draw_study(axes: Axes, name: str, runs: list[dict[str, Any]]) -> None:
    layers = next(run["layers"] for run in runs if "layers" in run)
    size = sum(layer["size"] for layer in layers)
    for prefix, label, color, marker in _SERIES:
        groups: dict[str, list[dict[str, Any]]] = {}
        for run in runs:
            if run["row"]["name"].startswith(prefix):
                groups.setdefault(run["row"]["name"], []).append(run)
        points = sorted(
            (
                statistics.mean(r["average_bits"] for r in group) * size / _KIB,
                [100 * r["accuracy"] for r in group],
            )
            for group in groups.values()
        )
        means = [statistics.mean(values) for _, values in points]
        spread = [
            [m - min(v) for m, (_, v) in zip(means, points, strict=True)],
            [max(v) - m for m, (_, v) in zip(means, points, strict=True)],
        ]
        axes.errorbar(
            [x for x, _ in points],
            means,
            yerr=spread,
            label=label,
            color=color,
            marker=marker,
            capsize=3,
        )
    values = [100 * r["accuracy"] for r in runs if r["row"]["name"] == "float"]
    if values:
        axes.axhline(
            statistics.mean(values),
            color="tab:green",
            linestyle="--",
            label="float, trained as long",
        )
        axes.axhspan(min(values), max(values), color="tab:green", alpha=0.12)
    axes.set_title(f"{name}: mean and range over seeds", fontsize=10)
    axes.set_xlabel("KiB of weights, by stored bits")
    axes.set_ylabel("test accuracy %")
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)


def draw_bits(accuracy: dict[str, Any], path: Path) -> None:
    """Draws bits per layer against sensitivity for every searched target.

    The sensitivity is the Hessian trace per weight of the last estimate,
    which, unlike `Omega`, does not depend on the width itself.
    """
    name, study = next(
        (n, s) for n, s in accuracy["results"].items() if s["runs"]
    )
    targets = sorted(
        {
            run["row"]["target"]
            for run in study["runs"]
            if run["row"]["name"].startswith("MSQ ")
        }
    )
    figure = Figure(figsize=(3.1 * len(targets), 3.4), layout="constrained")
    panels = figure.subplots(1, len(targets), sharey=True, squeeze=False)[0]
    for axes, target in zip(panels, targets, strict=True):
        for run in study["runs"]:
            if run["row"]["name"].startswith("MSQ ") and (
                run["row"]["target"] == target
            ):
                layers = run["layers"]
                axes.scatter(
                    [
                        max(layer["trace"] / layer["size"], _LEAST)
                        for layer in layers
                    ],
                    [layer["bits"] for layer in layers],
                    s=[12 + layer["size"] / 120 for layer in layers],
                    alpha=0.55,
                    label=f"seed {run['seed']}",
                )
        axes.set_xscale("log")
        axes.set_title(f"{name}, {target:.3g}x", fontsize=10)
        axes.set_xlabel("Hessian trace per weight")
        axes.set_yticks(range(2, 9))
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("stored bits")
    panels[-1].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)

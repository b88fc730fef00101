"""Scales of weights with the optimizers and rates that Keras users take.

Every run fine-tunes one float model at one width of all weights; `study` has
the rows. Runs go on where they were killed, as those of `accuracy` do.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import Any

from benchmarks.accuracy import accuracy
from benchmarks.accuracy.study import SCALES
from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import ran
from benchmarks.harness.markdown import table

NAME = "scales"
_KINDS = ("max", "mse", "held", "learned")


def measure() -> dict[str, Any]:
    """Runs what is missing.

    Returns:
        As `accuracy.measured`.
    """
    return accuracy.measured(NAME, SCALES)


def rows(runs: list[dict[str, Any]]) -> list[list[str]]:
    """Accuracy by width, optimizer and rate, a column a scale.

    Args:
        runs: Results of `run.run`.

    Returns:
        Cells as text: means over the seeds in percent, and how far the seeds
        are apart in the worst of a row's cells.
    """
    found: dict[tuple[Any, ...], dict[str, list[float]]] = {}
    for run in runs:
        row = run["row"]
        key = (row["bits"] or 32, row["optimizer"], row["rate"])
        found.setdefault(key, defaultdict(list))[row["scale"]].append(
            100 * run["accuracy"]
        )
    lines = []
    for (bits, optimizer, rate), by_scale in found.items():
        apart = max(max(a) - min(a) for a in by_scale.values())
        seeds = max(map(len, by_scale.values()))
        kinds = ("max",) if bits == 32 else _KINDS
        lines.append(
            [
                "float" if bits == 32 else str(bits),
                optimizer,
                f"{rate:g}",
                *(
                    f"{statistics.fmean(by_scale[kind]):.1f}"
                    if kind in kinds and by_scale.get(kind)
                    else ""
                    for kind in _KINDS
                ),
                f"{apart:.1f}" if seeds > 1 else "",
            ]
        )
    return lines


def untrained(runs: list[dict[str, Any]]) -> list[list[str]]:
    """Accuracy before any training, by width, a column a scale."""
    found: dict[int, dict[str, float]] = {}
    for run in runs:
        row = run["row"]
        if row["bits"]:
            by_scale = found.setdefault(row["bits"], {})
            by_scale[row["scale"]] = 100 * run["untrained"]
    return [
        [
            str(bits),
            *(
                f"{by_scale[kind]:.1f}" if kind in by_scale else ""
                for kind in _KINDS
            ),
        ]
        for bits, by_scale in sorted(found.items())
    ]


def markdown(content: dict[str, Any]) -> str:
    """Accuracy after and before the training."""
    entry = content["results"][SCALES.name]
    budget = entry["budget"]
    seeds = len({run["seed"] for run in entry["runs"]})
    facts = ran(
        content["environment"],
        f"ResNet-8 on {budget['dataset']}",
        f"{budget['epochs']} x {budget['steps']} steps of "
        f"{budget['batch_size']}, cosine from the rate",
        f"{seeds} seed{'s' * (seeds > 1)}",
        f"{len(entry['runs'])} of the {len(SCALES.runs())} runs of the plan",
    )
    return page(
        f"{facts}. Test accuracy in percent by where scales come from:",
        table(
            ("bits", "optimizer", "rate", *_KINDS, "seeds apart"),
            rows(entry["runs"]),
            left=2,
        ),
        "Before any training:",
        table(("bits", *_KINDS), untrained(entry["runs"])),
    )

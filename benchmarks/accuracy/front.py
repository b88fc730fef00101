"""All sizes from one search, against a search for each of them.

`study` has the rows: one run of five stages with 2.5 times the epochs, and a
run for each of its sizes. Runs go on where they were killed, as those of
`accuracy` do.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.accuracy import accuracy
from benchmarks.accuracy.study import FRONT
from benchmarks.accuracy.study import SIZES
from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import ran
from benchmarks.harness.markdown import table

NAME = "front"


def measure() -> dict[str, Any]:
    """Runs what is missing.

    Returns:
        As `accuracy.measured`.
    """
    return accuracy.measured(NAME, FRONT, SIZES)


def at_size(front: Sequence[dict[str, Any]], compression: float) -> float:
    """Accuracy of the best model of a front that is at least as small.

    Args:
        front: As `run.run` has it.
        compression: By stored bits.

    Returns:
        From 0 to 1; NaN without such a model.
    """
    # A search may end above its size by less than a layer's step.
    fitting = [e for e in front if e["compression"] >= compression * 0.995]
    return max((e["accuracy"] for e in fitting), default=float("nan"))


def rows(
    fronts: list[dict[str, Any]], sizes: list[dict[str, Any]]
) -> list[tuple[str, ...]]:
    """A line a size.

    Args:
        fronts: Runs of `FRONT`.
        sizes: Runs of `SIZES`.

    Returns:
        Cells as text: accuracies in percent, means over the seeds.
    """
    by_seed = {run["seed"]: run for run in fronts}
    lines = []
    for row in SIZES.rows:
        pairs = [
            (run, by_seed[run["seed"]])
            for run in sizes
            if run["row"]["name"] == row.name and run["seed"] in by_seed
        ]
        if not pairs:
            continue
        target = float(row.target or 1.0)
        alone = [100 * own["accuracy"] for own, _ in pairs]
        together = [100 * at_size(one["front"], target) for _, one in pairs]
        apart = [b - a for a, b in zip(alone, together, strict=True)]
        lines.append(
            (
                f"{target:.2f}x",
                f"{statistics.fmean(alone):.2f}",
                f"{statistics.fmean(together):.2f}",
                f"{statistics.fmean(apart):+.2f}",
                f"{min(apart):+.2f}..{max(apart):+.2f}",
            )
        )
    return lines


def times(fronts: list[dict[str, Any]], sizes: list[dict[str, Any]]) -> float:
    """Processor time of the run for all sizes, in runs for one."""
    one = statistics.fmean(run["processor_seconds"] for run in sizes)
    return statistics.fmean(r["processor_seconds"] for r in fronts) / one


def markdown(content: dict[str, Any]) -> str:
    """Accuracy at each size, and what all of them took."""
    found = content["results"]
    fronts, sizes = found[FRONT.name]["runs"], found[SIZES.name]["runs"]
    budget = found[SIZES.name]["budget"]
    seeds = len({run["seed"] for run in fronts})
    facts = ran(
        content["environment"],
        f"ResNet-8 on {budget['dataset']}",
        f"Adam, {budget['epochs']} x {budget['steps']} steps of "
        f"{budget['batch_size']} for one size and {FRONT.epochs} x "
        f"{budget['steps']} for all",
        f"{seeds} seed{'s' * (seeds > 1)}",
    )
    return page(
        f"{facts}. All sizes took {times(fronts, sizes):.2f} times the "
        "processor time of one. Test accuracy in percent:",
        table(
            (
                "size",
                "a search each",
                "one search for all",
                "difference",
                "min..max",
            ),
            rows(fronts, sizes),
        ),
    )

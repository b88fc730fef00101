"""Today's defaults, changed one by one: what each part and method is worth.

`study` has the rows. Runs go on where they were killed, as those of `accuracy`
do.
"""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.accuracy import accuracy
from benchmarks.accuracy.study import ABLATIONS
from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import ran
from benchmarks.harness.markdown import table

NAME = "ablations"


def measure() -> dict[str, Any]:
    """Runs what is missing.

    Returns:
        As `accuracy.measured`.
    """
    return accuracy.measured(NAME, ABLATIONS)


def rows(runs: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """A line a row of the study.

    Args:
        runs: Results of `run.run`.

    Returns:
        Cells as text: accuracies in percent, differences in points with the
        standard error over the seeds.
    """
    groups: dict[str, dict[int, dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault(run["row"]["name"], {})[run["seed"]] = run
    lines = []
    for name, by_seed in groups.items():
        *head, optimizer = name.split(", ")
        plain = groups.get(f"{_plain(head[0])}, {optimizer}", {})
        mean = statistics.fmean(run["accuracy"] for run in by_seed.values())
        size = statistics.fmean(run["compression"] for run in by_seed.values())
        lines.append(
            (
                ", ".join(head),
                optimizer,
                str(len(by_seed)),
                f"{size:.2f}x",
                f"{100 * mean:.2f}",
                _difference(by_seed, plain) if plain is not by_seed else "",
                _difference(by_seed, by_seed, "reestimated", "accuracy")
                if name.split(",")[0] != "float"
                else "",
            )
        )
    return lines


def _plain(name: str) -> str:
    """The row that a row is compared with."""
    return "MSQ 12.8x" if name == "ThresholdRule" else name


def _difference(
    these: dict[int, dict[str, Any]],
    those: dict[int, dict[str, Any]],
    key: str = "accuracy",
    other: str = "accuracy",
) -> str:
    """The mean over the seeds that both have, with its standard error."""
    found = [
        100 * (run[key] - those[seed][other])
        for seed, run in these.items()
        if seed in those
    ]
    if not found:
        return ""
    mean = f"{statistics.fmean(found):+.2f}"
    if len(found) < 2:
        return mean
    return f"{mean} ± {statistics.stdev(found) / len(found) ** 0.5:.2f}"


def markdown(content: dict[str, Any]) -> str:
    """What each change gives, seed by seed."""
    entry = content["results"][ABLATIONS.name]
    budget = entry["budget"]
    facts = ran(
        content["environment"],
        f"ResNet-8 on {budget['dataset']}",
        f"{budget['epochs']} x {budget['steps']} steps of "
        f"{budget['batch_size']}, cosine from 0.02 (SGD) and 0.001 (Adam)",
        f"{len(entry['runs'])} of the {len(ABLATIONS.runs())} runs of the plan",
    )
    heads = (
        "row",
        "optimizer",
        "seeds",
        "compression",
        "accuracy %",
        "to the plain row",
        "re-estimated batch norm",
    )
    return page(
        f"{facts}. Differences are means over the seeds, in points, with their "
        "standard error:",
        table(heads, rows(entry["runs"]), left=2),
    )

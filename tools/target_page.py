"""Tables of time to target, from the results of `benchmarks time_to_target`."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.comparison import study as study
from benchmarks.comparison import tables as target_table
from benchmarks.training_cost import methods
from tools import markdown

_NAMES = {study.MSQ: "MSQ", study.BSQ: "BSQ", study.CSQ: "CSQ"}

# Rows of the cost table.
_STEPS = {
    study.MSQ: methods.SEARCHING,
    study.BSQ: methods.BSQ,
    study.CSQ: methods.CSQ,
}


def summary(content: dict[str, Any]) -> str:
    """One sentence for each method, for the README.

    Args:
        content: What `benchmarks/results/time_to_target.json` holds.
    """
    results, environment = content["results"], content["environment"]
    found = target_table.outcomes(results)
    msq = _reached(found)
    lines = [
        f"`{environment['command']}`, {environment['date']}: ResNet-8 on "
        f"{results['budget']['dataset']}, from a float model to "
        f"{results['target']:g}x at most {results['points']:g} point below it. "
        f"MSQ takes {msq.seconds:.0f} s of processor time, "
        f"{msq.steps:,} steps."
    ]
    for method in study.PUBLISHED_EPOCHS:
        best = target_table.quickest(found, method, authors=False)
        if best is None:
            continue
        name, time = _NAMES[method], f"{best.seconds:.0f} s"
        less = 100 * (1.0 - msq.seconds / best.seconds)
        if best.reached:
            lines.append(f"{name} takes {time}, MSQ {less:.0f} % less.")
            continue
        lines.append(
            f"{name} is not there after {time} and {best.steps:,} steps: MSQ "
            f"takes at least {less:.0f} % less."
        )
    lines.append("[How it was done](docs/performance.md#time-to-target)")
    return " ".join(lines) + "\n"


def _reached(found: list[target_table.Outcome]) -> target_table.Outcome:
    """MSQ's outcome, which all others are held against."""
    msq = target_table.quickest(found, study.MSQ, authors=True)
    if msq is None or not msq.reached:
        raise ValueError(
            "Times are given against MSQ's. Expected that it reached the "
            f"target. Received: {msq}"
        )
    return msq


def tables(content: dict[str, Any], cost: dict[str, Any]) -> str:
    """How long each method takes, every setting, and what MSQ's search adds.

    Args:
        content: What `benchmarks/results/time_to_target.json` holds.
        cost: What `benchmarks/results/cost.json` holds, for what a step takes.
    """
    results, environment = content["results"], content["environment"]
    found = target_table.outcomes(results)
    msq = _reached(found)
    reference = 100 * target_table.reference(results["trials"])
    lines = [
        f"`{environment['command']}`, {environment['date']}: ResNet-8 on "
        f"{results['budget']['dataset']} from one float model "
        f"({reference:.2f} % when trained on for "
        f"{results['budget']['epochs'] * results['budget']['steps']} steps, "
        f"mean of {len(study.SEEDS)} seeds) to {results['target']:g}x at most "
        f"{results['points']:g} point below it. Seconds are the processor's, "
        "one thread a trial, tracing, statistics and decisions included.",
        "",
        *markdown.table(
            (
                "method",
                "authors' hyperparameters",
                "MSQ takes less",
                "best of the grid",
                "MSQ takes less",
                "step, of float",
                "published epochs",
                "those in float epochs",
            ),
            _methods(found, msq, cost),
        ),
        "",
        *markdown.table(
            target_table.COLUMNS,
            (target_table.cells(outcome, msq) for outcome in found),
        ),
        "",
        *_shares(results),
        "",
    ]
    return "\n".join(lines)


def _methods(
    found: list[target_table.Outcome],
    msq: target_table.Outcome,
    cost: dict[str, Any],
) -> list[list[str]]:
    """A row for every method."""
    rows = []
    steps = cost["results"]["networks"]["resnet8"]["methods"]
    for method, label in _NAMES.items():
        cells = [label]
        for authors in (True, False):
            outcome = target_table.quickest(found, method, authors)
            cells += _time(outcome, msq)
        each = steps[_STEPS[method]]["step_ratio"]
        epochs = study.PUBLISHED_EPOCHS.get(method)
        cells += [
            f"{each:.2f}x",
            "" if epochs is None else str(epochs),
            "" if epochs is None else f"{epochs * each:.0f}",
        ]
        rows.append(cells)
    return rows


def _time(
    outcome: target_table.Outcome | None, msq: target_table.Outcome
) -> list[str]:
    if outcome is None:
        return ["", ""]
    if outcome is msq:
        return [f"{outcome.seconds:.0f} s", ""]
    less = 100 * (1.0 - msq.seconds / outcome.seconds)
    if outcome.reached:
        return [f"{outcome.seconds:.0f} s", f"{less:.0f} %"]
    return [
        f"not in {outcome.seconds:.0f} s ({outcome.steps:,} steps)",
        f"more than {less:.0f} %",
    ]


def _shares(results: dict[str, Any]) -> list[str]:
    trials: dict[int, list[dict[str, Any]]] = {}
    for trial in results["trials"]:
        if "shares" in trial:
            trials.setdefault(trial["steps"], []).append(trial)
    rows = []
    for steps, group in sorted(trials.items()):
        shares = [
            statistics.mean(t["shares"][part] / t["processor_s"] for t in group)
            for part in ("decisions", "hessian", "changes")
        ]
        decisions = statistics.mean(t["decisions"] for t in group)
        rows.append(
            (
                f"{steps:,}",
                f"{decisions:.0f}",
                f"{shares[0]:.1%}",
                f"{shares[1]:.1%}",
                f"{shares[2]:.2%}",
            )
        )
    columns = (
        "MSQ, steps in all",
        "decisions",
        "all of them, of the time",
        "Hessian",
        "changes of precision",
    )
    return markdown.table(columns, rows, left=0)

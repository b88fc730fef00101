"""What the time-to-target benchmark found, setting by setting."""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any

import rich.table

from benchmarks.comparison import study as study
from benchmarks.comparison.study import Setting
from benchmarks.harness import tables

Trial = dict[str, Any]
# Widths are whole bits: a target is met up to rounding of the average.
_NEARLY = 1e-3


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How one setting fared.

    Attributes:
        setting: The setting.
        steps: The shortest length at which all seeds reached the target, else
            the longest that was tried.
        reached: Whether they did.
        seeds: Seeds tried at that length.
        seconds: Mean of the processor's seconds of such a trial.
        compression: Mean compression by stored bits.
        accuracy: Mean test accuracy in percent.
    """

    setting: Setting
    steps: int
    reached: bool
    seeds: int
    seconds: float
    compression: float
    accuracy: float


def reference(trials: list[Trial]) -> float:
    """Mean accuracy of the float model, trained on like the accuracy study."""
    return statistics.mean(
        t["accuracy"] for t in trials if t["method"] == study.FLOAT
    )


def reached(trial: Trial, floor: float, target: float = study.TARGET) -> bool:
    """Whether a trial ended small and accurate enough."""
    small = trial["compression"] >= target * (1.0 - _NEARLY)
    return bool(small and trial["accuracy"] >= floor)


def outcomes(results: dict[str, Any]) -> list[Outcome]:
    """The outcome of every setting that was tried, the float model apart."""
    floor = reference(results["trials"]) - results["points"] / 100.0
    found = []
    for setting in study.SETTINGS[1:]:
        lengths: dict[int, list[Trial]] = {}
        for trial in results["trials"]:
            if trial["setting"] == setting.name:
                lengths.setdefault(trial["steps"], []).append(trial)
        if not lengths:
            continue
        passed = [
            steps
            for steps, trials in lengths.items()
            if len(trials) == len(study.SEEDS)
            and all(reached(t, floor, results["target"]) for t in trials)
        ]
        steps = min(passed, default=max(lengths))
        trials = lengths[steps]
        found.append(
            Outcome(
                setting=setting,
                steps=steps,
                reached=bool(passed),
                seeds=len(trials),
                seconds=statistics.mean(t["processor_s"] for t in trials),
                compression=statistics.mean(t["compression"] for t in trials),
                accuracy=100 * statistics.mean(t["accuracy"] for t in trials),
            )
        )
    return found


def quickest(
    found: list[Outcome], method: str, authors: bool
) -> Outcome | None:
    """A method's outcome: by its authors' settings, or the best of all.

    A setting that did not reach the target is worse than any that did.
    """
    own = [
        o
        for o in found
        if o.setting.method == method and (o.setting.authors or not authors)
    ]
    return min(own, key=lambda o: (not o.reached, o.seconds), default=None)


COLUMNS = ("setting", "steps", "time", "of MSQ", "compression", "accuracy %")


def cells(outcome: Outcome, msq: Outcome) -> tuple[str, ...]:
    """One setting as text."""
    mark = "" if outcome.reached else "not reached, "
    return (
        outcome.setting.name + (" (authors')" if _authors(outcome) else ""),
        f"{mark}{outcome.steps:,}",
        f"{outcome.seconds:.0f} s",
        (
            f"{outcome.seconds / msq.seconds:.2f}x"
            if outcome.reached
            else f"> {outcome.seconds / msq.seconds:.2f}x"
        ),
        f"{outcome.compression:.2f}x",
        f"{outcome.accuracy:.2f}",
    )


def _authors(outcome: Outcome) -> bool:
    return outcome.setting.authors and outcome.setting.method != study.MSQ


def table(results: dict[str, Any]) -> rich.table.Table:
    """Every setting, for a terminal."""
    found = outcomes(results)
    msq = quickest(found, study.MSQ, authors=False)
    return tables.filled(
        f"Time to {results['target']:g}x within {results['points']:g} "
        "point of float",
        COLUMNS,
        [] if msq is None else [cells(outcome, msq) for outcome in found],
    )

"""Time to target: how long MSQ, BSQ and CSQ train until a model is small.

The target is 8x by stored bits, at most a point below the float model. Every
setting of `target_study` is tried at growing lengths until it reaches the
target with all seeds; its time is that of its shortest such length. Trials run
a process for each core, one thread each; a kill loses those under way.
"""

from __future__ import annotations

import concurrent.futures
import json
import threading
from pathlib import Path
from typing import Any

import rich.console
import rich.table

from benchmarks.accuracy import run
from benchmarks.comparison import study as study
from benchmarks.comparison import tables
from benchmarks.comparison.study import Setting
from benchmarks.comparison.tables import Trial
from benchmarks.comparison.tables import reached
from benchmarks.comparison.tables import reference
from benchmarks.harness import child
from benchmarks.harness import record

NAME = "time_to_target"
FOLDER = Path("out/time_to_target")


def measure() -> dict[str, Any]:
    """Runs what is missing.

    Returns:
        The target, the budget, and every trial; JSON values.
    """
    results = recorded()
    trials: list[Trial] = results["trials"]
    folder = run.FOLDER / study.STUDY.name
    folder.mkdir(parents=True, exist_ok=True)
    run.make_base(study.STUDY, folder)
    FOLDER.mkdir(parents=True, exist_ok=True)
    runner = _Runner(results)
    float_setting = study.SETTINGS[0]
    with concurrent.futures.ThreadPoolExecutor(runner.cores.count) as pool:
        steps = study.STUDY.epochs * study.STUDY.steps
        # First, for the others are held against it.
        list(
            pool.map(
                lambda seed: runner.one(float_setting, steps, seed), study.SEEDS
            )
        )
        floor = reference(trials) - study.POINTS / 100.0
        list(
            pool.map(
                lambda setting: runner.climb(setting, floor),
                study.SETTINGS[1:],
            )
        )
        # What shares rate and length, for the picture of all methods, and a
        # long search, for the shares of its parts.
        others = [
            (setting, steps, seed)
            for setting in study.SETTINGS
            if setting.learning_rate == study.STUDY.learning_rate
            for seed in study.SEEDS
        ]
        others += [
            (setting, study.LENGTHS[-1], study.SEEDS[0])
            for setting in study.SETTINGS
            if setting.method == study.MSQ
        ]
        list(pool.map(lambda key: runner.one(*key), others))
    return results


def recorded() -> dict[str, Any]:
    """The results so far, without trials that had another budget."""
    results: dict[str, Any] = {
        "target": study.TARGET,
        "points": study.POINTS,
        "budget": study.STUDY.budget(),
        "trials": [],
    }
    found = record.read(NAME)
    if found and found["budget"] == results["budget"]:
        results["trials"] = found["trials"]
    return results


def table(results: dict[str, Any]) -> rich.table.Table:
    """Every setting, for a terminal."""
    return tables.table(results)


class _Runner:
    """Runs trials, a core each, and records them."""

    def __init__(self, results: dict[str, Any]):
        self._results = results
        self._lock = threading.Lock()
        self._console = rich.console.Console()
        self.cores = child.Cores()

    def climb(self, setting: Setting, floor: float) -> None:
        """Tries growing lengths until the target is reached by all seeds.

        A length at which the first seed fails is not tried with the others.
        """
        for steps in study.LENGTHS:
            seeds = iter(study.SEEDS)
            if all(
                reached(self.one(setting, steps, seed), floor) for seed in seeds
            ):
                return

    def one(self, setting: Setting, steps: int, seed: int) -> Trial:
        """A trial, as it is recorded or run now."""
        for trial in self._results["trials"]:
            if _key(trial) == (setting.name, steps, seed):
                return trial
        trial = self._run(setting, steps, seed)
        with self._lock:
            trials = self._results["trials"]
            trials.append(trial)
            names = [s.name for s in study.SETTINGS]
            # What a former study left stays, at the end.
            trials.sort(
                key=lambda t: (
                    names.index(t["setting"])
                    if t["setting"] in names
                    else len(names),
                    _key(t),
                )
            )
            record.write(NAME, self._results)
            self._console.print(
                f"{setting.name}, {steps} steps, seed {seed}: "
                f"{100 * trial['accuracy']:.2f} % at "
                f"{trial['compression']:.2f}x, {trial['processor_s']:.0f} s"
            )
        return trial

    def _run(self, setting: Setting, steps: int, seed: int) -> Trial:
        name = f"{setting.name}, {steps}, {seed}".replace(", ", "-")
        result = FOLDER / f"{name.replace(' ', '_')}.json"
        with self.cores.one() as core:
            child.logged(
                "benchmarks.comparison.trial",
                setting.name,
                steps,
                seed,
                result,
                log=result.with_suffix(".log"),
                core=core,
            )
        return json.loads(result.read_text())


def _key(trial: Trial) -> tuple[str, int, int]:
    return trial["setting"], trial["steps"], trial["seed"]

"""Killed again and again: what a run loses, and whether it ends the same.

`python -m train` is killed at points of several kinds, decided by a seed, and
started again with the same command until it ends. After each kill the folder
is searched for files that are not whole; at the end the run is compared with
one that nobody interrupted, and steps are counted: those since the last
checkpoint, and those that the next process takes again.
"""

from __future__ import annotations

import collections
import concurrent.futures as futures
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import ran
from benchmarks.harness.markdown import table
from benchmarks.reliability import kills_cluster
from benchmarks.reliability import kills_folders
from benchmarks.reliability import kills_process
from benchmarks.reliability.kills_process import STEPS
from benchmarks.reliability.kills_run import Reference
from benchmarks.reliability.kills_run import Run

# All of them, with those of the cluster, took 25 minutes on two cores that were
# not alone.
KILLS = int(os.environ.get("MSQ_TF_FAULTS_KILLS", "30"))
SEED = 0
# Kinds with the phase or the file that they are about, in the order of a run.
_WHOLE = (
    *("moment float", "checkpoint float", "checkpoint float.keras"),
    *("decision msq", "checkpoint msq", "moment msq", "moment msq"),
    *("checkpoint model.keras", "tflite", "between"),
)
_SEARCH = ("decision msq", "checkpoint msq", "moment msq", "tflite", "between")
# Processes, or pairs of workers, that run side by side.
_AT_ONCE = 2
# Kills from which on a run with float training is among them.
_MANY = 20
KINDS = {
    "moment": "at a random moment of the start or of training",
    "decision": "between a decision and its checkpoint",
    "checkpoint": "inside the write of a checkpoint or model",
    "tflite": "inside the write of a `.tflite`",
    "between": "between the files of an export",
}
# By what `by_kind` calls them.
_NUMBERS = {
    "kills": "kills",
    "median": "lost, median",
    "most": "lost, most",
    "since": "since the checkpoint, most",
    "left": "left temporary files",
    "torn": "torn files",
}
_COMPARED = {
    "bits": "bits",
    "history": "history",
    "weights": "weights, optimizer and search state",
    "files": "`.tflite` files and picture",
    "report": "report",
    "workers": "the workers' hashes",
}


def measure() -> dict[str, Any]:
    """Kills runs of one process, and one of two workers; harms folders.

    Returns:
        Kills, steps lost and what was the same, JSON values.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.monotonic()
        kills_process.jobs(folder)
        with futures.ThreadPoolExecutor(_AT_ONCE) as pool:
            cluster = pool.submit(kills_cluster.run, folder, SEED)
            runs = one_process(folder, KILLS, SEED)
        folders = kills_folders.run(folder)
        return {
            "seed": SEED,
            "steps_per_epoch": STEPS,
            "runs": runs,
            "cluster": cluster.result(),
            "folders": folders,
            "seconds": time.monotonic() - start,
        }


def one_process(folder: Path, kills: int, seed: int) -> list[dict[str, Any]]:
    """Kills as often as asked for, in as many runs as that takes.

    Args:
        folder: Where to work.
        kills: How many.
        seed: Decides where.

    Returns:
        A record for each run, with one for each kill.
    """
    jobs = kills_process.jobs(folder)
    if kills < _MANY:
        del jobs["resnet8"]
    runs: list[dict[str, Any]] = []

    def run(index: int, name: str, kinds: tuple[str, ...]) -> dict[str, Any]:
        rng = random.Random(f"{seed}/{index}")
        killed = Run(references[name], folder / f"run-{index}", rng)
        return killed.killed(kinds)

    with futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        made = pool.map(
            lambda job: Reference(job, folder / job.name), jobs.values()
        )
        references = dict(zip(jobs, made, strict=True))
        # More than once if a process ended before it was killed.
        while left := kills - sum(len(run["kills"]) for run in runs):
            planned = []
            while left > 0:
                whole = "resnet8" in jobs and not runs and not planned
                kinds = (_WHOLE if whole else _SEARCH)[:left]
                name = "resnet8" if whole else "small"
                number = len(runs) + len(planned)
                planned.append(pool.submit(run, number, name, kinds))
                left -= len(kinds)
            runs += [task.result() for task in planned]
    return runs


def by_kind(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Kills, steps and torn files of every kind of point."""
    kills = [kill for run in results["runs"] for kill in run["kills"]]
    found = {}
    for kind in KINDS:
        ours = [kill for kill in kills if kill["kind"] == kind]
        if ours:
            lost = [kill["lost"] for kill in ours]
            found[kind] = {
                "kills": len(ours),
                "median": statistics.median(lost),
                "most": max(lost),
                "since": max(kill["since"] for kill in ours),
                "left": sum(bool(kill["left"]) for kill in ours),
                "torn": sum(len(kill["torn"]) for kill in ours),
            }
    return found


def agreed(runs: list[dict[str, Any]]) -> dict[str, int]:
    """How many runs ended with the same, by what was compared."""
    counts: collections.Counter[str] = collections.Counter()
    for run in runs:
        counts.update({name: int(same) for name, same in run["equal"].items()})
    return dict(counts)


def markdown(content: dict[str, Any]) -> str:
    """What the kills did."""
    results, kinds = content["results"], by_kind(content["results"])
    runs, folders = results["runs"], results.get("folders", {})
    count = sum(kind["kills"] for kind in kinds.values())
    restarts = sum(run["restarts"] for run in runs)
    facts = ran(content["environment"], f"seed {results['seed']}")
    return page(
        f"{facts}, {results['seconds'] / 60:.0f} minutes: {count} kills "
        f"(SIGKILL) and {restarts} restarts in {len(runs)} runs of one "
        f"process, {results['steps_per_epoch']} steps an epoch, a checkpoint "
        "after each. *Lost* are the steps that the next process repeated, "
        "*since the checkpoint* the steps that a kill could have cost.",
        table(
            ("killed", *_NUMBERS.values()),
            (
                (KINDS[name], *(f"{kind[key]:g}" for key in _NUMBERS))
                for name, kind in kinds.items()
            ),
        ),
        _ends(runs),
        _cluster(results["cluster"]),
        "A folder that was changed before the same command:" if folders else "",
        _folders(folders) if folders else "",
    )


def _ends(runs: list[dict[str, Any]]) -> str:
    """What came out in the end."""
    same = ", ".join(
        f"{_COMPARED[what]} {number}" for what, number in agreed(runs).items()
    )
    left = sum(len(run["left"]) for run in runs)
    return (
        f"Bit for bit the same as in an uninterrupted run, of "
        f"{len(runs)} runs: {same}. Temporary files in the folders at the "
        f"end: {left}."
    )


def _folders(cases: dict[str, dict[str, Any]]) -> list[str]:
    """What came of folders that something else was done to."""
    rows = [
        (
            name,
            f"{case['status']}",
            f"{case['told']}",
            "-" if case["again"] is None else f"{case['again']}",
            "yes" if case["equal"] else "no",
        )
        for name, case in cases.items()
    ]
    heads = ("exit code", "lines of error", "repeated epochs", "the same end")
    return table(("change", *heads), rows)


def _cluster(cluster: dict[str, Any]) -> str:
    kills = cluster["kills"]
    chief = sum(kill["worker"] == 0 for kill in kills)
    lost = [kill["lost"] for kill in kills]
    told = sum(kill["told"] for kill in kills)
    slowest = max(kill["seconds"] for kill in kills)
    torn = sum(len(kill["torn"]) for kill in kills)
    same = ", ".join(
        _COMPARED[what] for what, yes in cluster["equal"].items() if yes
    )
    other = [
        _COMPARED[what] for what, yes in cluster["equal"].items() if not yes
    ]
    differ = f" Not the same: {', '.join(other)}." if other else ""
    return (
        f"`multi_worker`, {cluster['workers']} processes, "
        f"{len(kills)} kills of one of them, {chief} of the chief: the other "
        f"ended within {slowest:.1f} s, {told} times with the error that "
        f"names the lost worker. Steps lost: {max(lost)} at most. Torn files: "
        f"{torn}. Then the same as without kills: {same or 'nothing'}.{differ}"
    )

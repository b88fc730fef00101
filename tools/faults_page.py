"""The section "Kills" of docs/reliability.md, from the benchmark."""

from __future__ import annotations

from typing import Any

from benchmarks.reliability import kills as faults
from tools import markdown

_KINDS = {
    "moment": "at a random moment of the start or of training",
    "decision": "between a decision and its checkpoint",
    "checkpoint": "inside the write of a checkpoint or model",
    "tflite": "inside the write of a `.tflite`",
    "between": "between the files of an export",
}
# By what `faults.by_kind` calls them.
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
    "workers": "what the workers say that they hold",
}


def section(content: dict[str, Any]) -> str:
    """Markdown of what the kills did.

    Args:
        content: What `benchmarks/results/faults.json` holds.
    """
    environment, results = content["environment"], content["results"]
    ran = markdown.ran(environment, f"seed {results['seed']}")
    kinds = faults.by_kind(results)
    runs, cluster = results["runs"], results["cluster"]
    count = sum(kind["kills"] for kind in kinds.values())
    restarts = sum(run["restarts"] for run in runs)
    lines = [
        f"{ran}, {results['seconds'] / 60:.0f} minutes: {count} kills "
        f"(SIGKILL) and {restarts} restarts in {len(runs)} runs of one "
        f"process, {results['steps_per_epoch']} steps an epoch, a checkpoint "
        "after each. *Lost* are the steps that the next process took again, "
        "*since the checkpoint* those that a kill could have cost.",
        "",
        *markdown.table(
            ("killed", *_NUMBERS.values()),
            (
                (_KINDS[name], *(f"{kind[key]:g}" for key in _NUMBERS))
                for name, kind in kinds.items()
            ),
        ),
        "",
        _ends(runs, "runs"),
        "",
        _cluster(cluster),
        *_folders(results.get("folders", {})),
    ]
    return "\n".join([*lines, ""])


def _ends(runs: list[dict[str, Any]], name: str) -> str:
    """What came out in the end."""
    same = ", ".join(
        f"{_COMPARED[what]} {number}"
        for what, number in faults.agreed(runs).items()
    )
    left = sum(len(run["left"]) for run in runs)
    return (
        f"Bit for bit the same as in a run that nobody interrupted, of "
        f"{len(runs)} {name}: {same}. Temporary files in the folders at the "
        f"end: {left}."
    )


def _folders(cases: dict[str, dict[str, Any]]) -> list[str]:
    """What came of folders that something else was done to."""
    if not cases:
        return []
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
    heads = ("exit code", "lines that say so", "epochs again", "the same end")
    return [
        "",
        "A folder to which something else was done before the same command:",
        "",
        *markdown.table(("done", *heads), rows),
    ]


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
        f"names the loss. Steps lost: {max(lost)} at most. Torn files: {torn}. "
        f"Then the same as without kills: {same or 'nothing'}.{differ}"
    )

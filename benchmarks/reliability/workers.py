"""Workers that are lost in every way, and workers that train for long.

Both use machines as training does, one after the other: what shares the
machine makes every step and every notice later.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import ran
from benchmarks.harness.markdown import table
from benchmarks.reliability import worker_losses
from benchmarks.reliability import worker_soak


def measure() -> dict[str, Any]:
    """Loses workers, then trains.

    Returns:
        What the others did, and what grew, JSON values.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return {
            "losses": worker_losses.run(folder),
            "soaks": [
                worker_soak.run(folder, workers)
                for workers in worker_soak.WORKERS
            ],
        }


def rows(soak: dict[str, Any]) -> list[tuple[str, ...]]:
    """What each part of a long training had, as text.

    Args:
        soak: The record of one number of workers.
    """
    minutes = soak["seconds"] / 60 / len(soak["parts"])
    return [
        (
            str(soak["workers"]),
            f"{number * minutes:.0f} to {(number + 1) * minutes:.0f}",
            str(part["threads"]),
            f"{part['mib']:.0f}",
            f"{part['step_ms']:.0f}",
        )
        for number, part in enumerate(soak["parts"])
    ]


def markdown(content: dict[str, Any]) -> str:
    """What came of lost workers, and of long training."""
    losses, soaks = content["results"]["losses"], content["results"]["soaks"]
    same = [name for name, equal in losses["equal"].items() if equal]
    other = [name for name, equal in losses["equal"].items() if not equal]
    differ = f" Not the same: {', '.join(other)}." if other else ""
    steps = ", ".join(
        f"{soak['steps']:,} with {soak['workers']} workers" for soak in soaks
    )
    return page(
        f"{ran(content['environment'])}: "
        f"{losses['workers']} workers, `--worker_timeout="
        f"{losses['timeout_s']:g}`, {len(losses['losses'])} losses in one run, "
        "all started again after each. *Within* is the time until the last of "
        "the other workers ended.",
        table(
            ("what happens", "to", "within", "exit codes", "one line of error"),
            (_loss(loss) for loss in losses["losses"]),
            left=2,
        ),
        "At the end the same as in a run that lost no worker: "
        f"{', '.join(same) or 'nothing'}.{differ}",
        "Training of a ResNet-8 with synchronized batch norm, a checkpoint "
        f"every {worker_soak.STEPS} steps; threads and memory of the worker "
        "that has most:",
        table(
            ("workers", "minutes", "threads", "MiB", "ms a step"),
            (row for soak in soaks for row in rows(soak)),
        ),
        f"Steps in all: {steps}.",
    )


def _loss(loss: dict[str, Any]) -> tuple[str, ...]:
    codes = sorted(set(loss["statuses"]))
    return (
        loss["name"],
        loss["who"],
        f"{max(loss['seconds']):.0f} s",
        ", ".join(str(code) for code in codes),
        f"{sum(loss['told'])} of {len(loss['told'])}",
    )

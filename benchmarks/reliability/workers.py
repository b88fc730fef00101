"""Workers that are lost in every way, and workers that train for long.

Both use machines as training does, one after the other: what shares the
machine makes every step and every notice later.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import rich.table

from benchmarks.harness import tables
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


def table(results: dict[str, Any]) -> rich.table.Table:
    """What the long trainings had; and how many losses were told."""
    losses = results["losses"]["losses"]
    told = sum(all(loss["told"]) for loss in losses)
    return tables.filled(
        f"{told} of {len(losses)} losses told by all others",
        ("workers", "minutes", "threads", "MiB", "ms a step"),
        (row for soak in results["soaks"] for row in rows(soak)),
    )

"""Workers that train for a long time: what grows with the steps.

Two workers, then three, train a ResNet-8 with `--distribution=multi_worker` as
docs/distribution.md has it: every step has dozens of exchanges, and whatever
one of them leaves behind shows within minutes. The command counts its steps,
see `faults_child`; threads and memory are those that Linux counts.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import memory
from benchmarks.reliability import kills_cluster
from benchmarks.reliability import kills_process
from benchmarks.reliability.kills_process import Job
from benchmarks.reliability.kills_process import Process

WORKERS = (2, 3)
# Of training, without the start.
SECONDS = float(os.environ.get("MSQ_TF_FAULTS_SOAK_SECONDS", "660"))
# Steps of an epoch, after which there is a checkpoint.
STEPS = 100
# Seconds between two samples.
_PAUSE = 5.0
_BATCH = 48
# More than is trained. The first fifth of them is a search.
_EPOCHS = 200
# Parts of the time that are compared.
PARTS = 5


def run(folder: Path, workers: int, seconds: float = SECONDS) -> dict[str, Any]:
    """Trains for so long, and ends the workers.

    Args:
        folder: Where to work.
        workers: How many.
        seconds: Of training by MSQ.

    Returns:
        The record, JSON values.
    """
    flags = (f"--train_examples={STEPS * _BATCH}", f"--batch_size={_BATCH}")
    job = Job("resnet8", flags, {"float": 1, "msq": _EPOCHS})
    ours = folder / f"soak-{workers}"
    points = {index: {"kind": "moment"} for index in range(workers)}
    processes = kills_cluster.start(job, ours, workers, points)
    try:
        samples = _samples(processes, ours, seconds)
    finally:
        for process in processes:
            process.kill()
            process.status()
    return {"workers": workers, **summary(samples)}


def _samples(
    processes: Sequence[Process], folder: Path, seconds: float
) -> list[dict[str, Any]]:
    """Threads and memory of all, and the chief's steps, again and again."""
    for process in processes:
        process.patience += seconds
    samples: list[dict[str, Any]] = []
    while not samples or samples[-1]["second"] < seconds:
        time.sleep(_PAUSE)
        ended = [process for process in processes if not process.alive()]
        if ended:
            raise RuntimeError(f"a worker ended:\n{ended[0].text[-2000:]}")
        counted = kills_process.progress(folder)
        if counted["phase"] == "msq" and counted["taken"]:
            # The first step is the start's, which traces it.
            now = time.monotonic()
            start = samples[0]["now"] if samples else now
            samples.append(
                {
                    "now": now,
                    "second": now - start,
                    "steps": counted["taken"],
                    "threads": [
                        memory.status("Threads", process.pid)
                        for process in processes
                    ],
                    "mib": [
                        memory.status("VmRSS", process.pid) / 1024
                        for process in processes
                    ],
                }
            )
    return samples


def summary(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Compares equal parts of the time.

    Args:
        samples: In the order of time.

    Returns:
        Steps and seconds in all; of each part the most threads of a worker,
        the memory (MiB) of the largest at the part's median, and the
        milliseconds of a step.
    """
    total = samples[-1]["second"]
    parts = []
    for number in range(PARTS):
        low, high = number * total / PARTS, (number + 1) * total / PARTS
        ours = [s for s in samples if low <= s["second"] <= high]
        steps = ours[-1]["steps"] - ours[0]["steps"]
        elapsed = ours[-1]["second"] - ours[0]["second"]
        parts.append(
            {
                "threads": max(max(s["threads"]) for s in ours),
                "mib": statistics.median(max(s["mib"]) for s in ours),
                "step_ms": 1e3 * elapsed / max(steps, 1),
            }
        )
    return {
        "seconds": total,
        "steps": samples[-1]["steps"] - samples[0]["steps"],
        "parts": parts,
    }

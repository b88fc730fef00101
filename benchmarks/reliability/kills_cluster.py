"""Two workers, of which one is killed, again and again."""

from __future__ import annotations

import contextlib
import json
import random
import re
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.reliability import kills_check
from benchmarks.reliability import kills_process
from benchmarks.reliability.kills_process import STEPS
from benchmarks.reliability.kills_process import Job
from benchmarks.reliability.kills_process import Process

_WORKERS = 2
# Seconds that one waits for the other.
TIMEOUT = 300
# Which worker is killed, and how.
KILLS = ((1, "moment"), (0, "checkpoint"), (1, "moment"))


def run(folder: Path, seed: int) -> dict[str, Any]:
    """Kills one worker at a time and starts both again.

    Args:
        folder: Where to work.
        seed: Decides where.

    Returns:
        The record of the run, with one for each kill.
    """
    rng = random.Random(seed)
    job = kills_process.jobs(folder)["small"]
    reference, ours = folder / "cluster", folder / "cluster-killed"
    expected = end(job, reference, _WORKERS)
    kills = [
        _killed(job, ours, reference, victim, kind, rng)
        for victim, kind in KILLS
    ]
    received = end(job, ours, _WORKERS)
    equal = kills_check.equal(ours, reference)
    return {
        "workers": _WORKERS,
        "timeout_s": TIMEOUT,
        "kills": kills,
        "restarts": len(kills),
        "equal": {**equal, "workers": received == expected},
        "left": kills_check.temporary(ours),
    }


def _killed(
    job: Job,
    folder: Path,
    reference: Path,
    victim: int,
    kind: str,
    rng: random.Random,
) -> dict[str, Any]:
    """Starts all workers, kills one, and waits for the end of the others."""
    done = kills_check.epochs(folder, "msq")
    left = job.phases["msq"] - done
    point: dict[str, Any] = {"kind": "moment"}
    if kind == "checkpoint":
        # The next but one, so that every start gets further.
        name = f"checkpoints/msq/epoch-{done + 2:04d}.weights.h5"
        size = max((reference / name).parent.iterdir()).stat().st_size
        share = rng.uniform(0.02, 0.98)
        point = {"kind": kind, "name": name, "bytes": round(share * size)}
    processes = start(job, folder, _WORKERS, {victim: point})
    doomed = processes[victim]
    if kind == "moment":
        # At the earliest in the second of the epochs to come, and before the
        # last two, which would leave nothing for the next.
        wanted = rng.randrange(STEPS, min(3, left - 2) * STEPS)
        own = folder_of(folder, victim)
        while doomed.alive() and kills_process.progress(own)["taken"] < wanted:
            time.sleep(1e-3)
        doomed.kill()
    doomed.expect(-signal.SIGKILL)
    killed = time.monotonic()
    others = [process for process in processes if process is not doomed]
    statuses = [process.status() for process in others]
    seconds = time.monotonic() - killed
    now = kills_process.progress(folder_of(folder, victim))
    after = kills_check.epochs(folder, "msq")
    return {
        **point,
        "worker": victim,
        "phase": now["phase"],
        "taken": now["taken"],
        # The chief may have a step behind it that the other died in.
        "lost": max((now["done"] - after) * STEPS + now["taken"], 0),
        "statuses": statuses,
        "told": all(
            "error: Another worker" in process.text for process in others
        ),
        "seconds": seconds,
        "torn": kills_check.torn(folder, reference),
        "left": kills_check.temporary(folder),
    }


def end(job: Job, folder: Path, workers: int) -> set[str]:
    """Runs all workers to the end; returns what they say that they hold."""
    processes = start(job, folder, workers)
    for process in processes:
        process.expect(0)
    found = [
        re.findall(r"^worker \d of \d: (.*)$", p.text, re.M) for p in processes
    ]
    return {line for lines in found for line in lines}


def start(
    job: Job,
    folder: Path,
    workers: int,
    points: Mapping[int, dict[str, Any]] = MappingProxyType({}),
) -> list[Process]:
    """Starts all workers.

    Args:
        job: What they train.
        folder: The chief's; those of others are beside it, see `folder_of`.
        workers: How many.
        points: Where some of them end, see `faults_process.doomed`.

    Returns:
        The processes, the chief's first.
    """
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(socket.socket()) for _ in range(workers)]
        for port in ports:
            port.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{p.getsockname()[1]}" for p in ports]
    flags = ["--distribution=multi_worker"]
    if not any(flag.startswith("--worker_timeout=") for flag in job.flags):
        flags.append(f"--worker_timeout={TIMEOUT}")
    processes = []
    for index in range(workers):
        config = json.dumps(
            {
                "cluster": {"worker": addresses},
                "task": {"type": "worker", "index": index},
            }
        )
        own = folder_of(folder, index)
        if index in points:
            process = kills_process.doomed(
                job, own, points[index], *flags, TF_CONFIG=config
            )
        else:
            process = kills_process.plain(job, own, *flags, TF_CONFIG=config)
        processes.append(process)
    return processes


def folder_of(folder: Path, index: int) -> Path:
    """Nothing in common with the chief but the network."""
    return folder if not index else folder.with_name(f"{folder.name}-{index}")

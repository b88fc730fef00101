"""What else befalls the folder of a run, besides kills.

A run is killed late; then something is done to its folder, and the same
command is given again. It has to end as a run that nobody touched, or to
refuse the folder in one line.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.reliability import kills_check
from benchmarks.reliability import kills_process
from benchmarks.reliability.kills_process import Job

_PHASE = "msq"
# Of the first command, which is killed when this one is there.
_EPOCH = 5
# The same network in another run.
_OTHER = ("--seed=5",)


def run(folder: Path) -> dict[str, Any]:
    """Tries every case.

    Args:
        folder: Where to work.

    Returns:
        By case: the exit code, whether one line told of it, whether the end
        was that of the reference, and epochs that were trained again.
    """
    job = kills_process.jobs(folder)["small"]
    reference, broken = folder / "untouched", folder / "broken"
    kills_process.plain(job, reference).expect(0)
    _leave(job, broken)
    cases = {
        name: _case(job, folder / f"folder-{index}", broken, reference, act)
        for index, (name, act) in enumerate(CASES.items())
    }
    cases["a second process"] = _second(job, folder / "second", reference)
    return cases


def _leave(job: Job, folder: Path, *flags: str) -> None:
    """A run that was killed behind a checkpoint."""
    name = f"epoch-{_EPOCH:04d}.weights.h5"
    point = {"kind": "between", "name": name, "when": "after"}
    process = kills_process.doomed(job, folder, point, *flags)
    process.expect(-signal.SIGKILL)


def _case(
    job: Job,
    folder: Path,
    broken: Path,
    reference: Path,
    act: Callable[[Path, Job], None],
) -> dict[str, Any]:
    shutil.copytree(broken, folder)
    act(folder, job)
    process = kills_process.plain(job, folder)
    status, text = process.status(), process.text
    ended = (folder / "report.json").exists()
    first = re.search(rf"^{_PHASE} +(\d+)/", text, re.MULTILINE)
    return {
        "status": status,
        "told": len(re.findall(r"^(?:A checkpoint is|error: )", text, re.M)),
        "equal": ended and all(kills_check.equal(folder, reference).values()),
        "again": _EPOCH - int(first[1]) + 1 if first else None,
    }


def _newest(folder: Path) -> Path:
    return folder / f"checkpoints/{_PHASE}/epoch-{_EPOCH:04d}.weights.h5"


def _cut(folder: Path, job: Job) -> None:
    data = _newest(folder).read_bytes()
    _newest(folder).write_bytes(data[: len(data) // 2])


def _zero(folder: Path, job: Job) -> None:
    with _newest(folder).open("r+b") as file:
        file.seek(_newest(folder).stat().st_size // 2)
        file.write(bytes(4096))


def _foreign(folder: Path, job: Job) -> None:
    other = folder.with_name(f"{folder.name}-other")
    _leave(job, other, *_OTHER)
    shutil.copy(_newest(other), _newest(folder))


def _unnamed(folder: Path, job: Job) -> None:
    (folder / "run.json").unlink()


def _history(folder: Path, job: Job) -> None:
    with (folder / "history.jsonl").open("a") as file:
        file.write("[1]\n")


def _far(folder: Path, job: Job) -> None:
    _newest(folder).rename(_newest(folder).with_name("epoch-9999.weights.h5"))


CASES: dict[str, Callable[[Path, Job], None]] = {
    "the newest checkpoint cut": _cut,
    "4 KiB of it zeroed": _zero,
    "another run's checkpoint": _foreign,
    "no run.json": _unnamed,
    "an invalid history": _history,
    "an epoch that does not exist": _far,
}


def _second(job: Job, folder: Path, reference: Path) -> dict[str, Any]:
    """Another process is started while one is in the middle of a run."""
    first = kills_process.plain(job, folder)
    while first.alive() and not _newest(folder).exists():
        time.sleep(0.02)
    # It would be at its end before the other one has started.
    first.send(signal.SIGSTOP)
    log = folder.with_name("second-process")
    second = kills_process.Process(
        "train", job.command(folder), log.with_suffix(".log")
    )
    status = second.status()
    first.send(signal.SIGCONT)
    named = f"held by process {first.pid} " in second.text
    first.expect(0)
    equal = kills_check.equal(folder, reference)
    rows = (folder / "history.jsonl").read_text().splitlines()
    epochs = [json.loads(row)["epoch"] for row in rows]
    return {
        "status": status,
        "told": int(named and second.text.count("\n") == 1),
        "equal": all(equal.values()) and epochs == sorted(set(epochs)),
        "again": 0,
    }

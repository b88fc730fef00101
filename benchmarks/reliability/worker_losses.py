"""Three workers, of which one is lost in every way that the page names.

docs/distribution.md says for each way what the others do. Here they are lost
one after the other, and all are started again with the same command.
"""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.reliability import kills_check
from benchmarks.reliability import kills_cluster
from benchmarks.reliability import kills_process
from benchmarks.reliability.kills_child import LATE
from benchmarks.reliability.kills_process import Job
from benchmarks.reliability.kills_process import Process

WORKERS = 3
# Seconds that they wait where nothing but the watch can tell a loss; longer
# than the start takes on a machine that is not alone.
TIMEOUT = 60
_BATCH = 48


@dataclasses.dataclass(frozen=True)
class Loss:
    """One way to lose a worker.

    Attributes:
        name: What happens, in words; `{}` is who.
        worker: Which one.
        point: Where it is lost by itself, see `faults_child.arm`.
        signal: What it gets from outside, in the middle of training.
    """

    name: str
    worker: int
    point: str = "moment"
    signal: signal.Signals | None = None

    @property
    def who(self) -> str:
        """The worker, in words."""
        return f"worker {self.worker}" if self.worker else "the chief"


LOSSES = (
    Loss("killed (SIGKILL)", 2, signal=signal.SIGKILL),
    Loss("killed (SIGKILL)", 0, signal=signal.SIGKILL),
    Loss("ended by its scheduler (SIGTERM)", 1, signal=signal.SIGTERM),
    Loss("raises an error", 1, "raise"),
    Loss("frozen (SIGSTOP)", 2, signal=signal.SIGSTOP),
    Loss("frozen (SIGSTOP)", 0, signal=signal.SIGSTOP),
    Loss("lives, and does not answer", 1, "hang"),
    Loss("lives, and does not answer", 0, "hang"),
    Loss("never starts", 2, "absent"),
    Loss("gone between the meeting and TensorFlow's start", 2, "gone"),
)


def run(
    folder: Path, losses: Sequence[Loss] = LOSSES, timeout: float = TIMEOUT
) -> dict[str, Any]:
    """Loses workers, starts all again, and compares the end.

    Args:
        folder: Where to work.
        losses: In this order.
        timeout: `--worker_timeout`.

    Returns:
        The record, with one for each loss.
    """
    flags = (
        *kills_process.jobs(folder)["small"].flags,
        f"--train_examples={kills_process.STEPS * _BATCH}",
        f"--batch_size={_BATCH}",
        f"--worker_timeout={timeout:g}",
    )
    # An epoch for each loss, and some to end with.
    job = Job("small", flags, {"msq": len(losses) + 4})
    reference, ours = folder / "losses-none", folder / "losses"
    expected = kills_cluster.end(job, reference, WORKERS)
    records = [_lost(job, ours, loss) for loss in losses]
    received = kills_cluster.end(job, ours, WORKERS)
    equal = kills_check.equal(ours, reference)
    return {
        "workers": WORKERS,
        "timeout_s": timeout,
        "losses": records,
        "equal": {**equal, "workers": received == expected},
        "left": kills_check.temporary(ours),
    }


def _lost(job: Job, folder: Path, loss: Loss) -> dict[str, Any]:
    before = kills_check.epochs(folder, "msq")
    absent = loss.point == "absent"
    processes = kills_cluster.start(
        job,
        folder,
        WORKERS,
        {loss.worker: {"kind": "moment" if absent else loss.point}},
    )
    victim = processes[loss.worker]
    others = [process for process in processes if process is not victim]
    try:
        if absent:
            victim.kill()
        elif loss.point == "gone":
            _wait(others, lambda: not victim.alive())
        else:
            own = kills_cluster.folder_of(folder, loss.worker)
            _wait(others, lambda: kills_process.progress(own)["taken"] >= LATE)
            if loss.signal is not None:
                victim.send(loss.signal)
        start = time.monotonic()
        seconds = []
        for process in others:
            process.status()
            seconds.append(time.monotonic() - start)
        victim.send(signal.SIGCONT)
        if loss.point == "hang":
            victim.kill()
        return {
            "name": loss.name,
            "worker": loss.worker,
            "who": loss.who,
            "seconds": seconds,
            "statuses": [process.status() for process in others],
            "victim": victim.status(),
            "told": [told(process.text) for process in others],
            "epochs": kills_check.epochs(folder, "msq") - before,
        }
    finally:
        for process in processes:
            process.kill()


def _wait(others: Sequence[Process], over: Callable[[], bool]) -> None:
    while not over():
        ended = [process for process in others if not process.alive()]
        if ended:
            raise RuntimeError(f"it ended alone:\n{ended[0].text[-2000:]}")
        time.sleep(1e-2)


def told(text: str) -> bool:
    """Whether a worker ended with one line that says what is lost.

    Args:
        text: Its output.
    """
    *_, last = text.rstrip().splitlines() or [""]
    names = ("error: Another worker ", "error: The cluster did not come ")
    return "Traceback" not in text and last.startswith(names)

"""One run that is killed, started again, and compared with an untouched one."""

from __future__ import annotations

import math
import random
import re
import signal
import time
from pathlib import Path
from typing import Any

from benchmarks.reliability import kills_check
from benchmarks.reliability import kills_process
from benchmarks.reliability.kills_process import STEPS
from benchmarks.reliability.kills_process import Job
from benchmarks.reliability.kills_process import Process


class Reference:
    """The run that nobody interrupts."""

    def __init__(self, job: Job, folder: Path):
        self.job, self.folder = job, folder
        process = kills_process.plain(job, folder)
        first = re.compile(r"^(?:float|msq) +1/", re.MULTILINE)
        while process.alive() and not first.search(process.text):
            time.sleep(0.02)
        # Seconds to the end of the first epoch.
        self.start_up = process.seconds
        process.expect(0)
        report = kills_check.report(folder)
        self.changes = [
            math.ceil(change["epoch"])
            for change in report["precision"]["changes"]
        ]

    def bytes_of(self, name: str) -> int:
        """Size of a file; all checkpoints of a phase have one."""
        path = self.folder / name
        if path.suffix == ".h5":
            path = max(path.parent.glob("*.weights.h5"))
        return path.stat().st_size


class Run:
    """One run, killed, started again, and compared."""

    def __init__(self, reference: Reference, folder: Path, rng: random.Random):
        self._reference, self._job = reference, reference.job
        self._folder, self._rng = folder, rng
        # Kills of which the next process has not shown yet what they cost.
        self._open: list[tuple[dict[str, Any], str, int]] = []

    def killed(self, kinds: tuple[str, ...]) -> dict[str, Any]:
        """Kills, restarts, and compares what it ends with.

        Args:
            kinds: A kill of each, in this order. A process that ends before
                it is killed ends the run.

        Returns:
            The record.
        """
        kills: list[dict[str, Any]] = []
        for kind in kinds:
            point = self._point(kind)
            process = kills_process.doomed(self._job, self._folder, point)
            if point["kind"] == "moment":
                self._kill(process, kind)
            if process.status() == 0:
                now = kills_process.progress(self._folder)
                if now["phase"]:
                    self._settle(now["phase"], now["done"])
                break
            process.expect(-signal.SIGKILL)
            kills.append(self._seen(point))
        process = kills_process.plain(self._job, self._folder)
        process.expect(0)
        self._settle_by_text(process.text)
        return {
            "job": self._job.name,
            "kills": kills,
            "restarts": len(kills),
            "equal": kills_check.equal(self._folder, self._reference.folder),
            "left": kills_check.temporary(self._folder),
        }

    def _point(self, kind: str) -> dict[str, Any]:
        name, _, what = kind.partition(" ")
        rng, reference = self._rng, self._reference
        if name == "decision":
            done = kills_check.epochs(self._folder, what)
            ahead = sum(epoch > done for epoch in reference.changes)
            number, steps = rng.randint(1, max(ahead, 1)), rng.randint(0, STEPS)
            return {"kind": name, "number": number, "steps": steps}
        if name == "checkpoint":
            file = f"checkpoints/{what}" if "float." in what else what
            if "." not in what:
                done = kills_check.epochs(self._folder, what)
                last = max(self._job.phases[what] - 1, done + 1)
                epoch = rng.randint(done + 1, last)
                file = f"checkpoints/{what}/epoch-{epoch:04d}.weights.h5"
        else:
            file = rng.choice(self._job.exported)
        if name == "between":
            when = rng.choice(("before", "after"))
            return {"kind": name, "name": file, "when": when}
        if name == "moment":
            return {"kind": name}
        size = round(rng.uniform(0.02, 0.98) * reference.bytes_of(file))
        return {"kind": name, "name": file, "bytes": max(size, 1)}

    def _kill(self, process: Process, kind: str) -> None:
        """Kills at a random moment: of the start, or of the steps to come."""
        rng, phase = self._rng, kind.partition(" ")[2]
        if rng.random() < 0.5:
            end = rng.uniform(0.0, self._reference.start_up)
            while process.alive() and process.seconds < end:
                time.sleep(0.01)
        else:
            done = kills_check.epochs(self._folder, phase)
            steps = (self._job.phases[phase] - done) * STEPS
            wanted = rng.randrange(max(steps - STEPS, 1))
            while process.alive():
                now = kills_process.progress(self._folder)
                if now["phase"] == phase and now["taken"] >= wanted:
                    break
                time.sleep(1e-3)
            # Not only behind a step.
            time.sleep(rng.uniform(0.0, 0.05))
        process.kill()

    def _seen(self, point: dict[str, Any]) -> dict[str, Any]:
        """What a kill left, with the counters of the process that is gone."""
        now = kills_process.progress(self._folder)
        phase = now["phase"]
        record: dict[str, Any] = {
            **point,
            "phase": phase,
            "taken": 0,
            "since": 0,
            "lost": None,
            "torn": kills_check.torn(self._folder, self._reference.folder),
            "left": kills_check.temporary(self._folder),
        }
        if phase:
            self._settle(phase, now["done"])
            at = now["done"] * STEPS + now["taken"]
            record["taken"] = now["taken"]
            record["since"] = now["taken"] - now["saved"]
            self._open.append((record, phase, at))
        else:
            # It took none, so it lost none.
            record["lost"] = 0
        return record

    def _settle_by_text(self, text: str) -> None:
        """Reads off the last process's output where it went on."""
        found = re.search(r"^(float|msq) +(\d+)/", text, re.MULTILINE)
        if found:
            self._settle(found[1], int(found[2]) - 1)
        else:
            self._settle("msq", self._job.phases["msq"])

    def _settle(self, phase: str, done: int) -> None:
        """A process begins here: so much is taken again.

        Args:
            phase: The first phase that it trains.
            done: Epochs that it starts from.
        """
        order = list(self._job.phases)
        for record, was, at in self._open:
            end = done * STEPS
            if order.index(was) < order.index(phase):
                end = self._job.phases[was] * STEPS
            record["lost"] = max(at - end, 0)
        self._open = []

"""Measurements in a process of their own."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msq_tf import atomic_files

# What a child computes then does not depend on how many cores there are.
ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}


def measured(
    module: str,
    *words: object,
    shown: bool = False,
    limit: float | None = None,
) -> Any:
    """Runs a module that writes a JSON file, and returns what it wrote.

    Args:
        module: Name of the module.
        words: Its arguments, but for the last one, the path of the file.
        shown: Whether what it prints is shown.
        limit: Seconds that it may take.

    Raises:
        CalledProcessError: If it ends with another status than 0.
        TimeoutExpired: If it takes longer.
    """
    output = None if shown else subprocess.DEVNULL
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        subprocess.run(
            [sys.executable, "-m", module, *map(str, words), str(result)],
            check=True,
            stdout=output,
            stderr=output,
            timeout=limit,
        )
        return json.loads(result.read_text())


def measured_once(folder: Path, module: str, *words: object) -> Any:
    """`measured`, or what an interrupted run of the benchmark has of it.

    Args:
        folder: Where results are until all are there; see `finished`.
        module: Name of the module.
        words: Its arguments, but for the last one.

    Raises:
        CalledProcessError: If it ends with another status than 0.
    """
    name = re.sub(r"\W+", "_", " ".join(map(str, words)))
    path = folder / f"{name}.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write(path, measured(module, *words))
    return json.loads(path.read_text())


def finished(folder: Path) -> None:
    """Removes what `measured_once` kept, so that the next run measures."""
    shutil.rmtree(folder, ignore_errors=True)


def write(result: str | Path, found: Any) -> None:
    """Writes what a module found that `measured` runs.

    Args:
        result: The path of the file, its last argument.
        found: JSON values.
    """
    with atomic_files.replacing(Path(result)) as partial:
        partial.write_text(json.dumps(found))


def logged(
    module: str, *words: object, log: Path, core: int | None = None
) -> None:
    """Runs a module with one thread; what it prints goes into a file.

    Two of them side by side are faster than one on two cores.

    Args:
        module: Name of the module.
        words: Its arguments.
        log: File that what it prints is appended to.
        core: The only core that it may use; `None` leaves that open.

    Raises:
        CalledProcessError: If it ends with another status than 0.
    """
    with log.open("a") as file:
        subprocess.run(
            [
                *([] if core is None else ["taskset", "-c", str(core)]),
                *(sys.executable, "-m", module, *map(str, words)),
            ],
            check=True,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | ONE_THREAD,
        )


class Cores:
    """The cores of this process, for threads that each want one for a child.

    Attributes:
        count: How many there are.
    """

    def __init__(self) -> None:
        cores = sorted(os.sched_getaffinity(0))
        self.count = len(cores)
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for core in cores:
            self._free.put(core)

    @contextlib.contextmanager
    def one(self) -> Iterator[int]:
        """Waits for a core that no one else has."""
        core = self._free.get()
        try:
            yield core
        finally:
            self._free.put(core)

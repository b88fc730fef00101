"""Resident memory of this process, and its peak over a stretch. Linux only."""

from __future__ import annotations

import ctypes
import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CLEAR = Path("/proc/self/clear_refs")
# Between two looks where the kernel does not let the peak be set back.
_SECONDS = 0.01


def resident() -> float:
    """MiB that this process holds now."""
    return status("VmRSS") / 1024


def peak() -> float:
    """Most that it held since the start or `reset_peak`, MiB.

    `getrusage` would count the parent's.
    """
    return status("VmHWM") / 1024


def give_back() -> None:
    """Collects garbage, and returns to the system what is free."""
    gc.collect()
    trim()


def trim() -> None:
    """Returns to the system what is free."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def reset_peak() -> bool:
    """Sets the peak back to what is resident.

    Returns:
        Whether the kernel let it.
    """
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def over(function: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Runs a function and measures it.

    Free memory is given back before and after, so that what is resident then
    is in use.

    Args:
        function: What to run.

    Returns:
        Its result, and `seconds`, `cpu_seconds`, and MiB resident `before` and
        `after` it and at its `peak`.
    """
    give_back()
    before = resident()
    watch = None if reset_peak() else _Watch()
    start, processor = time.perf_counter(), time.process_time()
    result = function()
    seconds = time.perf_counter() - start
    cpu_seconds = time.process_time() - processor
    highest = peak() if watch is None else watch.stop()
    give_back()
    return result, {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "before_mib": round(before, 1),
        "peak_mib": round(highest, 1),
        "after_mib": round(resident(), 1),
    }


class _Watch:
    """Looks at what is resident again and again, in a thread."""

    def __init__(self) -> None:
        self._highest = resident()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(_SECONDS):
            self._highest = max(self._highest, resident())

    def stop(self) -> float:
        """Ends it; returns the most that was seen, MiB."""
        self._over.set()
        self._thread.join()
        return max(self._highest, resident())


def status(field: str, process: int | str = "self") -> int:
    """A number that Linux has of a process; memory in KiB.

    Args:
        field: Such as `"VmRSS"` or `"Threads"`.
        process: Its number; this one by default.
    """
    (line,) = (
        line
        for line in Path(f"/proc/{process}/status").read_text().splitlines()
        if line.startswith(f"{field}:")
    )
    return int(line.split()[1])

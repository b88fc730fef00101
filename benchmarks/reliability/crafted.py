"""What a file that was made to cost much costs to read, by its size.

Each kind of `crafted_files` is read at a size and at ten times that, in a
process of its own: time of the processor, and memory. Work in proportion takes
ten times as long for a file ten times as large.

    python -m benchmarks.reliability.crafted KIND COUNT RESULT
"""

from __future__ import annotations

import sys
import time
from typing import Any

from benchmarks.harness import child
from benchmarks.harness import memory
from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import ran
from benchmarks.harness.markdown import table
from benchmarks.reliability import crafted_files
from tflite_export.flatbuffer import model as fb
from tflite_export.inspect import inspect
from tflite_export.targets import lint

SIZES = (1000, 10_000)
# A target with rules of all kinds.
TARGET = "edgetpu"
# The most that a file ten times as large may take.
MOST_GROWTH = 12.0
# Readings of a file, of which the quickest counts, and seconds after which no
# further one is begun.
_READS, _ENOUGH = 3, 8.0
# Seconds that a size may take, and one that are too few for a ratio.
_LIMIT = 300.0
_LEAST = 0.05


def measure() -> dict[str, Any]:
    """Reads all kinds.

    Returns:
        Bytes, seconds, memory and what came of it by kind and size, and how
        the seconds grew for each byte.
    """
    return {
        "target": TARGET,
        "most_growth": MOST_GROWTH,
        "kinds": {kind: _kind(kind) for kind in crafted_files.KINDS},
    }


def _kind(kind: str) -> dict[str, Any]:
    runs = [
        child.measured(
            "benchmarks.reliability.crafted", kind, count, limit=_LIMIT
        )
        for count in SIZES
    ]
    small, large = runs
    # By what the file really grew; as if ten times as large.
    times = max(large["seconds"], _LEAST) / max(small["seconds"], _LEAST)
    growth = 10 * times / (large["bytes"] / small["bytes"])
    return {"runs": runs, "growth": growth, "kept": growth <= MOST_GROWTH}


def read(data: bytes) -> str:
    """Reads, judges and prints a file; returns what came of it."""
    try:
        info = inspect.describe(data)
    except ValueError as error:
        return str(error)
    for _ in inspect.json_pieces(info):
        pass
    str(info)
    lint.summary(TARGET, lint.check_model(fb.load(data), TARGET))
    return "accepted"


def main(kind: str, count: str, result: str) -> None:
    """Reads one file, and writes what it took."""
    # All that is loaded once.
    read(crafted_files.KINDS[kind](10))
    data = crafted_files.KINDS[kind](int(count))
    before = memory.peak()
    seconds: list[float] = []
    while len(seconds) < _READS and sum(seconds) < _ENOUGH:
        start = time.process_time()
        outcome = read(data)
        seconds.append(time.process_time() - start)
    found = {
        "bytes": len(data),
        "seconds": min(seconds),
        "growth_mib": memory.peak() - before,
        "outcome": outcome[:200],
    }
    child.write(result, found)


def markdown(content: dict[str, Any]) -> str:
    """Seconds and memory by kind."""
    rows = []
    for kind, found in content["results"]["kinds"].items():
        large = found["runs"][-1]
        accepted = large["outcome"] == "accepted"
        rows.append(
            (
                kind,
                f"{large['bytes']:,}",
                f"{large['seconds']:.2f}",
                f"{large['growth_mib']:.0f}",
                f"{found['growth']:.1f}",
                "accepted" if accepted else "refused",
            )
        )
    return page(
        f"{ran(content['environment'])}; *growth* is how many times as long a "
        "file takes that is ten times as large:",
        table(("kind", "bytes", "s", "MiB", "growth", "outcome"), rows),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

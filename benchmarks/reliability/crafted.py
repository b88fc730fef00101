"""What a file that was made to cost much costs to read, by its size.

Each kind of `crafted_files` is read at a size and at ten times that, by turns
and in a process of its own: time of the processor, and memory. Work in
proportion takes ten times as long for a file ten times as large.

    python -m benchmarks.reliability.crafted KIND RESULT
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
# Turns, of which the quickest reading of each size counts, and seconds after
# which no further turn is begun.
_TURNS, _ENOUGH = 5, 20.0
# Seconds that a kind may take, and those of a size that are too few for a
# ratio.
_LIMIT = 600.0
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
    runs = child.measured("benchmarks.reliability.crafted", kind, limit=_LIMIT)[
        "runs"
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


def main(kind: str, result: str) -> None:
    """Reads the files of one kind, and writes what they took.

    Both sizes are read in one process by turns: between two processes the
    machine itself was measured to differ by half.
    """
    make = crafted_files.KINDS[kind]
    # All that is loaded once.
    read(make(10))
    files = [make(count) for count in SIZES]
    seconds: list[list[float]] = [[] for _ in SIZES]
    growths, outcomes = [0.0] * len(SIZES), [""] * len(SIZES)
    for turn in range(_TURNS):
        for number, data in enumerate(files):
            before = memory.peak()
            start = time.process_time()
            outcomes[number] = read(data)[:200]
            seconds[number].append(time.process_time() - start)
            # Later turns find the memory of the first.
            growths[number] += memory.peak() - before if not turn else 0.0
        if sum(map(sum, seconds)) > _ENOUGH:
            break
    runs = [
        {
            "bytes": len(data),
            "seconds": min(taken),
            "growth_mib": growth,
            "outcome": outcome,
        }
        for data, taken, growth, outcome in zip(
            files, seconds, growths, outcomes, strict=True
        )
    ]
    child.write(result, {"runs": runs})


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
        f"{ran(content['environment'])}; *growth* is the time of a file "
        "that is ten times as large, relative to this one:",
        table(("kind", "bytes", "s", "MiB", "growth", "outcome"), rows),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

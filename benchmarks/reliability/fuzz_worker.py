"""Reads hostile files in a process of its own, and counts what came of it.

    python -m benchmarks.reliability.fuzz_worker FOLDER SEED FIRST COUNT

`FOLDER` holds valid files to damage, and the results: `FIRST.json` when all is
done, and `FIRST.now`, the case that it is at, by which the parent knows what
ended a process that ended early.
"""

from __future__ import annotations

import collections
import json
import random
import re
import resource
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from benchmarks.harness import memory
from benchmarks.reliability import fuzz_cases

# More than the libraries take by themselves, far less than a machine has.
MOST_MEMORY = 8 << 30
# Every so many files are printed, too.
_SHOWN = 8
# What reasons are about, by a piece of the sentence; the first that fits.
_CLASSES = (
    ("identifier", "Not a TFLite file"),
    ("offset or length", "points at|lies outside|elements of|no finite end"),
    ("vtable or table", "has a vtable|has \\d+ bytes$"),
    ("alignment", "not aligned"),
    ("unterminated string", "zero byte"),
    ("unknown field or type", "does not know|unknown type"),
    ("shared bytes or tables", "share the same|more tables"),
    ("data outside of the file", "ends at byte|other file|another file"),
    ("index", ": no "),
    ("shape", "has the shape|the signature|elements;|negative shape"),
    ("data of another size", "its buffer holds|strings"),
    ("scales", "scales"),
    ("sparsity", "sparse"),
    ("graphs in a circle", "runs itself"),
    ("no graph", "no graph"),
)


def reason_class(text: str) -> str:
    """What the reason for refusing a file is about."""
    for name, pattern in _CLASSES:
        if re.search(pattern, text):
            return name
    return "other"


def outcome(data: bytes, shown: bool = True) -> tuple[str, str]:
    """Reads one file.

    Args:
        data: The file.
        shown: Whether to print it, too.

    Returns:
        `"accepted"`, `"refused"` with the class of the reason, or `"broken"`
        with what was raised.
    """
    try:
        fuzz_cases.read(data, shown)
    except ValueError as error:
        if type(error) is ValueError and str(error):
            return "refused", reason_class(str(error))
        return "broken", _where(error)
    except BaseException as error:
        return "broken", _where(error)
    return "accepted", ""


def run(folder: Path, seed: int, first: int, count: int) -> dict[str, Any]:
    """Reads the cases of a range.

    Args:
        folder: Holds the valid files, `*.tflite`.
        seed: Decides, with its number, what a case is.
        first: Number of the first case.
        count: How many.

    Returns:
        Counts by outcome, engine and reason; what was broken; time and
        memory.
    """
    files = {p.stem: p.read_bytes() for p in sorted(folder.glob("*.tflite"))}
    for data in files.values():
        fuzz_cases.read(data)
    before, start = memory.peak(), time.perf_counter()
    counts: collections.Counter[str] = collections.Counter()
    reasons: collections.Counter[str] = collections.Counter()
    broken: list[dict[str, Any]] = []
    slowest = (0.0, first)
    now = folder / f"{first}.now"
    for number in range(first, first + count):
        now.write_text(str(number))
        rng = random.Random(f"{seed}/{number}")
        engine, _, data = fuzz_cases.case(rng, files)
        began = time.perf_counter()
        found, why = outcome(data, shown=number % _SHOWN == 0)
        slowest = max(slowest, (time.perf_counter() - began, number))
        counts[f"{engine} {found}"] += 1
        if found == "refused":
            reasons[why] += 1
        elif found == "broken":
            broken.append({"case": number, "engine": engine, "what": why})
    return {
        "counts": dict(counts),
        "reasons": dict(reasons),
        "broken": broken,
        "slowest_s": slowest[0],
        "slowest_case": slowest[1],
        "seconds": time.perf_counter() - start,
        "growth_mib": memory.peak() - before,
    }


def _where(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(last.filename).name}:{last.lineno}"
    return f"{type(error).__name__} at {place}: {str(error)[:200]}"


def main(folder: str, seed: str, first: str, count: str) -> None:
    """Runs a range and writes its results."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A warning is a number that nobody checked.
    warnings.simplefilter("error")
    place = Path(folder)
    results = run(place, int(seed), int(first), int(count))
    (place / f"{first}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])

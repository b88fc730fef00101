"""Reads hostile files that coverage leads to, with atheris.

    python -m benchmarks.reliability.fuzz_atheris CORPUS -runs=100000 -seed=1

atheris (libFuzzer for Python) is in no requirement of the project: it comes
for few versions of Python. It ends the process at the first case that raises
something else than a reason.
"""

from __future__ import annotations

import importlib
import sys

# By name: a tool that one may have, not a dependency.
atheris = importlib.import_module("atheris")

with atheris.instrument_imports(
    include=[
        "tflite_export.flatbuffer.check_bytes",
        "tflite_export.flatbuffer.check_model",
    ]
):
    from benchmarks.reliability import fuzz_worker


def one(data: bytes) -> None:
    """Reads one file; raises if it was neither accepted nor refused."""
    found, why = fuzz_worker.outcome(data)
    if found == "broken":
        raise AssertionError(why)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()

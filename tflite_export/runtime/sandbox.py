"""Work on a file in a separate process with limits.

LiteRT's interpreter is native code. A file that is sound byte by byte can
still make a kernel divide by zero, ask for all memory or never end. The parent
leaves a request in a folder, the worker an answer: JSON and arrays of numbers,
nothing that could run.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tflite_export import files
from tflite_export.text_tables import printable

_ROOT = Path(__file__).resolve().parent.parent.parent
# Before lines of native code that are no errors.
_NOISE = ("INFO", "I0000", "W0000", "WARNING")
_REQUEST, _ANSWER, _ARRAYS = "request.json", "answer.json", "arrays.npz"


def run(
    module: str,
    request: Mapping[str, Any],
    arrays: Sequence[np.ndarray],
    seconds: float,
    failure: str,
) -> str:
    """Has a module answer a request in a process of its own.

    Args:
        module: The worker. Its `main` takes a folder and leaves an answer
            there.
        request: JSON values.
        arrays: Arrays of numbers that go with it.
        seconds: Longest time that it may take.
        failure: What to say if it ends without an answer or a reason.

    Raises:
        ValueError: If an array is not of numbers, or the worker gave a reason
            for having no answer, took too long, or died.
    """
    for array in arrays:
        if array.dtype.kind not in "biuf":
            raise ValueError(
                f"Expected arrays of numbers. Received: dtype={array.dtype}"
            )
    with tempfile.TemporaryDirectory() as folder:
        limits = {"memory": most_memory()}
        Path(folder, _REQUEST).write_text(json.dumps({**request, **limits}))
        np.savez(Path(folder, _ARRAYS), *arrays)
        reason = _work(module, folder, seconds)
        answer = Path(folder, _ANSWER)
        if not answer.exists():
            raise ValueError(
                f"{failure}. Expected an answer. Received: {reason}"
            )
        found = json.loads(answer.read_text())
    if "reason" in found:
        raise ValueError(found["reason"])
    return found["answer"]


def most_memory() -> int:
    """Bytes that a worker may take: half of what the machine has."""
    return files.physical_memory() // 2


def read_request(folder: str) -> dict[str, Any]:
    """The work to do; for the worker."""
    return json.loads(Path(folder, _REQUEST).read_text())


def read_arrays(folder: str) -> list[np.ndarray]:
    """The arrays that go with it; for the worker."""
    with np.load(Path(folder, _ARRAYS), allow_pickle=False) as arrays:
        return [arrays[f"arr_{k}"] for k in range(len(arrays.files))]


def answer(folder: str, text: str) -> None:
    """Leaves the answer; for the worker."""
    _write(folder, {"answer": text})


@contextlib.contextmanager
def answering(folder: str, request: Mapping[str, Any]) -> Iterator[None]:
    """Limits the worker, and leaves the reason if it has no answer."""
    most = int(request["memory"])
    # Who started us may have set less, as `ulimit -v` does.
    for limit in resource.getrlimit(resource.RLIMIT_AS):
        most = most if limit == resource.RLIM_INFINITY else min(most, limit)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    # A dead worker is expected here: it shall not fill the disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        yield
    except MemoryError:
        _write(folder, {"reason": f"It takes more than {most:,} bytes to run"})
    except (OSError, RuntimeError, ValueError) as error:
        _write(folder, {"reason": str(error) or type(error).__name__})


def _write(folder: str, found: dict[str, str]) -> None:
    whole, part = Path(folder, _ANSWER), Path(folder, "part")
    part.write_text(json.dumps(found))
    part.rename(whole)


def _work(module: str, folder: str, seconds: float) -> str:
    """Starts the worker; returns how it ended."""
    path = os.environ.get("PYTHONPATH")
    # The package that runs here, wherever it was imported from.
    paths = [str(_ROOT), *([path] if path else [])]
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", module, folder],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it did not end within {seconds:g} s"
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    lines = [line for line in lines if not line.startswith(_NOISE)]
    last = printable(lines[-1])[:200] if lines else "no message"
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return f"it was ended by {name} ({last})"
    return f"it ended with status {done.returncode} ({last})"

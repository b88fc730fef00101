"""Benchmarks of many models, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from typing import Protocol
from typing import TypeVar

import rich.console

from benchmarks.harness import record

TIMEOUT = 30 * 60


class Row(Protocol):
    """A model of a benchmark."""

    @property
    def name(self) -> str:
        """Name that the module is given."""

    @property
    def family(self) -> str:
        """Heading in tables."""


R = TypeVar("R", bound=Row)


def measure(
    name: str, rows: Sequence[Row], module: str, targets: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Runs the models that are missing, one after the other.

    What the results have with all of its exports is not run again.

    Args:
        name: Of the results, which are written after every model.
        rows: The models.
        module: Is run with a model's name and the path of a JSON file, which
            it writes anew after every step.
        targets: Entries of `exports` that a process may not come to.

    Returns:
        What the module wrote, by the models' names, in their order.
    """
    console = rich.console.Console()
    results = record.read(name) or {"models": []}
    done = {run["name"]: run for run in results["models"]}
    for row in rows:
        if set(targets) <= set(done.get(row.name, {}).get("exports", ())):
            continue
        console.print(f"{row.name} ...")
        done[row.name] = _process(row, module, targets)
        record.write(name, content(rows, done))
    return {row.name: done[row.name] for row in rows if row.name in done}


def content(
    rows: Sequence[Row], done: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """The results that are recorded, in the order of the rows."""
    return {
        "timeout_s": TIMEOUT,
        "models": [done[row.name] for row in rows if row.name in done],
    }


def run_one(
    rows: Sequence[R], run: Callable[[R, Path], None], arguments: list[str]
) -> int:
    """Runs the model that a command line names; for the module of `measure`.

    Args:
        rows: The models.
        run: Takes one of them, and the path of its JSON file.
        arguments: A name and a path.
    """
    name, result = arguments
    run(next(row for row in rows if row.name == name), Path(result))
    return 0


def _process(row: Row, module: str, targets: Sequence[str]) -> dict[str, Any]:
    """Runs one model, as far as it comes."""
    reason = ""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-m", module, row.name, str(result)]
        try:
            status = subprocess.run(
                command,
                timeout=TIMEOUT,
                check=False,
                capture_output=True,
                text=True,
            )
            if status.returncode:
                last = status.stderr.strip().splitlines()[-1:]
                reason = f"exit status {status.returncode}: {''.join(last)}"
        except subprocess.TimeoutExpired:
            reason = f"not done within {TIMEOUT} s"
        entry: dict[str, Any] = {"name": row.name, "family": row.family}
        if result.exists():
            entry = json.loads(result.read_text())
    if reason:
        entry["reason"] = reason
        for target in targets:
            entry.setdefault("exports", {}).setdefault(
                target, {"outcome": "not reached", "reason": reason}
            )
    return entry

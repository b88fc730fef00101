"""Every architecture of keras.applications: coverage, exports, memory, time.

Random weights, normalizations as after training, bits 2 to 8 cycling over the
weights; see `zoo_models` for the rows and `zoo_run` for what is done with one.
Each model has a process of its own, so that peaks of memory are its own. What
is in `results/zoo.json` is not run again; remove it to start anew.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import rich.console
import rich.table

from benchmarks.files import zoo_run
from benchmarks.files.zoo_models import ROWS
from benchmarks.files.zoo_models import Row
from benchmarks.harness import record
from benchmarks.harness import tables

NAME = "zoo"
_TIMEOUT = 30 * 60


def measure() -> dict[str, Any]:
    """Runs the models that are missing, one after the other.

    Returns:
        The entries of `zoo_run`, in the order of the rows; JSON values.
    """
    console = rich.console.Console()
    done = _recorded()
    for row in ROWS:
        if row.name in done:
            continue
        console.print(f"{row.name} ...")
        done[row.name] = _process(row)
        record.write(NAME, _in_order(done))
    return _in_order(done)


def table(results: dict[str, Any]) -> rich.table.Table:
    """One line a model."""
    view = tables.filled(
        "keras.applications, bits 2 to 8 cycling",
        (
            "model",
            "weights",
            "covered",
            "8 bits",
            "noise",
            "prepare CPU s",
            "MiB",
        ),
    )
    for target in zoo_run.TARGETS:
        view.add_column(target)
    for run in results["models"]:
        view.add_row(*_cells(run))
    return view


def share(run: dict[str, Any]) -> float:
    """Share of a model's weights that is quantized."""
    return run["coverage"]["quantized"] / run["coverage"]["elements"]


def peak_mib(run: dict[str, Any]) -> int:
    """Most memory that the process of a model held."""
    entries = [run[name] for name in ("built", "prepare") if name in run]
    entries += run.get("exports", {}).values()
    return max((entry.get("peak_mib", 0) for entry in entries), default=0)


def _cells(run: dict[str, Any]) -> list[str]:
    if "coverage" not in run:
        return [run["name"], *[""] * 4, run["reason"]]
    return [
        run["name"],
        f"{run['coverage']['elements']:,}",
        f"{100 * share(run):.2f} %",
        f"{100 * run['forward']['mean']:.2f} %",
        f"{100 * run['noise']['mean']:.2f} %",
        f"{run['prepare']['cpu_seconds']:.2f}",
        f"{peak_mib(run):,}",
        *(
            _export(run["exports"].get(target, {"outcome": "not reached"}))
            for target in zoo_run.TARGETS
        ),
    ]


def _export(entry: dict[str, Any]) -> str:
    if entry["outcome"] != "verified":
        return f"{entry['outcome']}: {entry.get('reason', '')}"
    return f"{entry['bytes']:,} in {entry['cpu_seconds']:.0f} s"


def _recorded() -> dict[str, dict[str, Any]]:
    results = record.read(NAME) or {"models": []}
    return {run["name"]: run for run in results["models"]}


def _in_order(done: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "bits": list(zoo_run.BITS),
        "timeout_s": _TIMEOUT,
        "models": [done[row.name] for row in ROWS if row.name in done],
    }


def _process(row: Row) -> dict[str, Any]:
    """Runs one model in a process of its own, as far as it comes."""
    reason = ""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [
            *(sys.executable, "-m", "benchmarks.files.zoo_run"),
            *(row.name, str(result)),
        ]
        try:
            status = subprocess.run(
                command,
                timeout=_TIMEOUT,
                check=False,
                capture_output=True,
                text=True,
            )
            if status.returncode:
                last = status.stderr.strip().splitlines()[-1:]
                reason = f"exit status {status.returncode}: {''.join(last)}"
        except subprocess.TimeoutExpired:
            reason = f"not done within {_TIMEOUT} s"
        entry: dict[str, Any] = {"name": row.name, "family": row.family}
        if result.exists():
            entry = json.loads(result.read_text())
    if reason:
        entry["reason"] = reason
        for target in zoo_run.TARGETS:
            entry.setdefault("exports", {}).setdefault(
                target, {"outcome": "not reached", "reason": reason}
            )
    return entry

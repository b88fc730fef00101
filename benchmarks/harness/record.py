"""Result files: the numbers, and what is needed to get them again."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "results"

_PACKAGES = ("tensorflow", "keras", "numpy", "ai-edge-litert", "msq-tf")


def environment(command: str) -> dict[str, Any]:
    """Versions and processor of this run, under the command that made it."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": versions,
    }


def write(name: str, results: Any) -> Path:
    """Writes `results` with the environment to `results/<name>.json`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {
        "environment": environment(f"python -m benchmarks {name}"),
        "results": results,
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def load(name: str) -> dict[str, Any]:
    """What `results/<name>.json` holds: environment and results."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def read(name: str) -> Any:
    """The `results` that `write` wrote last; `None` where there are none."""
    exists = (RESULTS / f"{name}.json").exists()
    return load(name)["results"] if exists else None

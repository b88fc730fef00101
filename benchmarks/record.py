"""Result files: the numbers, and what is needed to get them again."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

_PACKAGES = ("tensorflow", "keras", "numpy", "ai-edge-litert", "msq-tf")


def environment() -> dict[str, Any]:
    """Versions, processor and command of this run."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "command": "python -m benchmarks " + " ".join(sys.argv[1:]),
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
    content = {"environment": environment(), "results": results}
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path

"""Measurements in a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def measured(module: str, *words: object) -> Any:
    """Runs a module that writes a JSON file, and returns what it wrote.

    Args:
        module: Name of the module. What it prints is not shown.
        words: Its arguments, but for the last one, the path of the file.

    Raises:
        CalledProcessError: If it ends with another status than 0.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        subprocess.run(
            [sys.executable, "-m", module, *map(str, words), str(result)],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return json.loads(result.read_text())

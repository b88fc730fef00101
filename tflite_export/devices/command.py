"""Running the tools of devices."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tflite_export.errors import ExportError


def run(
    name: str,
    arguments: Sequence[str],
    seconds: float,
    folder: Path | None = None,
    purpose: str = "",
) -> subprocess.CompletedProcess[str]:
    """Runs a command, for as long as it may take.

    Args:
        name: What to call it in errors.
        arguments: The command and its arguments.
        seconds: Longest time that it may take.
        folder: Where it runs; the current folder if `None`.
        purpose: What it was run for, behind the error's words.

    Returns:
        Its exit status and what it printed; whether it failed is not looked
        at.

    Raises:
        ExportError: If it takes too long.
    """
    try:
        return subprocess.run(
            arguments,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ExportError(
            f"{name} didn't finish in time{purpose}. Expected an end within "
            f"{seconds:g} s, on a machine that is not busy with other work. "
            "Received: none"
        ) from error

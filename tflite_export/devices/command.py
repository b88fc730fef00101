"""Running the tools of devices."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

from tflite_export.errors import ExportError


def run(
    name: str,
    arguments: Sequence[str],
    seconds: float,
    folder: Path | None = None,
    purpose: str = "",
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs a command for some seconds at most.

    It does not check whether the command failed. `name` and `purpose` are for
    the error; `environment` is all of it, `None` for that of this process.

    Raises:
        ExportError: If it takes too long.
    """
    try:
        return subprocess.run(
            arguments,
            cwd=folder,
            env=environment,
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

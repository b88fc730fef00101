"""Finds the Chromium that opens pages in tests, or installs it.

    python -m tools.chromium

Playwright brings none: one of the system is taken. Without it tests of pages
are skipped, so nothing here is an error.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# As Debian names them; without a font a page has no text to look at.
_PACKAGES = ("chromium", "fonts-dejavu-core")
# Longest time that apt-get may take for one command.
_SECONDS = 240


def find() -> str | None:
    """The path of an installed Chromium; `None` for none."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


def install() -> bool:
    """Installs Chromium by apt-get, where that is there and may be used.

    Returns:
        Whether all of its commands ended well.
    """
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        return False
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    arguments = ("install", "-y", "--no-install-recommends", *_PACKAGES)
    # A mirror that cannot be reached is given up soon.
    waits = ("-o", "Acquire::http::Timeout=20", "-o", "Acquire::Retries=0")
    for command in (("update", "-q"), arguments):
        try:
            done = subprocess.run(
                [apt, *command, *waits],
                env=environment,
                stdin=subprocess.DEVNULL,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        if done.returncode:
            return False
    return True


def main() -> int:
    """Installs Chromium where there is none, and says how it went."""
    path = find()
    if path is None and install():
        path = find()
    if path is not None:
        print(f"Tests of pages run in {path}.")
    else:
        print(
            "There is no Chromium: tests that open pages are skipped. "
            f"Install one, in Debian as root: apt-get install {_PACKAGES[0]} "
            f"{_PACKAGES[1]}. It is looked for as {', '.join(_NAMES)}."
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

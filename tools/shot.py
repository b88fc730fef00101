"""Writes the README's picture: a shot of the page of `make demo`.

    python -m tools.shot [out/demo/index.html docs/images/look.png]

It takes Playwright and a Chromium of the system.
"""

from __future__ import annotations

import pathlib
import shutil
import sys

_PAGE, _PICTURE = "out/demo/index.html", "docs/images/look.png"
_SIZE = {"width": 1100, "height": 1250}
_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def shoot(
    page: pathlib.Path, picture: pathlib.Path, scheme: str = "light"
) -> None:
    """Takes a shot of the top of a page.

    Raises:
        RuntimeError: If no Chromium is installed.
    """
    from playwright import sync_api

    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        raise RuntimeError("No Chromium is installed.")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        opened = browser.new_context(
            viewport=_SIZE, color_scheme=scheme
        ).new_page()
        opened.goto(page.resolve().as_uri())
        opened.wait_for_selector(".chart[data-ready]")
        opened.wait_for_timeout(1000)
        opened.screenshot(path=str(picture))
        browser.close()


def main(argv: list[str]) -> int:
    """Takes the shot."""
    page, picture = (*argv, *(_PAGE, _PICTURE)[len(argv) :])
    shoot(pathlib.Path(page), pathlib.Path(picture))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Writes pictures of pages: the README's is of the page of `make demo`.

    python -m tools.shot [out/demo/index.html docs/images/look.png]
    python -m tools.shot out/dark_calibration/wrong.html \
        docs/images/look_tensors.png tensors

The second takes the section of that name. Both need Playwright and a Chromium,
see `tools.chromium`.
"""

from __future__ import annotations

import pathlib
import sys

from tools import chromium

_PAGE, _PICTURE = "out/demo/index.html", "docs/images/look.png"
_SIZE = {"width": 1100, "height": 1250}


def shoot(
    page: pathlib.Path,
    picture: pathlib.Path,
    section: str | None = None,
    scheme: str = "light",
) -> None:
    """Takes a shot of a section of a page; `None` for its top.

    Raises:
        RuntimeError: If no Chromium is installed.
    """
    from playwright import sync_api

    path = chromium.find()
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
        if section is None:
            opened.screenshot(path=str(picture))
        else:
            opened.locator(f"#{section}").screenshot(path=str(picture))
        browser.close()


def main(argv: list[str]) -> int:
    """Takes the shot."""
    page, picture, *rest = (*argv, *(_PAGE, _PICTURE)[len(argv) :])
    shoot(pathlib.Path(page), pathlib.Path(picture), *rest)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Headless Chromium, where there is one."""

from __future__ import annotations

import contextlib

import pytest

from tools import chromium as installed

# As root, in a container, without a GPU.
PLAIN = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu")
# The same with WebGPU, on SwiftShader.
WEBGPU = (
    *PLAIN[:2],
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--enable-features=Vulkan",
    "--use-vulkan=swiftshader",
)


@contextlib.contextmanager
def chromium(arguments=PLAIN):
    """A browser of Playwright; skips the test where there is none."""
    pytest.importorskip("vl_convert", reason="the extra look is not installed")
    api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed"
    )
    path = installed.find()
    if path is None:
        pytest.skip("no Chromium is installed: make setup-browser")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=list(arguments)
        )
        try:
            yield browser
        finally:
            browser.close()


class Opened:
    """A page in a browser, with all that its console says.

    Attributes:
        page: Playwright's page.
        errors: What went wrong in it.
        requests: Addresses that it asked for.
    """

    def __init__(self, browser, path, **options):
        self.errors, self.requests = [], []
        self.page = browser.new_context(**options).new_page()
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.on("console", self._console)
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector(".chart[data-ready]")
        self.page.wait_for_timeout(300)

    def _console(self, message):
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

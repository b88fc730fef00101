"""These tests are about LiteRT's kernels."""

from __future__ import annotations

import pytest

from tflite_export.devices import tosa


@pytest.fixture(autouse=True)
def without_tosa(monkeypatch):
    """The reference model takes seconds a file and has tests of its own."""
    monkeypatch.setattr(tosa, "folder", lambda: None)

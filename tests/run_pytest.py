"""Runs pytest on the files given: the entry point of the Bazel tests."""

from __future__ import annotations

import sys

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main(["-c", "pyproject.toml", *sys.argv[1:]]))

"""Tools of devices as commands."""

from __future__ import annotations

import sys

import pytest

from tflite_export import ExportError
from tflite_export.devices import command


def test_a_command_that_does_not_end_is_refused(tmp_path):
    words = [sys.executable, "-c", "import time; time.sleep(60)"]
    message = r"A tool didn't finish in time for x\. Expected .* within 0\.2 s"
    with pytest.raises(ExportError, match=message):
        command.run("A tool", words, 0.2, tmp_path, " for x")


def test_what_a_command_prints_comes_back(tmp_path):
    code = "import os, sys; print(os.getcwd()); sys.exit('no')"
    done = command.run("A tool", [sys.executable, "-c", code], 60, tmp_path)
    assert done.stdout.strip() == str(tmp_path.resolve())
    assert done.stderr.strip() == "no" and done.returncode == 1

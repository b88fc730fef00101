"""The command line itself, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


@pytest.fixture
def command(root):
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "train", *arguments],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=120,
            # As a user's, who asks for no words of TensorFlow.
            env={k: v for k, v in os.environ.items() if k != LOG_LEVEL},
        )

    return run


def test_help_names_the_flags_and_needs_no_tensorflow(command):
    done = command("--help")
    assert done.returncode == 1  # absl's convention
    for name in ("--target_compression", "--allowed_bits", "--resume"):
        assert name in done.stdout
    assert "oneDNN" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "There is no place for the results"),
        (["--output_dir=x", "--seed=-1"], "The seed is out of range"),
        (["--output_dir=x", "left", "over"], "Received: left over"),
    ],
)
def test_a_wrong_command_is_answered_with_one_line(command, arguments, message):
    done = command(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_run_that_cannot_be_done_is_answered_with_one_line(command, tmp_path):
    done = command(f"--output_dir={tmp_path}", "--targets=toaster")
    assert done.returncode == 2
    assert done.stderr.startswith("error: There is no such export target.")
    assert done.stderr.count("\n") == 1

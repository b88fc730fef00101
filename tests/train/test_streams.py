"""Where a run prints to costs no run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_TRAINS = ["--train_examples=64", "--test_examples=50", "--batch_size=32"]
_TRAINS += ["--float_epochs=1", "--epochs=2", "--target_compression=4"]
_TRAINS += ["--targets=min_size"]


@pytest.fixture
def shell(root, tmp_path):
    """Runs a small training with a redirection of its streams."""

    def run(redirection, folder="run", **environment):
        arguments = [*_TRAINS, f"--output_dir={tmp_path / folder}"]
        return subprocess.run(
            [
                *("bash", "-c", f'exec "$0" "$@" {redirection}'),
                *(sys.executable, "-m", "train", *arguments),
            ],
            cwd=root,
            env={**os.environ, **environment},
            capture_output=True,
            timeout=600,
        )

    return run


@pytest.mark.slow
def test_a_locale_without_utf8_ends_in_ascii(shell, tmp_path):
    encoding = {"PYTHONIOENCODING": "ascii", "COLUMNS": "140"}
    done = shell("", folder="[bold]ü", **encoding)
    assert done.returncode in (0, 1), done.stderr.decode()
    assert b"rror" not in done.stderr
    text = done.stdout.decode("ascii")
    assert f"Written to {tmp_path}/[bold]?" in text.replace("\n", "")
    assert "LSB!=0" in text
    assert (tmp_path / "[bold]ü" / "report.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("redirection", ["2>&- >&- <&-", ">/dev/full 2>&1"])
def test_streams_that_are_gone(shell, tmp_path, redirection):
    done = shell(redirection)
    assert done.returncode in (0, 1)
    assert (tmp_path / "run" / "report.json").exists()


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", ">&- 2>&- <&-"])
def test_closed_streams_lead_nowhere(root, tmp_path, closed):
    """No file gets the number of one, in which libraries would print."""
    program = (
        "from train import streams; streams.outlast(); import os, sys; "
        f"file = open({str(tmp_path / 'a')!r}, 'w'); "
        "print('lost', file=sys.stderr); os.write(2, b'lost'); "
        "print(file.fileno(), file=file)"
    )
    done = subprocess.run(
        [
            *("bash", "-c", f'exec "$0" "$@" {closed}'),
            *(sys.executable, "-c", program),
        ],
        cwd=root,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert int((tmp_path / "a").read_text()) > 2


def test_printing_never_fails(root):
    program = (
        "from train import streams; streams.outlast(); import sys; "
        "print('a' * 10**6); print('a\\u2192b', file=sys.stderr)"
    )
    done = subprocess.run(
        [
            *("bash", "-c", 'exec "$0" "$@" >/dev/full'),
            *(sys.executable, "-c", program),
        ],
        cwd=root,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"a?b\n")

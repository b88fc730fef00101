from __future__ import annotations

import time

import pytest

from tflite_export import progress


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(progress, "QUIET", 0.2)


def test_what_is_quick_says_nothing(capsys):
    with progress.shown("export"):
        progress.step("converting")
        progress.step("matching")
    assert capsys.readouterr().err == ""


def test_a_long_step_is_shown_while_it_lasts(quick, capsys):
    with progress.shown("export m.tflite"):
        progress.step("converting")
        time.sleep(0.5)
        said = capsys.readouterr().err
        assert said.startswith("export m.tflite: ")
        assert said.endswith("s, converting ...\n")
        progress.step("matching")
        progress.step("matching")
        assert capsys.readouterr().err.count("matching ...\n") == 1


def test_it_can_be_silent(quick, capsys):
    with progress.shown("export", wanted=False):
        progress.step("converting")
        time.sleep(0.3)
        progress.step("matching")
    progress.step("outside")
    assert capsys.readouterr().err == ""


def test_a_closed_standard_error_costs_nothing(quick, monkeypatch):
    class Closed:
        def write(self, text):
            raise ValueError("I/O operation on closed file.")

        flush = write

    monkeypatch.setattr("sys.stderr", Closed())
    with progress.shown("export"):
        progress.step("converting")
        time.sleep(0.3)
        progress.step("matching")

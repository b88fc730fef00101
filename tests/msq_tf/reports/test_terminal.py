"""Consoles print whatever the encoding."""

from __future__ import annotations

import io
import sys

import pytest

import msq_tf
from msq_tf.reports import terminal
from msq_tf.reports.bit_changes import as_text

TEXT = "kernel 8 → 4, LSB≠0, 1 ± 2, n…m, ü, \ud83c"


@pytest.mark.parametrize(
    ("encoding", "want"),
    [
        ("ascii", "kernel 8 -> 4, LSB!=0, 1 +/- 2, n...m, ?, ?"),
        ("latin-1", "kernel 8 -> 4, LSB!=0, 1 ± 2, n...m, ü, ?"),
        ("cp1252", "kernel 8 -> 4, LSB!=0, 1 ± 2, n…m, ü, ?"),
        ("utf-8", TEXT[:-1] + "?"),
    ],
)
def test_a_console_prints_what_there_is_for_it(encoding, want, monkeypatch):
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    terminal.Console(width=100).print(TEXT, highlight=False)
    stream.flush()
    assert buffer.getvalue().decode(encoding) == want + "\n"
    terminal.Console(file=stream, width=100).print("→")
    stream.flush()


def test_a_report_is_printed_in_ascii(tiny, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    text = as_text(msq_tf.precision_report(msq_tf.quantize_model(tiny)))
    assert "LSB!=0" in text
    text.encode("ascii")

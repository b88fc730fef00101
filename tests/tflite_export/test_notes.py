"""Notes of a report are as wide as its tables."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest

import msq_tf
from tflite_export import export
from tflite_export.text_tables import paragraph

LONG = "a/very/" + "long_name_of_a_weight_" * 6


@pytest.mark.first(1)
@pytest.mark.parametrize(("columns", "width"), [(40, 80), (90, 90), (200, 100)])
def test_they_are_wrapped_at_the_terminal(
    tmp_path, monkeypatch, columns, width
):
    monkeypatch.setenv("COLUMNS", str(columns))
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    report = export(msq_tf.quantize_model(model), tmp_path / "m.tflite")
    words = ["word"] * 60 + [LONG]
    report = dataclasses.replace(report, notes=(" ".join(words), "short"))
    text = str(report)
    lines = text.splitlines()
    assert all(len(line) <= width for line in lines if LONG not in line)
    assert "\nnote: short" in text
    note = lines[next(i for i, x in enumerate(lines) if "note: word" in x) :]
    assert note[1].startswith("  word")
    assert " ".join(map(str.strip, note)).split()[1:62] == words


def test_names_stay_whole_and_move_no_cursor():
    text = paragraph(f"note: {LONG}\x1b[2J {LONG}-x-y")
    assert "\x1b" not in text and r"\x1b[2J" in text
    assert f"{LONG}-x-y" in text


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("target", "bits", "told"),
    [
        ("min_size", 4, "slow: 1 of 2 weights are stored as INT2 or INT4"),
        ("min_size", 8, ""),
        ("cpu_float", 4, ""),
        # Only its convolutions are slow on INT4.
        ("mcu", 4, ""),
    ],
)
def test_slow_files_say_so_and_what_is_faster(target, bits, told, tmp_path):
    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(8), keras.layers.Dense(2)]
    )
    qmodel = msq_tf.quantize_model(model)
    x = np.eye(8, dtype=np.float32) if target == "mcu" else None
    first, second = qmodel.bits
    qmodel.set_bits({first: bits, second: 8})
    report = export(
        qmodel,
        tmp_path / "m.tflite",
        target,
        representative_data=x,
        verbose=False,
    )
    found = [note for note in report.notes if "as long as with plain" in note]
    assert len(found) == bool(told)
    if told:
        assert found[0].startswith(told) and "'cpu_int8'" in found[0]
        assert "slow:" in str(report)


@pytest.mark.slow
def test_convolutions_on_int4_say_so(tmp_path):
    model = keras.Sequential(
        [keras.Input((6, 6, 4)), keras.layers.Conv2D(8, 3)]
    )
    qmodel = msq_tf.quantize_model(model)
    for bits, told in ((4, True), (8, False)):
        qmodel.set_bits(dict.fromkeys(qmodel.bits, bits))
        report = export(
            qmodel,
            tmp_path / "m",
            "mcu",
            representative_data=np.eye(144, dtype=np.float32).reshape(
                144, 6, 6, 4
            ),
            verbose=False,
        )
        found = [note for note in report.notes if "as long as with" in note]
        assert len(found) == told
        if told:
            (note,) = found
            assert "1 of 1 weights are stored as INT4" in note
            assert "no microcontroller was timed" in note
            assert "Faster: 8 bits" in note

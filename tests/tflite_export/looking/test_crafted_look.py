"""Files made to cost much, looked at: time and pages follow their size."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from benchmarks.reliability import crafted_files
from msq_tf.page import charts
from msq_tf.page import document
from tests.tflite_export.test_crafted import MOST
from tflite_export import look
from tflite_export.cli import main
from tflite_export.looking import measured

# The first has asked for quadratic work.
KINDS = ("conversions", *sorted({*crafted_files.KINDS} - {"conversions"}))


def seconds(data, path):
    """Processor time of a page without a run, and its text or the reason."""
    path.write_bytes(data)
    start = time.process_time()
    try:
        text = document.render(look(path).page)
    except ValueError as error:
        text = str(error)
    return time.process_time() - start, text


@pytest.fixture
def only_read(monkeypatch):
    """Looks that run no file, as where it can't be run, and draw nothing."""

    def refuse(*arguments, **options):
        raise ValueError("not run")

    monkeypatch.setattr(measured, "measure", refuse)
    monkeypatch.setattr(charts, "javascript", lambda: "")


@pytest.mark.first(1)
@pytest.mark.parametrize("kind", KINDS)
def test_a_page_takes_time_by_the_size_of_the_file(kind, only_read, tmp_path):
    make, path = crafted_files.KINDS[kind], tmp_path / "m.tflite"
    small, large = make(150), make(1500)
    seconds(small, path)
    first = seconds(small, path)[0] + 0.02
    taken, text = seconds(large, path)
    assert taken / first < MOST
    # A page has an end, whatever is in the file.
    assert len(text) < 3_000_000


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_crafted_file_is_looked_at_or_refused(kind, tmp_path, capsys):
    """With all that is run, by the command: a page's data, or one reason."""
    path = tmp_path / "m.tflite"
    path.write_bytes(crafted_files.KINDS[kind](300))
    np.save(tmp_path / "x.npy", np.zeros((2, 2), np.float32))
    data = f"--representative_data={tmp_path / 'x.npy'}"
    for arguments in ([str(path)], [str(path), str(path), data]):
        code = main(["look", *arguments, "--json"])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        if code:
            assert err.startswith("msq-export: ") and len(err) < 5000
            continue
        for side in json.loads(out)["sides"]:
            for section in ("layers", "tensors", "samples", "targets"):
                # What is not there is said.
                reason = side["missing"].get(section)
                assert bool(side[section]) != bool(reason), section

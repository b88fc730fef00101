"""Files from anyone, looked at."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import tflite_export
from benchmarks.reliability import fuzz_seeds
from msq_tf.page import charts
from msq_tf.page import document
from tests.msq_tf.page.test_document import HOSTILE
from tests.tflite_export.changes import changed
from tests.tflite_export.changes import ints
from tests.tflite_export.changes import put
from tests.tflite_export.test_hostile_commands import killer
from tflite_export.cli import main


def test_the_worker_loads_no_framework(root):
    code = (
        "import sys, tflite_export.looking.measure_worker\n"
        "assert not {'tensorflow', 'keras', 'msq_tf'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def test_a_file_that_kills_the_interpreter_is_shown_without(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(killer())
    (side,) = tflite_export.look(
        path, representative_data=np.zeros((1, 4), np.float32)[:, 0]
    ).page.sides
    assert "ended by SIGSEGV" in side.missing["samples"]
    assert not side.targets[0].runs
    assert side.missing["layers"] == "the file has no weights"


def test_damaged_files_are_refused(tmp_path, capsys):
    data = changed("float", put("operators.0.inputs", ints(0, 99, 2)))
    path = tmp_path / "m.tflite"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="m.tflite: .*no tensor 99"):
        tflite_export.look(path)
    assert main(["look", str(path), "--json"]) == 1
    assert main(["look", str(tmp_path), "--json"]) == 1
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.first(1)
@pytest.mark.parametrize("name", [n for n in HOSTILE if n != "\ud800"])
def test_names_in_a_file_stay_names(name, tmp_path, monkeypatch, capsys):
    def change(model, graph):
        model.description = name.encode()
        for tensor in graph.tensors:
            tensor.name = name.encode()

    monkeypatch.setattr(charts, "javascript", lambda: "")
    monkeypatch.setattr(charts, "check_installed", lambda: None)
    path, page = tmp_path / "m.tflite", tmp_path / "m.html"
    path.write_bytes(changed("float", change))
    assert main(["look", str(path), f"--output={page}"]) == 0
    shown = capsys.readouterr().out
    assert shown.replace("\n", "").isprintable()
    text = page.read_text()
    data = text.partition('id="data">')[2].partition("</script>")[0]
    assert not set(data) & set("<>&")
    (side,) = json.loads(data)["sides"]
    assert all(fact.isprintable() for pair in side["facts"] for fact in pair)


@pytest.mark.first(2)
@pytest.mark.first(1)
@pytest.mark.parametrize("seed", sorted(fuzz_seeds.seeds()))
def test_all_kinds_of_files_are_looked_at(seed, tmp_path, monkeypatch):
    monkeypatch.setattr(charts, "javascript", lambda: "")
    path = tmp_path / "m.tflite"
    path.write_bytes(fuzz_seeds.seeds()[seed])
    found = tflite_export.look(path)
    document.render(found.page)
    (side,) = found.page.sides
    for section in ("tensors", "samples", "search"):
        assert side.missing[section]

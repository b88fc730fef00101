"""What the commands make of files from anyone."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from benchmarks.reliability import fuzz_seeds
from tests.tflite_export.changes import changed
from tests.tflite_export.changes import ints
from tests.tflite_export.changes import put
from tflite_export import inspect_file
from tflite_export import run
from tflite_export.cli import main
from tflite_export.flatbuffer import model as fb
from tflite_export.inspect import compare
from tflite_export.runtime import sandbox

NAMES = ["[/]", "[red]x[/red]", ":smile:", "\x1b[2J\x1b]0;x\x07", "a\u202eb"]


@pytest.mark.parametrize("name", NAMES)
def test_names_do_not_reach_the_terminal_as_commands(name, tmp_path, capsys):
    def change(model, graph):
        model.description = name.encode()
        for tensor in graph.tensors:
            tensor.name = name.encode()

    path = tmp_path / "m.tflite"
    path.write_bytes(changed("float", change))
    assert main(["inspect", str(path)]) == 0
    shown = capsys.readouterr().out
    assert shown.replace("\n", "").isprintable()
    assert name.encode("unicode_escape").decode() in shown.splitlines()[0]
    assert main(["inspect", str(path), "--target=mcu"]) == 1
    # Names in errors, too.
    other = tmp_path / "other.tflite"
    other.write_bytes(
        changed("float", put("tensors.0.type", schema.TensorType.VARIANT))
    )
    assert main(["compare", str(other), str(other)]) == 1
    out, err = capsys.readouterr()
    assert (out + err).replace("\n", "").isprintable()


def test_what_is_no_file_is_not_read(tmp_path, capsys):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, "/dev/zero", tmp_path):
        assert main(["inspect", str(path)]) == 1
        assert main(["compare", str(path), str(path)]) == 1
        with pytest.raises(ValueError, match="path="):
            run(path, np.zeros((1, 6), np.float32))
    capsys.readouterr()


def test_damaged_files_do_not_reach_the_interpreter(tmp_path):
    data = changed("float", put("operators.0.inputs", ints(0, 99, 2)))
    path = tmp_path / "m.tflite"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="no tensor 99"):
        run(data, np.zeros((1, 6), np.float32))
    with pytest.raises(ValueError, match="no tensor 99"):
        compare.compare_files(path, path)


def killer():
    """A sound file that ends the interpreter's process: LiteRT 2.3.0 reads
    the first element of an axis that has none.
    """
    model = fuzz_seeds.new_model()
    graph = fuzz_seeds.new_graph(model, "main")
    axis = fuzz_seeds.add_tensor(model, graph, "axis", "INT32", (0,))
    x = fuzz_seeds.add_tensor(model, graph, "x", "FLOAT32", (4,))
    y = fuzz_seeds.add_tensor(model, graph, "y", "FLOAT32", (4,))
    op = fuzz_seeds.add_operator(
        model, graph, "SPLIT", [axis, x], [y], "SplitOptions"
    )
    op.builtinOptions.numSplits = 1
    fuzz_seeds.set_ports(graph, [x], [y])
    return fb.dump(model)


def test_a_file_that_kills_the_interpreter_is_an_error(tmp_path, capsys):
    path = tmp_path / "m.tflite"
    path.write_bytes(killer())
    assert inspect_file(path).ops == {"SPLIT 1": 1}
    assert main(["inspect", str(path)]) == 0
    assert main(["compare", str(path), str(path)]) == 1
    error = capsys.readouterr().err
    assert "ended by SIGSEGV" in error and "m.tflite' or " in error


@pytest.mark.first(1)
@pytest.mark.parametrize(
    "code, reason",
    [
        ("import os; os.abort()", "ended by SIGABRT"),
        ("import time; time.sleep(60)", "did not end within 2 s"),
        ("raise KeyError('x')", "status 1 (KeyError: 'x')"),
        ("bytearray(1 << 50)", "takes more than"),
        ("raise RuntimeError('kernel')", "kernel"),
        ("[].x", "status 1 (AttributeError"),
    ],
)
def test_how_workers_end(code, reason, tmp_path, monkeypatch):
    (tmp_path / "worker.py").write_text(
        "import sys\n"
        "from tflite_export.runtime import sandbox\n"
        "folder = sys.argv[1]\n"
        "with sandbox.answering(folder, sandbox.read_request(folder)):\n"
        f"    {code}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ValueError) as caught:
        sandbox.run("worker", {}, (), 2, "no answer")
    assert reason in str(caught.value)


def test_reading_loads_no_framework(root):
    """What reads files from anyone is small, and starts in half a second."""
    code = (
        "import sys, tflite_export.cli, tflite_export.inspect.inspect, "
        "tflite_export.targets.lint, tflite_export.inspect.compare, "
        "tflite_export.inspect.compare_worker\n"
        "assert not {'tensorflow', 'keras', 'msq_tf'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)

"""What `compare` says where it has no answer, and where numbers end."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.reliability import fuzz_seeds
from tests.tflite_export.changes import changed
from tests.tflite_export.changes import put
from tflite_export import run
from tflite_export.flatbuffer import model as fb
from tflite_export.inspect import compare
from tflite_export.inspect.comparison_report import Comparison


def strict(text):
    """Parses JSON as the standard has it."""

    def refuse(constant):
        raise AssertionError(f"no JSON: {constant}")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "_SECONDS", 0.0)

    def write(data, name="m.tflite"):
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return write


def one(kind, constant=None, shape=(2, 2)):
    """A file of one operator between float tensors."""
    model = fuzz_seeds.new_model()
    graph = fuzz_seeds.new_graph(model, "main")
    x = fuzz_seeds.add_tensor(model, graph, "x", "FLOAT32", shape)
    inputs = [x]
    if constant is not None:
        value = np.full((1, 2), constant, np.float32)
        inputs.append(
            fuzz_seeds.add_tensor(model, graph, "c", "FLOAT32", (1, 2), value)
        )
    y = fuzz_seeds.add_tensor(model, graph, "y", "FLOAT32", shape)
    options = f"{kind.title()}Options"
    fuzz_seeds.add_operator(model, graph, kind, inputs, [y], options)
    fuzz_seeds.set_ports(graph, [x], [y])
    return fb.dump(model)


def test_differences_without_a_number(write):
    nan, sound = write(one("ADD", np.nan), "a"), write(one("ADD", 1.0), "b")
    result = compare.compare_files(sound, nan)
    assert result.outputs[0].max_abs_error == math.inf
    assert result.outputs[0].relative_error == math.inf
    [output] = strict(result.to_json())["outputs"]
    assert output["max_abs_error"] is output["relative_error"] is None
    assert Comparison.from_json(result.to_json()) == result


def test_outputs_that_are_infinite_alike(write):
    path = write(one("ADD", np.inf))
    [output] = compare.compare_files(path, path).outputs
    assert output.max_abs_error == output.relative_error == 0


def test_outputs_without_an_element(write):
    path = write(one("ABS", shape=(1, 0)))
    # Only the file may say it: given samples hold something.
    try:
        [output] = compare.compare_files(path, path).outputs
    except ValueError as error:
        assert "zero-size" not in str(error)
    else:
        assert output.max_abs_error == 0 and output.agreement is None


def test_inputs_that_are_scalars(write):
    data = fuzz_seeds.seeds()["graphs"]
    path = write(data)
    result = compare.compare_files(path, path)
    assert result.outputs[0].max_abs_error == 0
    assert result.files[0].inputs[0] == "bool scalar"
    conditions = np.array([True, False, True])
    x = np.array([1.0, -2.0, 3.0], np.float32)
    # NEG where it holds, ABS where it does not.
    np.testing.assert_array_equal(run(data, [conditions, x]), [-1, 2, -3])


def test_an_output_that_is_listed_twice(write):
    def change(model, graph):
        graph.outputs = np.repeat(graph.outputs, 2)

    path = write(changed("float", change))
    assert len(compare.compare_files(path, path).outputs) == 2


@pytest.mark.parametrize(
    "way, value, reason",
    [
        ("model.signatureDefs.0.inputs.0.tensorIndex", 1, "signature names"),
        ("model.signatureDefs.0.inputs.0.name", b"\xff", "no text in UTF-8"),
        ("model.version", 0, "schema version 0"),
    ],
)
def test_reasons(way, value, reason, write):
    path = write(changed("float", put(way, value)))
    with pytest.raises(ValueError, match=reason):
        compare.compare_files(path, path)


def test_under_a_limit_of_memory(write, root):
    path = write(fuzz_seeds.seeds()["float"])
    most = 4 << 30
    code = (
        "import resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({most}, {most}))\n"
        "from tflite_export.cli import main\n"
        "sys.exit(main(['compare', *sys.argv[1:], '--json']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(path)],
        capture_output=True,
        text=True,
        cwd=root,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert strict(done.stdout)["samples"] == 16

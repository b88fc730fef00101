from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest

from tests.tflite_export.devices.files import files
from tests.tflite_export.devices.files import images
from tests.tflite_export.devices.files import one_op
from tflite_export import devices
from tflite_export.devices import c_array
from tflite_export.devices import mcu
from tflite_export.devices import micro
from tflite_export.devices import resolver
from tflite_export.errors import ExportError
from tflite_export.runtime import interpreter


@pytest.mark.first(1)
@pytest.mark.parametrize("kind", ["int8", "float_ports"])
def test_outputs_arena_and_sources(kind):
    data = files()[kind]
    result = devices.finish("mcu", data, "m", [images(20)])
    figures = result.figures
    assert figures["max_units"] <= 1 and figures["samples"] == 8
    assert set(result.files) == {"model_data.cc", "model_data.h"}
    arena = f"g_model_data_arena_bytes = {figures['arena_bytes']};"
    header = result.files["model_data.h"].decode()
    assert arena in header and "resolver.AddConv2D() == 0" in header


def test_the_arena_is_the_smallest_that_does():
    data, samples = files()["int8"], [images(2)]
    allocated = micro.run(data, samples).arena_bytes
    arena = micro.smallest_arena(data, samples, allocated)
    assert arena % 16 == 0 and allocated <= arena < allocated + 4096
    micro.run(data, samples, arena)
    with pytest.raises(
        ExportError, match="can't run the file.*Received: .*memory"
    ):
        micro.run(data, samples, arena - 16)


def test_small_models_need_more_than_stays_allocated():
    data, x, _ = one_op("FULLY_CONNECTED", "INT8", "per_tensor")
    allocated = micro.run(data, [x]).arena_bytes
    arena = micro.smallest_arena(data, [x], allocated)
    micro.run(data, [x], arena)
    with pytest.raises(ExportError):
        micro.run(data, [x], arena - 16)


def test_outputs_are_those_of_the_reference_kernels():
    data = files()["float_ports"]
    x = images(3)
    got = micro.run(data, [x]).outputs[0]
    np.testing.assert_allclose(
        got, interpreter.run(data, x, "reference"), atol=1 / 256 + 1e-6
    )


def test_float_operators_are_named():
    with pytest.raises(ExportError, match=r"CONV_2D \(operator 0\).*SOFTMAX"):
        devices.finish("mcu", files()["float"], "m", [images(2)])


def test_wrong_samples():
    with pytest.raises(ValueError, match="at least 1 samples"):
        micro.run(files()["int8"], [images(2)[:, :4]])


def test_without_the_interpreter(monkeypatch):
    monkeypatch.setattr(micro, "is_installed", lambda: False)
    with pytest.raises(ExportError, match="pip install 'tflite-micro>"):
        devices.finish("mcu", files()["int8"], "m", [images(2)])


def test_results_that_differ_are_refused(monkeypatch):
    right = micro.run
    monkeypatch.setattr(
        micro,
        "run",
        lambda *arguments: micro.MicroRun(
            [right(*arguments).outputs[0] - 2], 4096
        ),
    )
    with pytest.raises(ExportError, match="differ by 2 units"):
        devices.finish("mcu", files()["int8"], "m", [images(2)])


@pytest.mark.slow
def test_single_units_inside_explain_more_at_the_output(monkeypatch):
    """With a limit that nothing keeps to, each operator is looked at."""
    monkeypatch.setattr(mcu, "_UNITS", -1)
    for kind in ("int8", "float_ports"):
        result = devices.finish("mcu", files()[kind], "m", [images(4)])
        assert "values inside are off by a unit" in result.notes[0]


def test_a_limit_of_the_users_own_holds(monkeypatch):
    data, x = files()["int8"], [images(2)]
    with pytest.raises(ExportError, match="at most max_units=-1"):
        devices.finish("mcu", data, "m", x, max_units=-1)
    right = micro.run
    monkeypatch.setattr(
        micro,
        "run",
        lambda *arguments: micro.MicroRun(
            [right(*arguments).outputs[0] - 2], 4096
        ),
    )
    monkeypatch.setattr(micro, "smallest_arena", lambda *_: 4096)
    devices.finish("mcu", data, "m", x, max_units=3)


def test_an_operator_that_is_wrong_explains_nothing(monkeypatch):
    right = micro.run

    def wrong(data, *arguments):
        done = right(data, *arguments)
        # In the file and in the copy that shows its tensors alike.
        first, *others = done.outputs
        return micro.MicroRun([first + 3, *others], done.arena_bytes)

    monkeypatch.setattr(micro, "run", wrong)
    monkeypatch.setattr(micro, "smallest_arena", lambda *_: 4096)
    with pytest.raises(ExportError, match="at most max_units=1"):
        devices.finish("mcu", files()["int8"], "m", [images(2)])


@pytest.mark.parametrize("name", ["", "1a", "a-b", "a b", "a/b", "class"])
def test_bad_names(name):
    with pytest.raises(ValueError, match="starts with a letter"):
        devices.check_options("mcu", {"name": name})


def test_sources_are_the_same_every_time():
    data = bytes(range(256)) + b"\0"
    first = c_array.sources(data, "net", "about\nit", {"size_2": (3, "why")})
    assert first == c_array.sources(
        data, "net", "about it", {"size_2": (3, "why")}
    )
    assert b"alignas(16)" in first["net.cc"]


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_sources_compile_to_the_file(tmp_path):
    data = files()["int8"]
    sources = c_array.sources(
        data, "net", "A test.", {"n": (7, "why")}, resolver.methods(data)
    )
    sources["main.cc"] = b"""
#include <cstdint>
#include <cstdio>
#include "net.h"
enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 };
struct Resolver {
  unsigned int count = 0;
  METHODS
};
int main() {
  Resolver resolver;
  if (!g_net_add_operators(resolver)) return 2;
  if (resolver.count != g_net_operators) return 3;
  if (reinterpret_cast<std::uintptr_t>(g_net) % 16 || g_net_n != 7) return 1;
  return std::fwrite(g_net, 1, g_net_size, stdout) != g_net_size;
}
"""
    added = " ".join(
        f"TfLiteStatus {name}() {{ return ++count, kTfLiteOk; }}"
        for name in resolver.methods(data)
    )
    main = sources["main.cc"].replace(b"METHODS", added.encode())
    sources["main.cc"] = main
    for name, content in sources.items():
        (tmp_path / name).write_bytes(content)
    command = ["g++", "-std=c++17", "-Wall", "-Werror", "-o", "main"]
    subprocess.run([*command, "main.cc", "net.cc"], cwd=tmp_path, check=True)
    done = subprocess.run(
        [str(tmp_path / "main")], capture_output=True, check=True
    )
    assert done.stdout == data


@pytest.mark.parametrize(
    "op, name",
    [
        ("CONV_2D", "AddConv2D"),
        ("BATCH_TO_SPACE_ND", "AddBatchToSpaceNd"),
        ("L2_NORMALIZATION", "AddL2Normalization"),
        ("RELU6", "AddRelu6"),
        ("SELECT_V2", "AddSelectV2"),
        ("BATCH_MATMUL", "AddBatchMatMul"),
        ("PADV2", "AddPadV2"),
    ],
)
def test_operators_are_named_as_the_resolver_has_them(op, name):
    assert resolver.method(op) == name

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from tests.tflite_export.samples import quantized
from tflite_export import inspect_file
from tflite_export import targets
from tflite_export.cli import main
from tflite_export.flatbuffer import model as fb
from tflite_export.inspect import inspect


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    inputs = keras.Input((6,), name="x")
    model = quantized(keras.Model(inputs, keras.layers.Dense(3)(inputs)))
    path = tmp_path_factory.mktemp("model") / "m.keras"
    model.save(path)
    return path


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_export_and_inspect(saved, suffix, tmp_path, capsys):
    output, data = tmp_path / "m.tflite", tmp_path / f"x.{suffix}"
    x = np.ones((4, 6), np.float32)
    if suffix == "npy":
        np.save(data, x)
    else:
        np.savez(data, x=x)
    arguments = [f"--model={saved}", f"--output={output}"]
    arguments += [f"--representative_data={data}"]
    assert main([*arguments, "--target=cpu_float", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["target"] == "cpu_float" and report["inputs"] == "given"
    assert main(["inspect", str(output)]) == 0
    assert "INT8" in capsys.readouterr().out
    assert main(["inspect", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == report["file_bytes"]


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        ([], 2, "--model is missing"),
        (["--model=m.keras"], 2, "--output is missing"),
        (["--modle=m"], 2, "modle"),
        (["convert"], 2, "unexpected argument 'convert'"),
        (["inspect"], 2, "inspect takes one file"),
        (["inspect", "no.tflite"], 1, "can't be read"),
        (["--model=no.keras", "--output=o"], 1, "No such model"),
        (["--model=m", "--output=o", "--target=x"], 1, "one of cpu_float"),
        (["--model=m", "--output_dir=o", "--output=o"], 2, "exclude each"),
        (["--model=m", "--output=o", "--target=mcu,edgetpu"], 2, "output_dir"),
        (
            ["--model=m", "--output=o", "--target=mcu", "--c_name=a b"],
            1,
            "starts with a letter",
        ),
        (
            ["--model=m", "--output=o", "--target=ethos_u", "--accelerators=u"],
            1,
            "some of ethos-u55-128",
        ),
        (["--model=m", "--output=o", "--pixels=rgb"], 2, "pixels"),
        (["compare", "a.tflite"], 2, "compare takes two files"),
        (["compare", "no.tflite", "b.tflite"], 1, "can't be read"),
        (["inspect", "no.tflite", "--target=tpu"], 1, "No such target"),
    ],
)
def test_bad_arguments_are_one_line(arguments, code, message, capsys):
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("msq-export: ") and error.count("\n") == 1


def test_data_that_does_not_exist(saved, tmp_path, capsys):
    arguments = [f"--model={saved}", f"--output={tmp_path / 'm.tflite'}"]
    assert main([*arguments, "--representative_data=no.npy"]) == 1
    assert "no.npy" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


_SCALED = """
import keras

@keras.saving.register_keras_serializable(package="cli_test")
class Halved(keras.layers.Layer):
    def call(self, x):
        return x / 2
"""


def test_a_module_with_classes_of_the_model(tmp_path, capsys, monkeypatch):
    (tmp_path / "my_layers.py").write_text(_SCALED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    sys.path.insert(0, str(tmp_path))
    halved = importlib.import_module("my_layers").Halved()
    inputs = keras.Input((6,))
    outputs = halved(keras.layers.Dense(3)(inputs))
    quantized(keras.Model(inputs, outputs)).save("m.keras")
    # As in a process that has not seen the class.
    sys.path.remove(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_layers")
    registered = keras.saving.get_custom_objects()
    monkeypatch.delitem(registered, "cli_test>Halved")
    arguments = ["--model=m.keras", "--output=m.tflite"]
    assert main(arguments) == 1
    assert "nothing registered its class 'Halved'" in capsys.readouterr().err
    assert main([*arguments, "--modules=my_layer"]) == 1
    assert "Received: 'my_layer'" in capsys.readouterr().err
    assert main([*arguments, "--modules=my_layers"]) == 0
    assert (tmp_path / "m.tflite").exists()


@pytest.mark.slow
def test_several_targets(saved, tmp_path, capsys):
    data, folder = tmp_path / "x.npy", tmp_path / "out"
    rng = np.random.default_rng(0)
    np.save(data, rng.normal(size=(20, 6)).astype(np.float32))
    arguments = [
        f"--model={saved}",
        f"--output_dir={folder}",
        f"--representative_data={data}",
        "--target=cpu_int8,ethos_u,mcu",
        "--accelerators=ethos-u55-128",
        "--c_name=net",
    ]
    assert main([*arguments, "--json"]) == 0
    reports = json.loads(capsys.readouterr().out)
    assert [r["target"] for r in reports] == ["cpu_int8", "ethos_u", "mcu"]
    assert list(reports[1]["device"]["accelerators"]) == ["ethos-u55-128"]
    assert {path.name for path in folder.iterdir()} == {
        "m_cpu_int8.tflite",
        "m_ethos_u.tflite",
        "m_ethos_u_ethos-u55-128.tflite",
        "m_mcu.tflite",
        "net.cc",
        "net.h",
    }
    files = [str(folder / f"m_{name}.tflite") for name in ("cpu_int8", "mcu")]
    assert main(["compare", *files, f"--representative_data={data}"]) == 0
    assert "second / first" in capsys.readouterr().out
    assert main(["compare", *files, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["inputs"] == "random"


def test_inspect_shows_what_a_target_refuses(saved, tmp_path, capsys):
    output = str(tmp_path / "m.tflite")
    assert main([f"--model={saved}", f"--output={output}"]) == 0
    capsys.readouterr()
    assert main(["inspect", output, "--target=min_size"]) == 0
    assert "nothing in the file goes against" in capsys.readouterr().out
    assert main(["inspect", output, "--target=edgetpu,mcu"]) == 1
    text = capsys.readouterr().out
    assert "against the target mcu" in text and "refused" in text
    assert main(["inspect", output, "--target=edgetpu", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["findings"]["edgetpu"]
    assert any("DEQUANTIZE" in finding["where"] for finding in found)


def test_output_directory_that_does_not_exist(saved, tmp_path, capsys):
    output = tmp_path / "no" / "m.tflite"
    assert main([f"--model={saved}", f"--output={output}"]) == 1
    assert "no such folder to write to" in capsys.readouterr().err


def test_help(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "--target" in text and "--output_dir" in text
    for name in targets.names():
        assert name in text


@pytest.mark.parametrize(
    "data",
    [b"", b"TFL3", b"\0" * 64, b"\x1c\0\0\0TFL3" + b"\xff" * 64, b"PK\3\4" * 9],
)
def test_garbage_is_a_value_error(data, tmp_path, capsys):
    path = tmp_path / "m.tflite"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="TFLite file"):
        inspect_file(path)
    assert main(["inspect", str(path)]) == 1
    assert "TFLite file" in capsys.readouterr().err


def test_cut_files_are_value_errors(saved, tmp_path):
    output = tmp_path / "m.tflite"
    main([f"--model={saved}", f"--output={output}"])
    data = output.read_bytes()
    for size in range(0, len(data), 97):
        with pytest.raises(ValueError):
            inspect.describe(data[:size])


def test_data_behind_the_flatbuffer_is_read(saved, tmp_path):
    output = tmp_path / "m.tflite"
    main([f"--model={saved}", f"--output={output}"])
    model = fb.load(output.read_bytes())
    outside = b""
    expected = inspect.describe(output.read_bytes()).tensors
    holes = [b for b in model.buffers if b.data is not None]
    kept = [np.asarray(b.data).tobytes() for b in holes]
    # The offsets do not change the size of the flatbuffer in front of them.
    for start in (2, None):
        if start is None:
            start = len(fb.dump(model))
        outside = b""
        for buffer, data in zip(holes, kept, strict=True):
            buffer.data = None
            buffer.offset, buffer.size = start + len(outside), len(data)
            outside += data
    whole = fb.dump(model) + outside
    assert inspect.describe(whole).tensors == expected
    with pytest.raises(ValueError, match="a buffer ends"):
        inspect.describe(whole[:-1])


@pytest.mark.slow
def test_nothing_but_the_report_is_printed(saved, root, tmp_path):
    environment = dict(os.environ)
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    command = [sys.executable, "-m", "tflite_export", f"--model={saved}"]
    done = subprocess.run(
        [*command, f"--output={tmp_path / 'm.tflite'}"],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    # A slow machine is told what takes so long.
    lines = done.stderr.splitlines()
    assert [x for x in lines if not x.startswith("export m.tflite: ")] == []


@pytest.mark.parametrize("flag", ["--c_name=a", "--allow_cpu"])
def test_a_flag_of_another_target_is_refused(flag, capsys):
    assert main(["--model=m", "--output=o", flag]) == 1
    assert "Received: --target=min_size" in capsys.readouterr().err

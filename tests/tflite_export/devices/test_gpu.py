"""LiteRT's GPU accelerator, on SwiftShader where Chromium brings it."""

import numpy as np
import pytest

from tests.tflite_export.devices.test_web import IMAGES
from tests.tflite_export.devices.test_web import network
from tflite_export import ExportError
from tflite_export import export
from tflite_export import targets
from tflite_export.devices import gpu
from tflite_export.runtime import compiled


@pytest.fixture
def vulkan():
    if gpu.vulkan() is None:
        pytest.skip("no Vulkan; `make setup-browser` brings SwiftShader")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "left"),
    [
        ("cpu_int8", []),
        ("web", []),
        ("cpu_float", ["5"]),
        ("min_size", ["5", "6", "7"]),
    ],
)
def test_a_file_on_the_gpu(target, left, vulkan, tmp_path):
    report = export(
        network(targets.load(target).integer),
        tmp_path / "m.tflite",
        target,
        IMAGES,
        verify_on=("gpu",),
        verbose=False,
    )
    found = report.device["gpu"]
    assert found["gpu"] and found["samples"] == 4
    assert found["fully_accelerated"] is not bool(left)
    assert found.get("left", []) == [
        f"DEQUANTIZE: Max version supported: 3. Requested version {version}."
        for version in left
    ]
    if targets.load(target).integer:
        assert found["difference"] <= 2
    else:
        assert found["difference"] < 1e-5
    assert "gpu: fully accelerated" in str(report)


@pytest.mark.slow
def test_what_differs_there_is_refused(vulkan, tmp_path, monkeypatch):
    """As if the GPU had a fault: it computes with other inputs."""
    path = tmp_path / "m.tflite"
    export(network(), path, "cpu_int8", IMAGES, verbose=False)
    real = gpu.run

    def run(data, batches):
        return real(data, [[-x for x in batch] for batch in batches])

    monkeypatch.setattr(gpu, "run", run)
    with pytest.raises(ExportError, match="computes something else on .*GPU"):
        gpu.verify(path.read_bytes(), [IMAGES], targets.load("cpu_int8"))


@pytest.mark.slow
def test_native_code_may_end_its_process(vulkan, tmp_path, monkeypatch):
    path = tmp_path / "m.tflite"
    export(network(), path, "cpu_int8", IMAGES, verbose=False)
    worker = tmp_path / "worker.py"
    worker.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setattr(compiled, "__file__", str(worker))
    with pytest.raises(ExportError, match="ended its process.*exit code -11"):
        gpu.verify(path.read_bytes(), [IMAGES], targets.load("cpu_int8"))


def test_without_a_vulkan_it_is_said_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "_CHROMIUM", (tmp_path / "nowhere",))
    for variable in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ExportError, match="no Vulkan.*make setup-browser"):
        export(network(False), tmp_path / "m.tflite", verify_on=("gpu",))
    assert not list(tmp_path.iterdir())


def test_a_driver_that_is_named_is_taken(tmp_path, monkeypatch):
    driver = tmp_path / "driver.json"
    monkeypatch.delenv("VK_DRIVER_FILES", raising=False)
    monkeypatch.setenv("VK_ICD_FILENAMES", str(driver))
    assert gpu.vulkan() == {"loader": "", "drivers": str(driver)}
    (tmp_path / "libvulkan.so.1").touch()
    assert gpu.vulkan()["loader"] == str(tmp_path / "libvulkan.so.1")


def test_what_the_compiler_says():
    lines = [
        "INFO: [x.cc:1] Selected adapter: Some GPU (name), arch=x, vendor=y",
        "ERROR: Following operations are not supported by GPU delegate:",
        "CONV_2D: Tensor type(INT16) is not supported. block/conv_1/#95",
        "CONV_2D: Tensor type(INT16) is not supported. #7",
        "CONV_2D: Tensor type(INT16) is not supported. input",
        "GATHER: Only support 1D indices",
        "DEQUANTIZE: Max version supported: 3. Requested version 5.",
        "No operations will run on the GPU, and all 8 will run on the CPU.",
        "something else",
    ]
    assert compiled.adapter(lines) == "Some GPU (name)"
    assert compiled.adapter(lines[1:]) == ""
    assert compiled.left_to_cpu(lines) == [
        "CONV_2D: Tensor type(INT16) is not supported.",
        "GATHER: Only support 1D indices",
        "DEQUANTIZE: Max version supported: 3. Requested version 5.",
    ]
    assert compiled.left_to_cpu([]) == []


def test_errors_have_no_paths():
    lines = [
        "WARNING: [compiler_plugin.cc:312] Failed to load /x/y.so with error",
        "INFO: no error",
        "ERROR: Shape mismatch: {bhwc, {64, 1}} vs {bhwc, {1, 64}}",
        "E0000 00:00:17.4 1 x.cc:9] Shape mismatch",
        "ERROR: Failed to initialize kernel.",
        "ERROR: Failed to initialize kernel.",
    ]
    assert compiled.complaints(lines) == [
        "Shape mismatch: {bhwc, {64, 1}} vs {bhwc, {1, 64}}",
        "Shape mismatch",
        "Failed to initialize kernel.",
    ]


def test_bytes_of_any_type():
    values = np.array([[1, -2]], np.int64)
    np.testing.assert_array_equal(
        compiled._bytes(values).view(np.int64), [1, -2]
    )

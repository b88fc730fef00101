from __future__ import annotations

import pytest

from tests.tflite_export.devices.files import files
from tests.tflite_export.devices.files import images
from tests.tflite_export.devices.files import one_op
from tflite_export import devices
from tflite_export.devices import ethos_u
from tflite_export.errors import ExportError
from tflite_export.targets import lint

NAMES = ("ethos-u55-128", "ethos-u55-256", "ethos-u65-256", "ethos-u85-256")


def finish(data, **options):
    return devices.finish("ethos_u", data, "m", [images(1)], options)


@pytest.mark.slow
def test_every_accelerator_by_default():
    result = finish(files()["int8"])
    rows = result.figures["accelerators"]
    assert tuple(rows) == NAMES
    assert set(result.files) == {f"m_{name}.tflite" for name in NAMES}
    for figures in rows.values():
        assert figures["cpu_operators"] == [] and figures["npu_operators"]
        assert figures["encoded_bytes"] > 0 and figures["sram_bytes"] > 0
        assert figures["bits_per_weight"] > 1
        assert figures["estimated_ms"] > 0
    # Weights lie in flash, but for the U65's system, which has DRAM.
    assert rows["ethos-u55-128"]["flash_bytes"] > 0
    assert rows["ethos-u65-256"]["dram_bytes"] > 0
    for name, data in result.files.items():
        assert data[4:8] == b"TFL3" and len(data) > 1000, name


def test_cpu_operators_are_named_unless_allowed():
    data = files()["float_ports"]
    with pytest.raises(
        ExportError,
        match=r"the CPU for ethos-u55-128\..* 2 of them, QUANTIZE "
        r"\(operator 0\): .*Float32.*; DEQUANTIZE \(operator \d\)",
    ):
        finish(data, accelerators=["ethos-u55-128"])
    result = finish(data, accelerators=["ethos-u55-128"], allow_cpu=True)
    [figures] = result.figures["accelerators"].values()
    assert len(figures["cpu_operators"]) == 2


def test_a_crash_is_an_error_with_vela_s_words():
    data, _, _ = one_op("CONV_2D", "INT4", "per_channel")
    with pytest.raises(
        ExportError, match="Vela failed for ethos-u55-256.*signal"
    ):
        finish(data, accelerators=["ethos-u55-256"])
    assert lint.severe(lint.check(data, "ethos_u"))


def test_vela_s_message_is_passed_on():
    settings = dict(ethos_u.known_accelerators()["ethos-u55-128"])
    settings["memory_mode"] = "No_Such_Mode"
    with pytest.raises(ExportError, match=r"No_Such_Mode.*exit code 1"):
        ethos_u.compile_file(files()["int8"], "ethos-u55-128", settings)


def test_without_vela(monkeypatch):
    monkeypatch.setattr(ethos_u, "is_installed", lambda: False)
    with pytest.raises(ExportError, match="pip install 'ethos-u-vela>"):
        finish(files()["int8"])
    result = finish(files()["int8"], accelerators=[])
    assert not result.files and "not run" in result.notes[0]


@pytest.mark.parametrize("names", ["ethos-u55-128", ["ethos-u55-32"]])
def test_unknown_accelerators(names):
    with pytest.raises(ValueError, match="list of some of ethos-u55-128"):
        devices.check_options("ethos_u", {"accelerators": names})


def test_unknown_options():
    with pytest.raises(ValueError, match="Expected some of accelerators"):
        devices.check_options("ethos_u", {"name": "x"})
    with pytest.raises(ValueError, match=r"\(none\)"):
        devices.check_options("cpu_int8", {"name": "x"})

"""Arm Ethos-U: compiling a file with Vela."""

from __future__ import annotations

import csv
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from typing import NamedTuple

import numpy as np

from tflite_export import targets
from tflite_export.devices import command
from tflite_export.devices.result import DeviceResult
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import model as fb

NAME = "ethos_u"
_TIMEOUT_SECONDS = 900
_KIB = 1024
_CPU = re.compile(r"^ *CPU: \S+ = (.*) \(outputs ", re.MULTILINE)
_REASON = re.compile(
    r"operator: \S+, ofm: '(.*)'\nReason: (.*(?:\n.+)*)", re.MULTILINE
)
_NPU_COUNT = re.compile(r"^NPU operators = (\d+)", re.MULTILINE)


def known_accelerators() -> dict[str, dict[str, str]]:
    """Settings of Vela by the name of an accelerator."""
    table: dict[str, dict[str, str]] = targets.load(NAME).options[
        "accelerators"
    ]
    return table


def check_accelerators(names: Sequence[str]) -> None:
    """Raises a ValueError for accelerators that there are no settings for."""
    known = list(known_accelerators())
    if not isinstance(names, (list, tuple)) or not all(
        isinstance(name, str) and name in known for name in names
    ):
        raise ValueError(
            "Unknown accelerators. Expected a list of some of "
            f"{', '.join(known)}. Received: accelerators={names!r}"
        )


def is_u85(accelerator: str) -> bool:
    """Whether an accelerator is an Ethos-U85, which runs more than others."""
    return accelerator.startswith("ethos-u85")


def is_installed() -> bool:
    """Whether Vela is there."""
    return importlib.util.find_spec("ethosu") is not None


def check_installed(accelerators: Sequence[str] | None = None) -> None:
    """Raises an ExportError, with what to do, unless `is_installed`.

    Without any accelerator Vela isn't needed.
    """
    if is_installed() or (accelerators is not None and not accelerators):
        return
    # With it TensorFlow is loaded, which whoever reads files can spare.
    from msq_tf import extras

    raise ExportError(
        "Vela, the compiler for Ethos-U, isn't installed. Expected the "
        f"package ethos-u-vela: {extras.install('ethos')}; or an empty list "
        "for the option accelerators, to compile nothing. Received: "
        f"accelerators={accelerators}"
    )


def finish(
    data: bytes,
    stem: str,
    inputs: Sequence[np.ndarray],
    *,
    accelerators: Sequence[str] | None = None,
    allow_cpu: bool = False,
) -> DeviceResult:
    """Compiles an int8 file for Ethos-U accelerators.

    Args:
        data: The bytes of the file.
        stem: Start of the names of the compiled files.
        inputs: Not used: Vela doesn't run the file.
        accelerators: Which to compile for; all known ones if `None`, none if
            empty.
        allow_cpu: Whether operators may be left to the CPU.

    Raises:
        ExportError: If Vela isn't installed, fails, or leaves operators to
            the CPU.
    """
    del inputs
    table = known_accelerators()
    chosen = list(table) if accelerators is None else list(accelerators)
    check_accelerators(chosen)
    rows: dict[str, Any] = {}
    files = {}
    for name in chosen:
        rows[name], compiled = compile_file(data, name, table[name])
        left = rows[name]["cpu_operators"]
        if left and not allow_cpu:
            raise ExportError(
                f"Vela leaves operators to the CPU for {name}. Expected none, "
                "or the option allow_cpu=True. Received: "
                f"{len(left)} of them, {'; '.join(left)}"
            )
        files[f"{stem}_{name}.tflite"] = compiled
    notes = () if chosen else ("Vela was not run: no accelerator was named",)
    return DeviceResult({"accelerators": rows}, files, notes)


def compile_file(
    data: bytes, accelerator: str, settings: Mapping[str, str]
) -> tuple[dict[str, Any], bytes]:
    """Runs Vela once; returns figures and the compiled file.

    Settings are `config`, `system_config` and `memory_mode`.

    Raises:
        ExportError: If Vela isn't installed or fails; with its own words.
    """
    named, operators = _with_names(data)
    run = _compile(named, accelerator, settings)
    figures = _figures(run.summary, settings)
    figures["compiled_bytes"] = len(run.compiled)
    figures["npu_operators"] = _number(_NPU_COUNT.search(run.output))
    figures["cpu_operators"] = _cpu_operators(run.output, operators)
    return figures, run.compiled


class OperatorCosts(NamedTuple):
    """Milliseconds and SRAM of an operator, by Vela's estimate.

    Attributes:
        milliseconds: Of all that Vela made of it.
        ram_bytes: SRAM in use meanwhile, at most.
    """

    milliseconds: float
    ram_bytes: float


def operator_costs(
    data: bytes, accelerator: str
) -> tuple[dict[int, OperatorCosts], str]:
    """Estimates each operator of an int8 file, by its position.

    What Vela made of no operator in particular is at -1. Operators that become
    a part of another take nothing by themselves.

    Returns:
        The costs, and the version of Vela.

    Raises:
        ExportError: If Vela isn't installed, fails, or leaves operators to the
            CPU, of which it has no estimate.
    """
    settings = known_accelerators()[accelerator]
    named, places = _placed(data)
    run = _compile(named, accelerator, settings, "--verbose-performance")
    left = _cpu_operators(run.output, _with_names(data)[1])
    if left:
        raise ExportError(
            f"Vela leaves operators to the CPU for {accelerator}, whose time "
            "it does not estimate. Expected none, or budgets of size alone. "
            f"Received: {len(left)} of them, {'; '.join(left)}"
        )
    clock = float(run.summary["core_clock"])
    total = float(run.summary["sram_memory_used"]) * _KIB
    # The most is that of an operator, but for what is there all the time.
    always = max(
        total - max(float(row["Staging Usage"]) for row in run.operators), 0.0
    )
    found: dict[int, OperatorCosts] = {}
    for row in run.operators:
        place = _place(row["Name"], places)
        before = found.get(place, OperatorCosts(0.0, 0.0))
        found[place] = OperatorCosts(
            before.milliseconds + float(row["Op Cycles"]) / clock * 1e3,
            max(before.ram_bytes, float(row["Staging Usage"]) + always),
        )
    return found, importlib.metadata.version("ethos-u-vela")


def _place(name: str, places: Mapping[str, int]) -> int:
    """The operator that wrote what has a name, or of which that is a part."""
    if name in places:
        return places[name]
    begun = [known for known in places if name.startswith(f"{known}_")]
    return places[max(begun, key=len)] if begun else -1


class _Run(NamedTuple):
    """What Vela said and wrote."""

    output: str
    summary: dict[str, str]
    operators: list[dict[str, str]]
    compiled: bytes


def _compile(
    named: bytes, accelerator: str, settings: Mapping[str, str], *flags: str
) -> _Run:
    check_installed()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "model.tflite")
        source.write_bytes(named)
        done = _vela(source, accelerator, settings, *flags)
        output = done.stdout + done.stderr
        compiled = source.with_name("model_vela.tflite")
        summary = next(source.parent.glob("model_summary_*.csv"), None)
        layers = source.with_name("model_per-layer.csv")
        if done.returncode or summary is None or not compiled.exists():
            raise ExportError(
                f"Vela failed for {accelerator}. Expected a file that it "
                "compiles, or another of the option accelerators. Received: "
                f"{_last_words(output, done.returncode)}"
            )
        return _Run(
            output,
            _rows(summary)[0],
            _rows(layers) if layers.exists() else [],
            compiled.read_bytes(),
        )


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _vela(
    source: Path, accelerator: str, settings: Mapping[str, str], *flags: str
) -> subprocess.CompletedProcess[str]:
    return command.run(
        "Vela",
        [
            sys.executable,
            "-m",
            "ethosu.vela",
            str(source),
            f"--accelerator-config={accelerator}",
            f"--config={settings['config']}",
            f"--system-config={settings['system_config']}",
            f"--memory-mode={settings['memory_mode']}",
            f"--output-dir={source.parent}",
            "--show-cpu-operations",
            "--verbose-weights",
            *flags,
        ],
        _TIMEOUT_SECONDS,
        source.parent,
        f" for {accelerator}",
    )


def _figures(
    row: Mapping[str, str], settings: Mapping[str, str]
) -> dict[str, Any]:
    weights = round(float(row.get("total_original_weights") or 0))
    encoded = round(float(row.get("total_npu_encoded_weights") or 0))
    flash = sum(
        float(row.get(f"{place}_flash_memory_used") or 0)
        for place in ("on_chip", "off_chip")
    )
    return {
        "system_config": settings["system_config"],
        "memory_mode": settings["memory_mode"],
        "weights": weights,
        "encoded_bytes": encoded,
        "bits_per_weight": 8 * encoded / weights if weights else None,
        "sram_bytes": round(float(row["sram_memory_used"]) * _KIB),
        "dram_bytes": round(float(row["dram_memory_used"]) * _KIB),
        "flash_bytes": round(flash * _KIB),
        "estimated_ms": float(row["inference_time"]) * 1e3,
    }


def _with_names(data: bytes) -> tuple[bytes, dict[str, str]]:
    """Names what operators write, so that Vela can say which it means.

    The file with names, and operators by the name of what they write.
    """
    named, places = _placed(data)
    model = fb.read(named)
    operators = model.subgraphs[0].operators
    return named, {
        name: f"{fb.op_name(model, operators[place])} (operator {place})"
        for name, place in places.items()
    }


def _placed(data: bytes) -> tuple[bytes, dict[str, int]]:
    model = fb.load(data)
    places = {}
    taken = set()
    graph = model.subgraphs[0]
    ends = set(fb.outputs(graph))
    for number, op in enumerate(graph.operators or ()):
        for index in fb.outputs(op):
            tensor = graph.tensors[index]
            if index not in ends or fb.name(tensor) in taken:
                tensor.name = f"op{number}_{index}".encode()
            taken.add(fb.name(tensor))
            places[fb.name(tensor)] = number
    return fb.dump(model), places


def _cpu_operators(output: str, operators: Mapping[str, str]) -> list[str]:
    reasons = {
        name: " ".join(text.split()).rstrip(".")
        for name, text in _REASON.findall(output)
    }
    found = []
    for name in _CPU.findall(output):
        label = operators.get(name, name)
        why = reasons.get(name)
        found.append(f"{label}: {why}" if why else label)
    return found


def _last_words(output: str, code: int) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    words = lines[-1] if lines else "no message"
    ending = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    return f"{words} ({ending})"


def _number(found: re.Match[str] | None) -> int | None:
    return int(found[1]) if found else None

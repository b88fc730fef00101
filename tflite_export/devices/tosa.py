"""The TOSA reference model: integer arithmetic to the bit.

TOSA specifies each operator's integer arithmetic exactly, and its reference
model is that specification as a program. The tools pin other versions of what
this package needs, so they live in an environment of their own and run as
commands.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tflite_export.devices import command
from tflite_export.devices import recast
from tflite_export.devices import tosa_rewrites
from tflite_export.errors import ExportError
from tflite_export.runtime import ports

# Packages; the converter's command has its name.
CONVERTER = "tosa-converter-for-tflite"
TOOLS = "tosa-tools"
SERIALIZER = "tosa-opt"
MODEL = "tosa_reference_model"
# Where `make setup-tosa` puts them, and how to say otherwise.
ENVIRONMENT = "MSQ_TF_TOSA_DIR"
_DEFAULT = Path(".venv-tosa", "bin")
_TIMEOUT_SECONDS = 600


def folder() -> Path | None:
    """Folder of the tools, `None` where they are not installed.

    The folder that `MSQ_TF_TOSA_DIR` names comes first, then `.venv-tosa/bin`
    in the current folder, then the command path.
    """
    named = os.environ.get(ENVIRONMENT)
    on_path = shutil.which(MODEL)
    candidates = [
        *([Path(named)] if named else [_DEFAULT]),
        *([Path(on_path).parent] if on_path and not named else []),
    ]
    for candidate in candidates:
        if all(
            os.access(candidate / tool, os.X_OK)
            for tool in (CONVERTER, SERIALIZER, MODEL)
        ):
            return candidate.absolute()
    return None


def _program(tools: Path, name: str) -> str:
    """Path of a tool: the program itself, or the script that starts it.

    A package installs a Python script for each of its programs, which takes
    five times as long to start as the program to run a small file.
    """
    found = tools.parent.glob(f"lib/python*/site-packages/bin/{name}")
    programs = (path for path in found if os.access(path, os.X_OK))
    return str(next(programs, tools / name))


def absent() -> str:
    """Why the tools can't be used, empty where they can."""
    if folder() is not None:
        return ""
    return (
        f"its tools are not installed: pip install {CONVERTER} {TOOLS} in an "
        "environment of their own, as they need another NumPy, and "
        f"{ENVIRONMENT}=its folder 'bin'; in a clone of the project "
        "`make setup-tosa` does both"
    )


def run(data: bytes, samples: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Runs samples through the TOSA reference model.

    The file has integer inputs and outputs. Float values are quantized, and
    samples that fill no batch are dropped. One array per output.

    Raises:
        ExportError: If the tools are not installed, or one fails; with its
            own words.
    """
    tools = folder()
    if tools is None:
        raise ExportError(
            "The TOSA reference model can't be run. Expected its tools. "
            f"Received: {absent()}"
        )
    given, wanted = ports.inputs(data), ports.outputs(data)
    fed = ports.quantized(data, samples)
    results: list[list[np.ndarray]] = [[] for _ in wanted]
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        _convert(tools, recast.recast(tosa_rewrites.saturated(data)), place)
        # Not all have the batch in front: a layer may read rows of tokens.
        sizes = [port.shape[0] if port.shape else 1 for port in given]
        for number in range(len(fed[0]) // sizes[0]):
            for k, (port, array) in enumerate(zip(given, fed, strict=True)):
                start = number * sizes[k]
                part = array[start : start + sizes[k]].reshape(port.shape)
                np.save(place / f"in{k}.npy", part)
            _evaluate(tools, place, len(given), len(wanted))
            for k, slot in enumerate(results):
                slot.append(np.load(place / f"out{k}.npy"))
    if not results[0]:
        raise ValueError(
            f"Expected at least {sizes[0]} samples. Received: none"
        )
    return [np.concatenate(slot) for slot in results]


def _convert(tools: Path, data: bytes, place: Path) -> None:
    (place / "model.tflite").write_bytes(data)
    _command(
        [
            str(tools / CONVERTER),
            "model.tflite",
            "--bytecode",
            "-o",
            "model.mlirbc",
        ],
        place,
        "model.mlirbc",
    )
    _command(
        [
            _program(tools, SERIALIZER),
            "--tosa-serialize",
            "--tosa-flatbuffer-filename=model.tosa",
            "model.mlirbc",
            "-o",
            os.devnull,
        ],
        place,
        "model.tosa",
    )


def _evaluate(tools: Path, place: Path, inputs: int, outputs: int) -> None:
    def listed(pattern: str, count: int) -> str:
        return ",".join(pattern.format(k) for k in range(count))

    _command(
        [
            _program(tools, MODEL),
            "--tosa_file=model.tosa",
            "--flatbuffer_dir=.",
            "--output_dir=.",
            f"--ifm_name={listed('TosaInput_{}', inputs)}",
            f"--ifm_file={listed('in{}.npy', inputs)}",
            f"--ofm_name={listed('TosaOutput_{}', outputs)}",
            f"--ofm_file={listed('out{}.npy', outputs)}",
        ],
        place,
        f"out{outputs - 1}.npy",
    )


def _command(arguments: list[str], place: Path, product: str) -> None:
    name = Path(arguments[0]).name
    done = command.run(name, arguments, _TIMEOUT_SECONDS, place)
    if done.returncode or not (place / product).exists():
        # The cause comes first; the reference model adds a stack.
        words = " ".join((done.stderr + done.stdout).split())
        raise ExportError(
            f"{name} failed. Expected a file that it takes. Received: exit "
            f"code {done.returncode}, {words[:300]}"
        )

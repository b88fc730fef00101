"""Qualcomm's compiler and emulator, in an environment of their own.

LiteRT's wheel has the tool that applies a vendor's compiler to a file, and the
plugin for Qualcomm; the compiler itself is in the libraries of
`onnxruntime-qnn`, under a licence that a user accepts by installing it. The
emulator is a provider of onnxruntime: it runs the code that the compiler made
for the NPU on x86.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flatbuffers import flexbuffers

from tflite_export.devices import command
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import model as fb
from tflite_export.runtime import ports

# Where `make setup-qnn` makes it, and how to say otherwise.
ENVIRONMENT = "MSQ_TF_QNN_DIR"
_DEFAULT = Path(".venv-qnn")
_WORKER = Path(__file__).with_name("qualcomm_worker.py")
_TOOL = Path("ai_edge_litert", "tools", "apply_plugin_main")
_PLUGIN = Path("ai_edge_litert", "vendors", "qualcomm", "compiler")
_LIBRARIES = ("Htp", "System", "Ir", "Saver")
# The plugin is linked against it, and does not use it for this NPU.
_UNUSED = "libQnnLpai.so"
_TIMEOUT_SECONDS = 600
_DISPATCH = b"DISPATCH_OP"
_PARTS = re.compile(
    r"selected (\d+) ops, from a total of (\d+) ops\. resulted in (\d+)"
)
_BYTES = re.compile(r"Serialized a context bin of size \(bytes\): (\d+)")
_READS = re.compile(r"read_total_bytes=(\d+)")


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A file for one SoC.

    Attributes:
        data: The bytes of the compiled file.
        context_bytes: Bytes of what the NPU runs, weights and code.
        read_bytes: Bytes that an inference reads from memory, as the compiler
            plans it; `None` where it does not say.
        operators: Number of operators of the file before.
        left: Names of the operators that are left to the CPU.
        parts: Number of parts that the NPU runs.
    """

    data: bytes
    context_bytes: int
    read_bytes: int | None
    operators: int
    left: tuple[str, ...]
    parts: int


def folder() -> Path | None:
    """Folder of the environment's packages, `None` where there is none."""
    named = Path(os.environ.get(ENVIRONMENT) or _DEFAULT)
    for site in sorted(named.absolute().glob("lib/python3*/site-packages")):
        if (site / "onnxruntime_qnn").is_dir() and (site / _TOOL).exists():
            return site
    return None


def installed() -> Path:
    """Folder of the environment's packages.

    Raises:
        ExportError: If there is none, with what to do.
    """
    found = folder()
    if found is None:
        raise ExportError(
            "Qualcomm's compiler isn't installed. Expected `make setup-qnn` in "
            "a clone of the project, or an environment with the packages of "
            f"requirements-qnn.txt and {ENVIRONMENT}=its folder; or an empty "
            "list for the option socs, to compile nothing. Received: none"
        )
    return found


def compile_file(data: bytes, soc: str) -> Compiled:
    """Compiles an int8 file for one SoC.

    Raises:
        ExportError: If the compiler isn't installed or fails; with its own
            words.
    """
    site = installed()
    with tempfile.TemporaryDirectory() as temporary:
        source, result = Path(temporary, "in.tflite"), Path(temporary, "out")
        source.write_bytes(data)
        libraries = Path(temporary, "lib")
        libraries.mkdir()
        for name in _LIBRARIES:
            _link(site, f"libQnn{name}.so", libraries / f"libQnn{name}.so")
        _link(site, "libHtpPrepare.so", libraries / "libHtpPrepare.so")
        _link(site, "libQnnSystem.so", libraries / _UNUSED)
        done = command.run(
            "Qualcomm's compiler",
            [
                str(site / _TOOL),
                "--cmd=apply",
                f"--model={source}",
                f"--o={result}",
                "--soc_manufacturer=Qualcomm",
                f"--soc_model={soc}",
                f"--libs={site / _PLUGIN}",
                "--err=--",
            ],
            _TIMEOUT_SECONDS,
            Path(temporary),
            f" for {soc}",
            environment={
                "LD_LIBRARY_PATH": os.pathsep.join(
                    (str(libraries), str(site / "onnxruntime_qnn.libs"))
                )
            },
        )
        log = done.stdout + done.stderr
        compiled = result.read_bytes() if result.exists() else b""
    if done.returncode or not compiled:
        raise ExportError(
            f"Qualcomm's compiler failed for {soc}. Expected operators and "
            "weights that it takes. Received: "
            f"{_reason(log, done.returncode)}"
        )
    sizes = [int(size) for size in _BYTES.findall(log)]
    reads = [int(size) for size in _READS.findall(log)]
    parts = _PARTS.search(log)
    return Compiled(
        data=compiled,
        context_bytes=sum(sizes),
        # Lines of the compiler's threads may fall into one another.
        read_bytes=sum(reads) if len(reads) == len(sizes) else None,
        operators=len(fb.read(data).subgraphs[0].operators),
        left=_left(compiled),
        parts=int(parts[3]) if parts else len(sizes),
    )


def _link(site: Path, name: str, to: Path) -> None:
    to.symlink_to(site / "onnxruntime_qnn" / name)


def _reason(log: str, code: int) -> str:
    """The tool's own words, short."""
    found = [
        line.split("message:")[-1].split("ERROR:")[-1].strip()
        for line in log.splitlines()
        if "message:" in line or "ERROR" in line and "]" in line
    ]
    words = next((line for line in found if len(line) > 12), "")
    return f"{words[:200]} (exit code {code})".strip()


def _left(compiled: bytes) -> tuple[str, ...]:
    model = fb.read(compiled)
    return tuple(
        f"{fb.op_name(model, op)} (operator {number})"
        for number, op in enumerate(model.subgraphs[0].operators)
        if model.operatorCodes[op.opcodeIndex].customCode != _DISPATCH
    )


def emulate(
    compiled: bytes, batches: Sequence[Sequence[np.ndarray]]
) -> list[list[np.ndarray]]:
    """Runs batches of a file that is all on the NPU, emulated on x86.

    Args:
        compiled: The compiled file.
        batches: Arrays as the file takes them, in the order of its inputs.

    Returns:
        The outputs of each batch, in the order of the file.

    Raises:
        ExportError: If the emulator isn't installed or fails; with its own
            words.
    """
    site = installed()
    context, description = _context(compiled)
    inputs = ports.inputs(compiled)
    places = {port.name: k for k, port in enumerate(inputs)}
    with tempfile.TemporaryDirectory() as temporary:
        paths = {
            name: Path(temporary, name)
            for name in ("context.bin", "graph.json", "in.npz", "out.npz")
        }
        paths["context.bin"].write_bytes(context)
        paths["graph.json"].write_text(json.dumps(description), "utf-8")
        arrays: dict[str, Any] = {
            f"{i}_{k}": batch[places[name]]
            for i, batch in enumerate(batches)
            for k, (name, _, _) in enumerate(description["inputs"])
        }
        np.savez(paths["in.npz"], **arrays)
        done = command.run(
            "The emulated NPU",
            [
                # lib/python3.11/site-packages -> bin/python
                str(site.parents[2] / "bin" / "python"),
                *("-P", str(_WORKER), *(str(p) for p in paths.values())),
            ],
            _TIMEOUT_SECONDS,
        )
        if done.returncode or not paths["out.npz"].exists():
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            raise ExportError(
                "The emulated NPU can't run the compiled file. Expected the "
                "operators that it was compiled from. Received: "
                f"{''.join(lines[-1:])[:200]} (exit code {done.returncode})"
            )
        names = [name for name, _, _ in description["outputs"]]
        with np.load(paths["out.npz"]) as loaded:
            return [
                [
                    loaded[f"{i}_{names.index(port.name)}"]
                    if port.name in names
                    # An input that is an output, too.
                    else batch[places[port.name]]
                    for port in ports.outputs(compiled)
                ]
                for i, batch in enumerate(batches)
            ]


def _context(compiled: bytes) -> tuple[bytes, dict[str, Any]]:
    """The context binary of a file, and how its graph is called."""
    model = fb.read(compiled)
    graph = model.subgraphs[0]
    (op,) = graph.operators
    options = np.asarray(op.customOptions).astype(np.uint8).tobytes()
    values = flexbuffers.Loads(options)
    start, size = values["bytecode_offset"], values["bytecode_size"]
    dtypes = {
        port.name: port.dtype.name
        for port in (*ports.inputs(compiled), *ports.outputs(compiled))
    }

    def described(indices: Sequence[int]) -> list[Any]:
        tensors = [graph.tensors[i] for i in indices]
        return [
            [fb.name(t), dtypes[fb.name(t)], list(fb.shape(t))] for t in tensors
        ]

    return compiled[start : start + size], {
        "name": values["name"],
        "inputs": described(fb.inputs(op)),
        "outputs": described(fb.outputs(op)),
    }

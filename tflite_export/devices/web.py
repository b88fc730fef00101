"""LiteRT.js: the runtime of browsers, run in Node.

It is LiteRT and XNNPACK, compiled to WebAssembly, of which there are two
builds: one for browsers with relaxed SIMD, and one for all. Both compute what
XNNPACK computes here.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tflite_export.devices import beside
from tflite_export.devices import command
from tflite_export.devices.result import DeviceResult
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import model as fb
from tflite_export.runtime import interpreter
from tflite_export.runtime import ports
from tflite_export.targets import Target
from tflite_export.targets import lint

# Where `make setup-web` installs the package, and how to say otherwise.
ENVIRONMENT = "MSQ_TF_WEB_DIR"
_DEFAULT = Path(".venv-web")
_PACKAGE = Path("node_modules", "@litertjs", "core", "dist", "index.js")
_WORKER = Path(__file__).with_name("web_worker.mjs")
# Files of the package by the instructions that they need.
KERNELS = {
    "relaxed SIMD": "litert_wasm_internal.js",
    "SIMD": "litert_wasm_compat_internal.js",
}
# What its tensors hold.
TYPES = ("float32", "int32", "uint8")
_SAMPLES = 4
_TIMEOUT_SECONDS = 300


def folder() -> Path | None:
    """Folder of the package, `None` where it or Node is missing."""
    named = Path(os.environ.get(ENVIRONMENT) or _DEFAULT)
    found = shutil.which("node") and (named / _PACKAGE).is_file()
    return named.absolute() if found else None


def installed() -> Path:
    """Folder of the package.

    Raises:
        ExportError: If it or Node is missing, with what to do.
    """
    found = folder()
    if found is None:
        raise ExportError(
            "There is no LiteRT.js to verify with. Expected Node 20 or later, "
            "and `make setup-web` in a clone of the project, or `npm install "
            f"@litertjs/core` in a folder and {ENVIRONMENT}=this folder "
            "elsewhere. Received: "
            + ("no package" if shutil.which("node") else "no node")
        )
    return found


def finish(
    data: bytes, stem: str, inputs: Sequence[np.ndarray]
) -> DeviceResult:
    """Checks what LiteRT.js takes, such as closed axes and types of tensors.

    Raises:
        ExportError: If a page can't run the file.
    """
    del stem, inputs
    severe = lint.severe(lint.check(data, "web"))
    if severe:
        raise ExportError(
            "LiteRT.js can't run the file (argument target). Expected a "
            "fixed batch size, outputs that are computed, and inputs and "
            f"outputs of the types {', '.join(TYPES)}. Received: "
            f"{'; '.join(severe)}"
        )
    return DeviceResult()


def run(
    data: bytes,
    batches: Sequence[Sequence[np.ndarray]],
    kernels: Sequence[str] = tuple(KERNELS),
) -> dict[str, tuple[list[list[np.ndarray]], dict[str, Any]]]:
    """Runs batches in LiteRT.js.

    Args:
        data: The bytes of a file with closed axes.
        batches: Arrays as the file takes them, in the order of its inputs.
        kernels: Some keys of `KERNELS`.

    Returns:
        By kernels the outputs of each batch, in the order of the file, and
        `whole` (whether XNNPACK takes all operators), `loaded` and `least`,
        milliseconds of loading and of the fastest run.

    Raises:
        ExportError: If it is not installed, or can't run the file; with its
            own words.
    """
    packages = installed()
    session = interpreter.Session(data, "xnnpack")
    names = [
        [n for n, at in session.input_names.items() if at == k]
        for k in range(len(batches[0]))
    ]
    results = ports.outputs(data)
    places = {at: name for name, at in session.output_names.items()}
    request = {
        "kernels": {name: KERNELS[name] for name in kernels},
        "batches": len(batches),
        "inputs": [
            {
                "names": names[k],
                "dtype": str(array.dtype),
                "shape": list(array.shape),
                "bytes": array.nbytes,
            }
            for k, array in enumerate(batches[0])
        ],
        "outputs": [places[k] for k in session.output_places],
    }
    with tempfile.TemporaryDirectory() as temporary:
        Path(temporary, "model.tflite").write_bytes(data)
        Path(temporary, "request.json").write_text(json.dumps(request))
        Path(temporary, "in.bin").write_bytes(
            b"".join(a.tobytes() for batch in batches for a in batch)
        )
        done = command.run(
            "LiteRT.js",
            ["node", str(_WORKER), str(packages), temporary],
            _TIMEOUT_SECONDS,
        )
        path = Path(temporary, "answer.json")
        answer = json.loads(path.read_text()) if path.exists() else {}
        if done.returncode or "kernels" not in answer or "reason" in answer:
            said = done.stderr.strip().splitlines()
            reason = answer.get("reason") or "".join(said[-1:])
            raise ExportError(
                "LiteRT.js can't run the file. Expected operators and types "
                "that it has. Received: "
                f"{reason or f'exit code {done.returncode}'}"
            )
        raw = Path(temporary, "out.bin").read_bytes()
    found: dict[str, tuple[list[list[np.ndarray]], dict[str, Any]]] = {}
    start = 0
    for name in kernels:
        one = answer["kernels"][name]
        arrays = []
        for position, size in enumerate(one.pop("bytes")):
            port = results[position % len(results)]
            array = np.frombuffer(raw[start : start + size], port.dtype)
            arrays.append(array.reshape(port.shape))
            start += size
        count = len(results)
        outputs = [arrays[i : i + count] for i in range(0, len(arrays), count)]
        found[name] = outputs, one
    return found


def closed(data: bytes) -> bytes:
    """The same file with a batch of 1, where it leaves it open."""
    model = fb.load(data)
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.shapeSignature = None
    return fb.dump(model)


def verify(
    data: bytes, samples: Sequence[np.ndarray], target: Target
) -> dict[str, Any]:
    """Compares LiteRT.js with XNNPACK on this machine.

    A file with an open batch runs as one with a batch of 1.

    Args:
        data: The bytes of a file.
        samples: Inputs, one float array per input.
        target: Where the file shall run.

    Returns:
        By kernels the largest difference of an output, in units of its grid,
        or for float activations relative to its range; `fully_accelerated`,
        `samples`. Or `skipped`, with the reason, for a file of another target
        that no page can load. JSON values.

    Raises:
        ExportError: If it can't run the file, or an output differs by more
            than kernel sets may.
        ValueError: If there are fewer samples than a batch takes.
    """
    reason = _against(data)
    if reason:
        return {"skipped": reason}
    is_open = any(-1 in port.axes for port in ports.inputs(data))
    _, batches, wanted = beside.here(data, samples, _SAMPLES)
    figures: dict[str, Any] = {"samples": sum(len(b[0]) for b in batches)}
    if is_open:
        data = closed(ports.closed(data, batches[0], wanted[0]))
        figures["batch"] = "closed to 1, as LiteRT.js runs no open one"
    found = run(data, batches)
    for name, (got, _) in found.items():
        where = f"LiteRT.js ({name})"
        if target.integer:
            figures[name] = beside.units(data, got, wanted, target, where)
        else:
            figures[name] = beside.relative(got, wanted, where)
    whole = all(details["whole"] for _, details in found.values())
    return {**figures, "fully_accelerated": whole}


def _against(data: bytes) -> str | None:
    """Why no page can load the file."""
    for port in (*ports.inputs(data), *ports.outputs(data)):
        if str(port.dtype) not in TYPES:
            return (
                f"LiteRT.js has no tensors of {port.dtype} ('{port.name}'), "
                f"only of {', '.join(TYPES)}"
            )
        if -1 in port.axes[1:]:
            return (
                f"'{port.name}' has the shape {list(port.axes)}, and LiteRT.js "
                "runs no open axes"
            )
    return ports.passed_through(data)

"""LiteRT's `CompiledModel`: what new applications run a file with.

It is started by its path, too, on a GPU in a process of its own: therefore it
imports nothing of the package.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import compiled_model as litert

_HEAD = "Following operations are not supported by GPU delegate:"
_TAIL = "operations will run on the GPU"
_ADAPTER = "Selected adapter: "


class NoRoomError(RuntimeError):
    """A file would write beyond the buffer of an output."""


def run(
    data: bytes,
    batches: Sequence[Sequence[np.ndarray]],
    input_names: Mapping[str, int],
    output_names: Mapping[str, int],
    output_places: Sequence[int],
    output_bytes: Sequence[int],
    gpu: bool = False,
) -> tuple[list[list[np.ndarray]], bool]:
    """Runs batches of one size.

    What native code prints on the way is left to the caller.

    Args:
        data: The bytes of a file with one signature, or none; with the shapes
            of its outputs, by which LiteRT makes room for them.
        batches: Arrays as the file takes them, in the order of its inputs.
        input_names: Position of each input by its name in the signature.
        output_names: Position of each output likewise.
        output_places: For each output of the file, the first that is the same
            tensor.
        output_bytes: Bytes of each output of the file for such a batch.
        gpu: Whether the GPU computes what it can, in float32, instead of
            XNNPACK on one thread.

    Returns:
        The outputs of each batch, in the order of the file, and whether an
        accelerator took over all operators.

    Raises:
        NoRoomError: If LiteRT would write beyond an output's buffer.
        RuntimeError: If it can't load or run the file.
    """
    kinds = litert.HardwareAccelerator
    options = litert.Options(
        hardware_accelerators=kinds.GPU | kinds.CPU if gpu else kinds.CPU,
        cpu_options=litert.CpuOptions(num_threads=1),
        gpu_options=litert.GpuOptions(enforce_f32=True),
    )
    # Without a folder of plug-ins to look through on CPU.
    environment = None if gpu else litert.Environment.create()
    model = litert.CompiledModel.from_buffer(
        data, options=options, environment=environment
    )
    signature = model.get_signature_by_index(0)
    key = signature["key"]
    for name in signature["inputs"]:
        array = batches[0][_position(input_names, name)]
        shapes = model.get_input_tensor_details(key)
        if tuple(shapes[name]["shape"]) != array.shape:
            model.resize_input_tensor_by_name(key, name, array.shape)
    found = []
    inputs, outputs = model.create_input_buffers(0), None
    for batch in batches:
        for name, buffer in zip(signature["inputs"], inputs, strict=True):
            buffer.write(_bytes(batch[_position(input_names, name)]))
        if outputs is None:
            outputs = model.create_output_buffers(0)
            for k, name in enumerate(signature["outputs"]):
                needed = output_bytes[_position(output_names, name)]
                room = model.get_output_buffer_requirements(k)["buffer_size"]
                # It would write all of it, over whatever comes behind.
                if room < needed:
                    raise NoRoomError(
                        f"room of {room} bytes for output '{name}' of {needed}"
                    )
        model.run_by_index(0, inputs, outputs)
        details = model.get_output_tensor_details(key)
        results: dict[int, np.ndarray] = {}
        for name, buffer in zip(signature["outputs"], outputs, strict=True):
            shape, kind = details[name]["shape"], details[name]["dtype"]
            dtype = np.dtype(kind)
            count = int(np.prod(shape))
            raw = buffer.read(count * dtype.itemsize, np.int8)
            array = raw.view(dtype).reshape(shape)
            results[_position(output_names, name)] = array
        found.append([results[k] for k in output_places])
    _without_farewell()
    return found, model.is_fully_accelerated()


@functools.cache
def _without_farewell() -> None:
    """Keeps LiteRT from logging as the very last of a process.

    It has an object that lives until then, and no setting of its log. What is
    registered after the object was made is called before its end: standard
    error is closed there, after Python has ended.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "__cxa_atexit"):
        close = ctypes.cast(libc.close, ctypes.c_void_p)
        getattr(libc, "__cxa_atexit")(close, ctypes.c_void_p(2), None)  # noqa: B009


def _position(names: Mapping[str, int], name: str) -> int:
    # A file without a signature has one place for each.
    return names[name] if name in names else len(names) - 1


def _bytes(array: np.ndarray) -> np.ndarray:
    """Any type as bytes: the interface has not all of the file's types."""
    return np.ascontiguousarray(array).reshape(-1).view(np.int8)


@contextlib.contextmanager
def quiet() -> Iterator[list[str]]:
    """Holds back what native code says on standard error.

    Yields:
        A list, which has the lines when the block is left.
    """
    lines: list[str] = []
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            held.seek(0)
            lines += held.read().decode("utf-8", "replace").splitlines()


def left_to_cpu(lines: Sequence[str]) -> list[str]:
    """Words of the GPU's compiler on each kind of operator that it refuses."""
    found: list[str] = []
    inside = False
    for line in lines:
        if _TAIL in line:
            inside = False
        elif line.endswith(_HEAD):
            inside = True
        elif inside:
            # Without the tensor that it stumbled over.
            text = re.sub(r"\s*[^\s#]*#\d+$", "", line.strip())
            if ". " in text and not text.endswith("."):
                text = text[: text.rindex(". ") + 1]
            found.append(text)
    return list(dict.fromkeys(found))


def complaints(lines: Sequence[str]) -> list[str]:
    """Errors among the lines, but those of libraries that were not found."""
    found = []
    for line in lines:
        text = line.removeprefix("ERROR: ").strip()
        error = text != line.strip() or "mismatch" in line.lower()
        if error and ".so" not in line and _HEAD not in line:
            # Without time, process and place in the source.
            found.append(re.sub(r"^[EF]\d{4} [\d:.]+\s+\d+ \S+\] ", "", text))
    return list(dict.fromkeys(found))


def adapter(lines: Sequence[str]) -> str:
    """Name of the GPU; empty if nothing was said of it."""
    for line in lines:
        _, _, name = line.partition(_ADAPTER)
        if name:
            return name.partition(",")[0].strip()
    return ""


def main(folder: str) -> None:
    """Runs a file on the GPU, as `devices.gpu` asks for it.

    Args:
        folder: `request.json`, `in.npz` and `model.tflite` lie there, and
            `answer.json` and `out.npz` come there.
    """
    with open(os.path.join(folder, "request.json"), encoding="utf-8") as file:
        request = json.load(file)
    with open(os.path.join(folder, "model.tflite"), "rb") as model:
        data = model.read()
    with np.load(os.path.join(folder, "in.npz")) as arrays:
        batches = [
            [arrays[f"{i}_{k}"] for k in range(request["inputs"])]
            for i in range(request["batches"])
        ]
    if request["loader"]:
        # LiteRT asks for it by its name alone.
        ctypes.CDLL(request["loader"], mode=ctypes.RTLD_GLOBAL)
    answer: dict[str, Any] = {}
    lines: list[str] = []
    try:
        with quiet() as lines:
            found, whole = run(
                data,
                batches,
                request["input_names"],
                request["output_names"],
                request["output_places"],
                request["output_bytes"],
                gpu=True,
            )
        answer["whole"] = whole
        results: dict[str, Any] = {
            f"{i}_{k}": array
            for i, outputs in enumerate(found)
            for k, array in enumerate(outputs)
        }
        np.savez(os.path.join(folder, "out.npz"), **results)
        answer["outputs"] = len(found[0])
    except (RuntimeError, ValueError) as error:
        answer["reason"] = str(error)
    answer |= {
        "adapter": adapter(lines),
        "left": left_to_cpu(lines),
        "said": complaints(lines),
    }
    with open(
        os.path.join(folder, "answer.json"), "w", encoding="utf-8"
    ) as file:
        json.dump(answer, file)


if __name__ == "__main__":
    main(*sys.argv[1:])

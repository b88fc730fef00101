"""Which spellings of weights LiteRT's GPU accelerator takes, one layer a file.

Each file is run on SwiftShader. `claimed` files say of their DEQUANTIZE that
it is of version 3, the last that the accelerator takes, whatever it unpacks.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import msq_tf
import tflite_export
from benchmarks.files.accelerators import left
from benchmarks.files.accelerators import with_biases
from benchmarks.harness import layer_cases
from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import ran
from benchmarks.harness.markdown import table
from tflite_export import targets
from tflite_export.devices import gpu
from tflite_export.flatbuffer import model as fb

_LAYERS: dict[str, Callable[[], keras.layers.Layer]] = {
    "Dense": lambda: keras.layers.Dense(32),
    "Conv2D": lambda: keras.layers.Conv2D(8, 3),
    "DepthwiseConv2D": lambda: keras.layers.DepthwiseConv2D(3),
}
_SHAPES = {"Dense": (64,)}
_IMAGE = (12, 12, 8)
_TARGETS = ("cpu_float", "min_size", "cpu_int8", "mcu")
_BITS = (8, 4, 2)
_SCALES = {
    "one": msq_tf.PerTensor(),
    "per channel": msq_tf.PerChannel(),
}
_NEWEST = 3
# What the accelerator computes wrong, and `web` writes in another way.
_FAULTS = {
    "Conv2D of 1x1, strides of 2": lambda: keras.Sequential(
        [keras.Input(_IMAGE), keras.layers.Conv2D(16, 1, strides=2)]
    ),
    "Add of two inputs": layer_cases.CASES["Add"],
    "matrix times itself": layer_cases.CASES["ops.matmul"],
    "a part of a split": layer_cases.CASES["ops.split"],
}


def measure() -> dict[str, Any]:
    """Runs every file on the GPU.

    Returns:
        By layer, width, scales and target what the accelerator said, JSON
        values.
    """
    rows = []
    for name, make in _LAYERS.items():
        shape = _SHAPES.get(name, _IMAGE)
        x = np.random.default_rng(0).normal(size=(8, *shape)).astype("f")
        for scales, granularity in _SCALES.items():
            for bits in _BITS:
                keras.utils.set_random_seed(0)
                model = keras.Sequential([keras.Input(shape), make()])
                with_biases(model)
                qmodel = msq_tf.quantize_model(
                    model,
                    msq_tf.MSQConfig(
                        granularity=granularity,
                        dense_granularity=granularity,
                        activation_bits=8,
                    ),
                )
                qmodel.set_bits(dict.fromkeys(qmodel.bits, bits))
                msq_tf.calibrate(qmodel, x)
                for target in _TARGETS:
                    row = {"layer": name, "scales": scales, "bits": bits}
                    rows += _cells({**row, "target": target}, qmodel, x)
    return {"rows": rows, "faults": _faults()}


def _faults() -> list[dict[str, Any]]:
    rows = []
    for name, make in _FAULTS.items():
        keras.utils.set_random_seed(0)
        model = make()
        x = layer_cases.samples(model)
        fed = x if len(x) > 1 else x[0]
        qmodel = msq_tf.quantize_model(
            model, msq_tf.MSQConfig(activation_bits=8)
        )
        qmodel(fed, training=True)
        for target in ("cpu_int8", "web"):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "m.tflite")
                tflite_export.export(
                    qmodel, path, target, fed, batch_size=1, verbose=False
                )
                found = _run(path.read_bytes(), list(x), targets.load(target))
            rows.append({"what": name, "target": target, "gpu": found})
    return rows


def _cells(
    row: dict[str, Any], qmodel: msq_tf.MSQModel, x: np.ndarray
) -> list[dict[str, Any]]:
    target = targets.load(row["target"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.tflite")
        integer_io = False if target.integer else None
        try:
            report = tflite_export.export(
                qmodel,
                path,
                target.name,
                x,
                batch_size=1,
                integer_io=integer_io,
                verbose=False,
            )
        except ValueError as error:
            return [{**row, "refused": str(error)}]
        row["container"] = report.tensors[0].container
        data = path.read_bytes()
        found = [{**row, "claimed": False, "gpu": _run(data, [x], target)}]
        other = _claimed(data)
        if other is not None:
            found.append(
                {**row, "claimed": True, "gpu": _run(other, [x], target)}
            )
    return found


def _claimed(data: bytes) -> bytes | None:
    model = fb.load(data)
    codes = [
        code
        for code in model.operatorCodes
        if fb.code_name(code) == "DEQUANTIZE" and code.version > _NEWEST
    ]
    for code in codes:
        code.version = _NEWEST
    return fb.dump(model) if codes else None


def _run(
    data: bytes, x: list[np.ndarray], target: targets.Target
) -> dict[str, Any]:
    try:
        return gpu.verify(data, x, target)
    except ValueError as error:
        return {"refused": str(error)}


def faults(content: dict[str, Any]) -> str:
    """What the accelerator computes wrong, and how `web` is written."""
    rows = [
        (
            row["what"],
            f"`{row['target']}`",
            _verdict(row["gpu"]),
            left(row["gpu"]),
        )
        for row in content["results"]["faults"]
    ]
    heads = ("what", "file", "on the GPU", "units, or why")
    return page(
        f"{ran(content['environment'])}:", table(heads, rows, left=len(heads))
    )


def _verdict(found: dict[str, Any]) -> str:
    if "refused" not in found:
        return "whole, right" if found["fully_accelerated"] else "partly, right"
    if "process" in found["refused"]:
        return "ends the process"
    if "something else" in found["refused"]:
        return "wrong"
    return "not loaded"


def markdown(content: dict[str, Any]) -> str:
    """A row for each way to store a weight."""
    cells: dict[tuple[str, ...], list[str]] = {}
    for row in content["results"]["rows"]:
        if "gpu" not in row:
            continue
        found = row["gpu"]
        spelled = f"`{row['target']}`, {row['container']}"
        verdict = _verdict(found)
        key = (
            row["layer"],
            spelled + ", version claimed" * row["claimed"],
            verdict,
            # How wrong it is depends on the bias.
            "" if verdict == "wrong" else left(found).partition(" Failed")[0],
        )
        scales = cells.setdefault(key, [])
        if row["scales"] not in scales:
            scales.append(row["scales"])
    rows = [
        (layer, spelled, " or ".join(scales), verdict, says)
        for (layer, spelled, verdict, says), scales in cells.items()
    ]
    heads = ("layer", "file, weight", "scales", "on the GPU", "it says")
    return page(
        f"{ran(content['environment'])}:", table(heads, rows, left=len(heads))
    )

"""Where else than on CPU kernels files run: LiteRT.js, and a phone's GPU.

Files of all targets, and one of `web` for each layer of the table of layers,
run in LiteRT.js on Node, in `CompiledModel`, and on LiteRT's GPU accelerator
on SwiftShader, a Vulkan made of software. Weights are drawn from normal
distributions: nothing here says anything about accuracy or speed.
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
from benchmarks.files.vela import as_if_trained
from benchmarks.harness import layer_cases
from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import ran
from benchmarks.harness.markdown import table
from tflite_export import targets
from tflite_export.devices import compiled_model
from tflite_export.devices import gpu
from tflite_export.devices import web
from train.models import builders

_MODELS: dict[str, tuple[tuple[int, int, int], int, float]] = {
    "resnet8": ((28, 28, 1), 10, 1.0),
    "mobilenet_v2": ((96, 96, 3), 1000, 0.5),
}
_TARGETS = {
    "cpu_float": 8,
    "min_size": 8,
    "cpu_int8": 8,
    "web": 8,
    "edgetpu": 8,
    "mcu": 8,
    "cpu_int16": 16,
}
_BITS = (8, 4, 2)
_SAMPLES = 8


def measure() -> dict[str, Any]:
    """Runs every file everywhere.

    Returns:
        By file what each runtime said, JSON values.
    """
    return {"seed": 0, "files": _files(), "layers": _layers()}


def _files() -> list[dict[str, Any]]:
    rows = []
    for name, (shape, classes, alpha) in _MODELS.items():
        keras.utils.set_random_seed(0)
        model = builders.build(name, shape, classes, alpha)
        as_if_trained(model)
        with_biases(model)
        x = np.random.default_rng(0).normal(size=(_SAMPLES, *shape))
        for bits in (8, 16):
            config = msq_tf.MSQConfig(activation_bits=bits)
            qmodel = msq_tf.quantize_model(model, config)
            widths = {
                key: _BITS[k % len(_BITS)] for k, key in enumerate(qmodel.bits)
            }
            qmodel.set_bits(widths)
            msq_tf.calibrate(qmodel, x.astype(np.float32))
            for target, wanted in _TARGETS.items():
                if wanted == bits:
                    row = _everywhere(qmodel, [x.astype(np.float32)], target)
                    rows.append({"model": name, "target": target, **row})
    return rows


def with_biases(model: keras.Model) -> None:
    """Gives biases other values than zeros, which hide that one is left out.

    Args:
        model: A float model; its variables are assigned.
    """
    rng = np.random.default_rng(1)
    for variable in model.variables:
        if variable.path.endswith("bias"):
            variable.assign(rng.normal(0, 0.5, tuple(variable.shape)))


def _layers() -> list[dict[str, Any]]:
    rows = []
    for name, make in layer_cases.CASES.items():
        keras.utils.set_random_seed(0)
        model = make()
        x = layer_cases.samples(model)
        qmodel = msq_tf.quantize_model(
            model, msq_tf.MSQConfig(activation_bits=8)
        )
        qmodel(x if len(x) > 1 else x[0], training=True)
        rows.append({"layer": name, **_everywhere(qmodel, list(x), "web")})
        keras.backend.clear_session()
    return rows


def _everywhere(
    qmodel: msq_tf.MSQModel, x: list[np.ndarray], target: str
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.tflite")
        try:
            report = tflite_export.export(
                qmodel,
                path,
                target,
                x if len(x) > 1 else x[0],
                # A page's tensors hold no int8.
                integer_io=False if targets.load(target).integer else None,
                min_agreement=0.0 if targets.load(target).integer else None,
                verbose=False,
            )
        except ValueError as error:
            return {"refused": str(error)}
        data = path.read_bytes()
        places = {"compiled_model": compiled_model, "web": web, "gpu": gpu}
        policy = targets.load(target)
        found = {
            name: _verified(place.verify, data, x, policy)
            for name, place in places.items()
        }
        return {"bytes": report.file_bytes, **found}


def _verified(
    verify: Callable[..., dict[str, Any]], *arguments: Any
) -> dict[str, Any]:
    try:
        return verify(*arguments)
    except (ValueError, RuntimeError) as error:
        return {"refused": str(error)}


def markdown(content: dict[str, Any]) -> str:
    """All tables."""
    return page(files(content), browsers(content), layers(content))


def files(content: dict[str, Any]) -> str:
    """A row a file: what is accelerated, and how far outputs are apart."""
    rows = [
        (
            row["model"],
            f"`{row['target']}`",
            f"{row['bytes']:,}",
            _cell(row["compiled_model"], ("difference",)),
            _cell(row["gpu"], ("difference",)),
            left(row["gpu"]),
        )
        for row in _written(content)
    ]
    heads = (
        *("model", "file", "bytes", "`CompiledModel`, CPU"),
        *("GPU", "left to the CPU there"),
    )
    return page(_ran(content), table(heads, rows, left=len(heads)))


def browsers(content: dict[str, Any]) -> str:
    """A row a file in LiteRT.js: both builds against XNNPACK."""
    rows = [
        (
            row["model"],
            f"`{row['target']}`",
            f"{row['bytes']:,}",
            *(_cell(row["web"], (build,)) for build in web.KERNELS),
        )
        for row in _written(content)
        if row["target"] not in ("edgetpu",)
    ]
    heads = ("model", "file", "bytes", *web.KERNELS)
    return page(_ran(content), table(heads, rows, left=len(heads)))


def _written(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in content["results"]["files"] if "bytes" in row]


def layers(content: dict[str, Any]) -> str:
    """The layers of `web` that the GPU does not run as a whole."""
    rows = content["results"]["layers"]
    found = [row for row in rows if "bytes" in row]
    partly = [
        (
            row["layer"],
            _cell(row["web"], tuple(web.KERNELS)),
            _cell(row["gpu"], ("difference",)),
            left(row["gpu"]),
        )
        for row in found
        if not row["gpu"].get("fully_accelerated")
    ]
    whole = len(found) - len(partly)
    heads = ("layer", "LiteRT.js, WebAssembly", "GPU", "left to the CPU there")
    return page(
        f"{_ran(content)} Of {len(rows)} models of one layer or operation, "
        f"`web` takes {len(found)}, and the GPU runs {whole} of these whole; "
        "the others:",
        table(heads, partly, left=len(heads)),
    )


def _ran(content: dict[str, Any]) -> str:
    gpus = {
        row["gpu"]["gpu"]
        for row in content["results"]["files"]
        if row.get("gpu", {}).get("gpu")
    }
    # Where it was not recorded in one run.
    steps = content["results"].get("steps", "")
    return (
        f"{ran(content['environment'], *sorted(gpus))}; `all`: an accelerator "
        "runs all operators; units are steps of the output's grid."
        + (f" {steps}" if steps else "")
    )


def _cell(found: dict[str, Any], keys: tuple[str, ...]) -> str:
    if "something else" in found.get("refused", ""):
        return "wrong"
    if "refused" in found:
        return "refused"
    if "skipped" in found:
        return "-"
    worst = max((found[key] for key in keys), key=_number)
    words = {True: "all", False: "partly"}[found["fully_accelerated"]]
    return f"{words}, {_apart(worst)}"


def _number(value: Any) -> float:
    return float(str(value).partition(":")[0])


def _apart(value: Any) -> str:
    number = _number(value)
    if number and number < 1e-3:
        return f"{number:.0e} of the range"
    return f"{number:g} units" if number else "equal"


def left(found: dict[str, Any]) -> str:
    """What a GPU's compiler said of the operators that it left, a cell."""
    if "refused" in found:
        _, _, said = found["refused"].rpartition("Received: ")
        if "something else" in found["refused"]:
            ranged = "of their range" in found["refused"]
            return f"{said} {'of the range' if ranged else 'units'} off"
        return said.replace("|", "/")
    return "; ".join(found.get("left", ()))

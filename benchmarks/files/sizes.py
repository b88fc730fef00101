"""Promised sizes against real files: what `BudgetRule(device=)` predicts.

Exports models with made-up weights at mixed widths and compares the bytes with
those that `msq_tf.rules.storage` predicts from widths, sizes and channels.
"""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
import rich.table

import msq_tf
from benchmarks.harness import exports
from benchmarks.harness import tables
from msq_tf.rules.storage import DEVICES
from msq_tf.sensitivity.statistics import layer_outlines
from train.models import builders

_MODELS = {
    "resnet8": ((28, 28, 1), 10, 1.0),
    "resnet20": ((32, 32, 3), 10, 1.0),
    "mobilenet_v2": ((96, 96, 3), 10, 0.35),
}
_SCHEMES = {"8": (8,), "4": (4,), "2": (2,), "mixed": (8, 4, 2, 4)}
# Files whose bytes the prediction is about.
_DEVICES = ("min_size", "cpu_int8", "mcu")
_SAMPLES = 4


def measure() -> dict[str, Any]:
    """Exports every model at every scheme.

    Returns:
        Predicted and real bytes, JSON values.
    """
    runs = []
    for name, (shape, classes, alpha) in _MODELS.items():
        keras.utils.set_random_seed(0)
        model = builders.build(name, shape, classes, alpha)
        _as_if_trained(model)
        qmodel = msq_tf.quantize_model(model)
        inputs = keras.random.normal((_SAMPLES, *shape), seed=0)
        for (scheme, widths), device in itertools.product(
            _SCHEMES.items(), _DEVICES
        ):
            cycle = itertools.cycle(widths)
            qmodel.set_bits({path: next(cycle) for path in qmodel.paths})
            runs.append(
                {
                    "model": name,
                    "scheme": scheme,
                    "device": device,
                    **_sizes(qmodel, device, inputs),
                }
            )
    return {"samples": _SAMPLES, "seed": 0, "runs": runs}


def _as_if_trained(model: keras.Model) -> None:
    """Fresh biases are all zero, and files store equal vectors once."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if len(variable.shape) == 1:
            noise = rng.uniform(0.5, 1.5, variable.shape)
            variable.assign(noise.astype(np.float32))


def _sizes(qmodel: Any, device: str, inputs: Any) -> dict[str, Any]:
    layers = layer_outlines(qmodel)
    table = DEVICES[device]
    codes = sum(
        layer.size * table.stored(layer.kind, layer.bits) / 8
        for layer in layers
    )
    report = exports.report(qmodel, device, inputs)
    return {
        "layers": len(layers),
        "channels": sum(layer.channels for layer in layers),
        "codes_bytes": codes,
        "predicted_bytes": round(codes + table.overhead(layers)),
        "file_bytes": report.file_bytes,
    }


def table(results: dict[str, Any]) -> rich.table.Table:
    """Predicted against real bytes."""
    view = tables.filled(
        "Predicted and real file sizes",
        ("model", "bits", "target", "predicted", "file", "error"),
        left=3,
    )
    for run in results["runs"]:
        error = run["predicted_bytes"] / run["file_bytes"] - 1
        view.add_row(
            run["model"],
            run["scheme"],
            run["device"],
            f"{run['predicted_bytes']:,}",
            f"{run['file_bytes']:,}",
            f"{error:+.1%}",
        )
    return view

"""What Vela makes of n-bit codes: encoded bytes and estimated time.

Weights are drawn from normal distributions, as trained ones look; nothing here
says anything about accuracy. Times are the compiler's estimates.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

import msq_tf
from benchmarks.harness import exports
from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import table
from train.models import builders

MODELS: dict[str, tuple[tuple[int, int, int], int, float]] = {
    "resnet8": ((28, 28, 1), 10, 1.0),
    "resnet20": ((32, 32, 3), 10, 1.0),
    "mobilenet_v2": ((96, 96, 3), 1000, 0.5),
}
_BITS = (8, 6, 5, 4, 3, 2)
# The widths that `make demo` found for its ResNet-8.
_SEARCHED = (
    Path(__file__).parent.parent.parent / "docs" / "results" / "demo.json"
)
_ACCELERATORS = (
    "ethos-u55-128",
    "ethos-u55-256",
    "ethos-u65-256",
    "ethos-u85-256",
)
_SAMPLES = 16


def measure() -> dict[str, Any]:
    """Compiles every model at every width.

    Returns:
        Vela's figures, JSON values.
    """
    demo = json.loads(_SEARCHED.read_text())
    runs = []
    for name, (shape, classes, alpha) in MODELS.items():
        keras.utils.set_random_seed(0)
        model = builders.build(name, shape, classes, alpha)
        as_if_trained(model)
        qmodel = msq_tf.quantize_model(model)
        schemes = {str(n): dict.fromkeys(qmodel.bits, n) for n in _BITS}
        if name == demo["run"]["model"]:
            # Both are in the order of the model.
            searched = demo["results"]["bits"].values()
            pairs = zip(qmodel.bits, searched, strict=True)
            schemes["searched"] = dict(pairs)
        rng = np.random.default_rng(0)
        samples = rng.normal(size=(_SAMPLES, *shape)).astype(np.float32)
        for scheme, bits in schemes.items():
            qmodel.set_bits(bits)
            runs += _compiled(qmodel, name, scheme, samples)
    return {"seed": 0, "runs": runs}


def _compiled(
    qmodel: msq_tf.MSQModel, name: str, scheme: str, samples: np.ndarray
) -> list[dict[str, Any]]:
    report = exports.report(
        qmodel,
        "ethos_u",
        samples,
        device_options={"accelerators": _ACCELERATORS},
    )
    return [
        {
            "model": name,
            "bits": scheme,
            "ideal_bytes": report.ideal_bytes,
            "entropy_bytes": report.entropy_bytes,
            "accelerator": accelerator,
            **figures,
        }
        for accelerator, figures in report.device["accelerators"].items()
    ]


def as_if_trained(model: keras.Model) -> None:
    """Gives kernels and normalizations values like those of trained models.

    Args:
        model: A float model; its variables are assigned.
    """
    rng = np.random.default_rng(0)
    for variable in model.variables:
        shape = tuple(variable.shape)
        kind = variable.path.rpartition("/")[2]
        if "kernel" in kind:
            fan_in = np.prod(shape) / shape[-1]
            variable.assign(rng.normal(0, fan_in**-0.5, shape))
        elif kind in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, shape))
        elif kind in ("bias", "beta", "moving_mean"):
            variable.assign(rng.normal(0, 0.2, shape))


def markdown(content: dict[str, Any]) -> str:
    """Encoded bytes and estimated time by model, width and accelerator."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for run in content["results"]["runs"]:
        row = found.setdefault((run["model"], run["bits"]), {})
        row[run["accelerator"].removeprefix("ethos-")] = run
    rows = []
    for (model, bits), row in found.items():
        small = row["u55-256"]
        others = [
            f"{row[name]['encoded_bytes']:,}, {row[name]['estimated_ms']:.3f}"
            for name in ("u65-256", "u85-256")
        ]
        rows.append(
            (
                model,
                bits,
                f"{small['ideal_bytes']:,}",
                f"{small['encoded_bytes']:,} ({small['bits_per_weight']:.2f}), "
                f"{small['estimated_ms']:.3f}",
                f"{row['u55-128']['estimated_ms']:.3f}",
                *others,
                f"{small['sram_bytes'] / 1024:.0f} / "
                f"{small['flash_bytes'] / 1024:.0f}",
            )
        )
    columns = (
        "model",
        "bits",
        "ideal",
        "U55-256: encoded (bits each), ms",
        "U55-128 ms",
        "U65-256: encoded, ms",
        "U85-256: encoded, ms",
        "U55-256 SRAM / flash KiB",
    )
    return page(table(columns, rows, left=len(columns)))

"""What targets make of transformers and recurrent networks.

Random weights, bits 8, 4, 2, 3, 6, 5, 7 in turn, and a few random inputs:
nothing here says anything about accuracy. A file that is listed was verified
on all kernel sets; a refusal is listed with the exporter's own words.
"""

from __future__ import annotations

import importlib
import itertools
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

import msq_tf
from benchmarks.harness import exports
from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import table
from tflite_export import ExportError
from train.models import builders

BITS = (8, 4, 2, 3, 6, 5, 7)
_TARGETS = ("cpu_float", "min_size", "cpu_int8")
_FRAMES, _FEATURES, _WORDS = 49, 10, 12


def measure(samples: int = 2) -> dict[str, Any]:
    """Exports every network for every target.

    Args:
        samples: Random inputs to calibrate and verify with.

    Returns:
        Coverage, bytes, differences and seconds, JSON values.
    """
    runs = []
    for name, build in _networks().items():
        keras.utils.set_random_seed(0)
        model = build()
        _as_if_trained(model)
        start = time.monotonic()
        qmodel = msq_tf.quantize_model(model, _config(name))
        qmodel.set_bits(
            dict(zip(qmodel.bits, itertools.cycle(BITS), strict=False))
        )
        report = msq_tf.precision_report(qmodel)
        matrices = sum(w.size for w in qmodel.skipped_weights())
        rng = np.random.default_rng(0)
        shape = (samples, *model.input_shape[1:])
        inputs = rng.normal(size=shape).astype(np.float32)
        prepared = time.monotonic() - start
        files = [_export(qmodel, target, inputs) for target in _TARGETS]
        runs.append(
            {
                "model": name,
                "input": list(model.input_shape[1:]),
                "parameters": model.count_params(),
                "quantized": sum(qmodel.sizes),
                "left_in_float": matrices,
                "products": report.products,
                "prepare_s": prepared,
                "files": files,
            }
        )
    return {"bits": list(BITS), "seed": 0, "samples": samples, "runs": runs}


def _networks() -> dict[str, Callable[[], keras.Model]]:
    networks: dict[str, Callable[[], keras.Model]] = {
        name: lambda n=name: builders.build(n, (32, 32, 3), 10)  # type: ignore[misc]
        for name in ("vit_micro", "swin_micro")
    }
    networks |= _from_hub()
    networks["GRU, loop"] = lambda: _spotter(keras.layers.GRU)
    networks["GRU, unrolled"] = lambda: _spotter(keras.layers.GRU, unroll=True)
    networks["LSTM, loop"] = lambda: _spotter(keras.layers.LSTM)
    networks["Conv1D"] = _convolutional
    for name in ("deit_tiny", "swin_tiny"):
        networks[name] = lambda n=name: builders.build(  # type: ignore[misc]
            n, (224, 224, 3), 1000
        )
    return networks


def _from_hub() -> dict[str, Callable[[], keras.Model]]:
    """KerasHub's backbones, of DeiT-Tiny's width, where it is installed."""
    try:
        keras_hub = importlib.import_module("keras_hub")
    except ImportError:
        return {}
    size = {
        "image_shape": (64, 64, 3),
        "patch_size": 16,
        "num_layers": 4,
        "num_heads": 3,
        "hidden_dim": 192,
    }
    return {
        "KerasHub ViT": lambda: keras_hub.models.ViTBackbone(
            mlp_dim=768, **size
        ),
        "KerasHub DeiT": lambda: keras_hub.models.DeiTBackbone(
            intermediate_dim=768, **size
        ),
    }


def _config(name: str) -> msq_tf.MSQConfig:
    """One scale for positions that are an operand of an integer addition."""
    if name != "KerasHub ViT":
        return msq_tf.MSQConfig()
    layer = msq_tf.LayerConfig(granularity=msq_tf.PerTensor())
    return msq_tf.MSQConfig(overrides={".*position_embedding": layer})


def _spotter(layer: Callable[..., Any], **options: Any) -> keras.Model:
    """A keyword spotter on 49 frames of 10 cepstral coefficients."""
    inputs = keras.Input((_FRAMES, _FEATURES), name="mfcc")
    x = layer(64, name="cell", **options)(inputs)
    return keras.Model(inputs, keras.layers.Dense(_WORDS, name="words")(x))


def _convolutional() -> keras.Model:
    inputs = keras.Input((_FRAMES, _FEATURES), name="mfcc")
    x = keras.layers.Conv1D(64, 5, padding="same", use_bias=False)(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    for _ in range(3):
        x = keras.layers.SeparableConv1D(64, 5, padding="same")(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, keras.layers.Dense(_WORDS, name="words")(x))


def _as_if_trained(model: keras.Model) -> None:
    """Vectors, tokens and positions of a size that training gives them."""
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if not keras.backend.is_float_dtype(variable.dtype):
            continue
        name = variable.name
        if len(variable.shape) == 1 or "token" in name or "position" in name:
            one = name in ("gamma", "moving_variance")
            noise = rng.uniform(-0.3, 0.3, variable.shape)
            variable.assign(float(one) + noise)


def _export(
    qmodel: msq_tf.MSQModel, target: str, inputs: np.ndarray
) -> dict[str, Any]:
    start = time.monotonic()
    row: dict[str, Any] = {"target": target}
    try:
        report = exports.report(qmodel, target, inputs)
    except ExportError as error:
        row["refused"] = str(error).partition(". Expected")[0]
    else:
        row["bytes"] = report.file_bytes
        row["float_bytes"] = report.float_file_bytes
        row["units"] = max((c.max_units or 0) for c in report.checks)
        row["relative_error"] = max(c.relative_error for c in report.checks)
        row["notes"] = list(report.notes)
    row["seconds"] = time.monotonic() - start
    return row


def markdown(content: dict[str, Any]) -> str:
    """One row a network, and what was refused below it."""
    environment = content["environment"]
    rows, refusals, later = [], [], []
    for run in content["results"]["runs"]:
        share = run["quantized"] / (run["quantized"] + run["left_in_float"])
        size = next(
            (f"{f['float_bytes']:,}" for f in run["files"] if "bytes" in f), "-"
        )
        cells = []
        for file in run["files"]:
            name = f"{run['model']}, `{file['target']}`"
            if "date" in file:
                later.append(
                    f"- {name}: measured again alone, {file['date']}, on a "
                    "machine that was busy"
                )
            if "bytes" in file:
                cells.append(f"{file['bytes']:,}, {file['seconds']:.0f} s")
            else:
                cells.append("refused")
                refusals.append(f"- {name}: {file['refused']}")
        rows.append(
            (
                run["model"],
                "x".join(map(str, run["input"])),
                f"{run['parameters']:,}",
                f"{share:.2%}",
                str(run["products"]),
                size,
                *cells,
            )
        )
    columns = (
        "model",
        "input",
        "parameters",
        "quantized",
        "layers of products",
        "float bytes",
        *(f"`{target}`" for target in _TARGETS),
    )
    return page(
        f"LiteRT {environment['versions']['ai-edge-litert']}, "
        f"{environment['date']}, {environment['cores']} cores; seconds are of "
        "conversion and verification.",
        table(columns, rows, left=2),
        "Refused:" if refusals else "",
        refusals,
        later,
    )

"""What an export takes beside TensorFlow's own converter.

Each cell is a process of its own that has converted a small model before:
`tf.lite.TFLiteConverter` to floats, the same to integers with post-training
quantization over the same samples, and `export` for some targets, verified as
ever. Ratios are to the converter that makes a file of the same kind.
"""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import rich.console
import tensorflow as tf

import msq_tf
from benchmarks.files import large_run
from benchmarks.harness import child
from benchmarks.harness import exports
from benchmarks.harness import memory
from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import ran
from benchmarks.harness.markdown import table
from tflite_export import targets
from train.models import builders

FLOAT, INTEGER = "converter", "converter, int8"
SAMPLES = 64
_BITS = (8, 4, 2, 3, 6, 5, 7)
# Cells that an interrupted run has measured.
_CELLS = Path("out/export_cost")


def tiny() -> keras.Model:
    """A network of a thousand weights, for a microcontroller."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            layers.Conv2D(8, 3, strides=2, activation="relu"),
            layers.Conv2D(8, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(4, activation="softmax"),
        ]
    )


def dilated(steps: int = 10_000, layers: int = 39) -> keras.Model:
    """Dilated convolutions over a long sequence, as for audio."""
    inputs = keras.Input((steps, 1))
    x = inputs
    for number in range(layers):
        x = keras.layers.Conv1D(
            32,
            3,
            padding="same",
            dilation_rate=2 ** (number // 3 % 8),
            activation="relu",
        )(x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, keras.layers.Dense(4)(x))


def _resnet50() -> keras.Model:
    return keras.applications.ResNet50(weights=None, classifier_activation=None)


NETWORKS: dict[str, tuple[Callable[[], keras.Model], tuple[str, ...]]] = {
    "tiny": (tiny, ("min_size", "cpu_int8", "mcu")),
    "resnet8": (
        lambda: builders.build("resnet8", (32, 32, 3), 10),
        ("min_size", "cpu_int8", "mcu"),
    ),
    "mobilenet_v2": (
        lambda: builders.build("mobilenet_v2", (224, 224, 3), 1000),
        ("min_size", "cpu_int8"),
    ),
    "resnet50": (_resnet50, ("min_size", "cpu_int8")),
    "dilated, 10,000 steps": (dilated, ("min_size", "cpu_int8")),
    "transformer, 31 million": (
        lambda: large_run.network(432, 14),
        ("min_size", "cpu_int8"),
    ),
    "transformer, 99 million": (
        lambda: large_run.network(768, 14),
        ("min_size",),
    ),
}


def measure() -> list[dict[str, Any]]:
    """Measures every network, a process a cell.

    An interrupted run goes on where it was.

    Returns:
        One entry per network: name, parameters, and by kind seconds,
        processor seconds, MiB above the start, and bytes; JSON values.
    """
    console = rich.console.Console()
    found = []
    for name, (_, wanted) in NETWORKS.items():
        runs = {}
        for kind in (FLOAT, INTEGER, *wanted):
            console.print(f"{name}, {kind} ...")
            runs[kind] = child.measured_once(
                _CELLS, "benchmarks.files.export_cost", name, kind
            )
        found.append(
            {
                "name": name,
                "parameters": runs[FLOAT].pop("parameters"),
                "runs": runs,
            }
        )
    child.finished(_CELLS)
    return found


def run(name: str, kind: str) -> dict[str, Any]:
    """Measures one cell in this process.

    Args:
        name: A key of `NETWORKS`.
        kind: `FLOAT`, `INTEGER` or a target.
    """
    keras.utils.set_random_seed(0)
    # What a first conversion loads, and traces for ever, is not this one's.
    _prepared(tiny(), kind)()
    model = NETWORKS[name][0]()
    work = _prepared(model, kind)
    size, phase = memory.over(work)
    return {
        "parameters": model.count_params(),
        "seconds": phase["seconds"],
        "cpu_seconds": phase["cpu_seconds"],
        "above_mib": round(phase["peak_mib"] - phase["before_mib"], 1),
        "bytes": size,
    }


def _prepared(model: keras.Model, kind: str) -> Callable[[], int]:
    """What to measure: makes a file and returns its size."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(SAMPLES, *model.input_shape[1:])).astype(np.float32)
    if kind in (FLOAT, INTEGER):
        return lambda: _converted(model, x if kind == INTEGER else None)
    qmodel = msq_tf.quantize_model(model)
    widths = {p: _BITS[i % len(_BITS)] for i, p in enumerate(qmodel.paths)}
    qmodel.set_bits(widths)
    return lambda: exports.report(qmodel, kind, x).file_bytes


def _converted(model: keras.Model, samples: np.ndarray | None) -> int:
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if samples is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.TFLITE_BUILTINS_INT8
        ]
        converter.representative_dataset = lambda: (
            [sample[None]] for sample in samples
        )
    with (
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Statistics for quantized")
        return len(converter.convert())


def rivals(kind: str) -> str:
    """The converter's kind that a target is compared with."""
    return INTEGER if targets.load(kind).integer else FLOAT


def rows(results: list[dict[str, Any]]) -> list[list[str]]:
    """Cells of the table, in order."""
    found = []
    for entry in results:
        for kind, own in entry["runs"].items():
            ratios = [""] * 3
            if kind not in (FLOAT, INTEGER):
                plain = entry["runs"][FLOAT]
                alike = entry["runs"][rivals(kind)]
                ratios = [
                    _ratio(own, plain, "cpu_seconds"),
                    _ratio(own, alike, "cpu_seconds"),
                    _ratio(own, plain, "above_mib"),
                ]
            found.append(
                [
                    entry["name"],
                    kind,
                    f"{own['seconds']:.1f}",
                    f"{own['cpu_seconds']:.1f}",
                    f"{own['above_mib']:,.0f}",
                    f"{own['bytes']:,}",
                    *ratios,
                ]
            )
    return found


def _ratio(own: dict[str, Any], other: dict[str, Any], key: str) -> str:
    return f"{own[key] / other[key]:.1f}x"


COLUMNS = (
    "network",
    "file",
    "s",
    "processor s",
    "above, MiB",
    "bytes",
    "time / float converter",
    "time / converter of its kind",
    "memory / float converter",
)


def markdown(content: dict[str, Any]) -> str:
    """One line a file."""
    facts = ran(
        content["environment"],
        f"{SAMPLES} samples",
        "bits 2 to 8 cycling over the weights, a process a row",
    )
    return page(
        f"{facts}. *above* is the peak above the resident memory before:",
        table(COLUMNS, rows(content["results"]), left=2),
    )


def main(arguments: list[str]) -> int:
    """Measures one cell, and writes what was found."""
    name, kind, result = arguments
    child.write(result, run(name, kind))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

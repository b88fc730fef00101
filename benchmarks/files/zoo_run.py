"""Quantizes and exports one model of the zoo, in a process of its own.

    python -m benchmarks.files.zoo_run MODEL RESULT

`RESULT` is written anew after every step, so that whoever waits for the
process knows how far it came.
"""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

import msq_tf
from benchmarks.files.zoo_models import ROWS
from benchmarks.files.zoo_models import Row
from benchmarks.files.zoo_models import build
from benchmarks.files.zoo_models import images
from benchmarks.harness import child
from benchmarks.harness import exports
from benchmarks.harness import memory
from benchmarks.harness import processes
from tflite_export import differences

TARGETS = ("cpu_float", "min_size", "cpu_int8")
BITS = (8, 4, 2, 3, 6, 5, 7)
_SAMPLES = 8


def run(row: Row, result: Path) -> None:
    """Fills `result` step by step.

    Args:
        row: Which model.
        result: A JSON file.
    """
    entry: dict[str, Any] = {"name": row.name, "family": row.family}

    def note(**facts: Any) -> None:
        entry.update(facts)
        child.write(result, entry)

    model = build(row)
    inputs = images(row, _SAMPLES, seed=2)
    note(
        input=list(row.shape),
        pixels=[row.low, row.high],
        parameters=model.count_params(),
        built={"peak_mib": int(memory.peak())},
    )
    expected = model.predict(inputs, verbose=0)
    clock = Clock()
    qmodel = msq_tf.quantize_model(model)
    note(
        prepare=clock.read(),
        coverage=coverage(model, qmodel),
        forward=agreement(expected, qmodel.predict(inputs, verbose=0)),
        noise=agreement(expected, with_noise(qmodel, inputs)),
    )
    widths = itertools.cycle(BITS)
    qmodel.set_bits({path: next(widths) for path in qmodel.paths})
    note(average_bits=round(qmodel.average_bits, 3), exports={})
    for target in TARGETS:
        entry["exports"][target] = exported(qmodel, target, inputs)
        note()
    note(done=True)


def coverage(model: keras.Model, qmodel: msq_tf.MSQModel) -> dict[str, Any]:
    """How much of a model is quantized, counted without its table of layers.

    Returns:
        Elements of the variables with two or more axes but for biases (a
        projection to heads has one of two), elements of those that are
        quantized, how many tensors these are, and what was left out with its
        reason.
    """
    elements = sum(
        int(np.prod(v.shape))
        for v in model.weights
        if len(v.shape) > 1 and v.name != "bias"
    )
    return {
        "elements": elements,
        "quantized": sum(w.codes.size for w in qmodel.quantized_weights()),
        "tensors": len(qmodel.paths),
        "left_out": {s.path: s.reason for s in qmodel.skipped_weights()},
    }


def agreement(wanted: np.ndarray, got: np.ndarray) -> dict[str, float]:
    """Largest and mean difference, of the range of `wanted`, and top-1."""
    spread = differences.spread(wanted)
    difference = np.abs(got.astype(np.float64) - wanted)
    return {
        "range": spread,
        "largest": float(difference.max()) / spread,
        "mean": float(difference.mean()) / spread,
        "same_class": differences.agreement(got, wanted),
    }


def with_noise(qmodel: msq_tf.MSQModel, inputs: np.ndarray) -> np.ndarray:
    """What the float model computes with uniform noise on its weights.

    Up to one step of the grid, which is how far RoundClamp may be from a
    weight: what quantization does far beyond it would be wrong. How much of
    it arrives at the output is the model's doing.
    """
    rng = np.random.default_rng(0)
    trained = [kernel.numpy() for kernel in qmodel.kernels]
    weights = qmodel.quantized_weights()
    for kernel, weight in zip(qmodel.kernels, weights, strict=True):
        noise = rng.uniform(-1.0, 1.0, kernel.shape)
        kernel.assign_add(noise * weight.step)
    outputs = qmodel.base.predict(inputs, verbose=0)
    for kernel, value in zip(qmodel.kernels, trained, strict=True):
        kernel.assign(value)
    return outputs


def exported(
    qmodel: msq_tf.MSQModel, target: str, inputs: np.ndarray
) -> dict[str, Any]:
    """Exports for one target.

    Returns:
        What `exports.outcome` and the report say, and what it took.
    """
    clock = Clock()
    report, facts = exports.outcome(qmodel, target, inputs)
    if report is not None:
        facts |= {
            "bytes": report.file_bytes,
            "deflated_bytes": report.deflated_bytes,
            "float_bytes": report.float_file_bytes,
            "ideal_bytes": report.ideal_bytes,
            "checks": {
                check.kernels: check.relative_error
                for check in report.checks
                if check.ran
            },
            "notes": list(report.notes),
        }
    return facts | clock.read()


class Clock:
    """What a step takes; processor time holds on a busy machine, too."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._processor = time.process_time()

    def read(self) -> dict[str, float]:
        """Seconds since the start, and the peak of memory so far."""
        return {
            "seconds": round(time.perf_counter() - self._start, 2),
            "cpu_seconds": round(time.process_time() - self._processor, 2),
            "peak_mib": int(memory.peak()),
        }


if __name__ == "__main__":
    sys.exit(processes.run_one(ROWS, run, sys.argv[1:]))

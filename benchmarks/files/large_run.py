"""One part of what a large model takes, in this process alone.

    python -m benchmarks.files.large_run PART WIDTH DEPTH RESULT

`PART` is `float`, `msq` or `export`. A process never gives all memory back,
and TensorFlow's own is a part of it, so each part has one of its own, which has
run a small model before. Linux only.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np

import msq_tf
from benchmarks.harness import child
from benchmarks.harness import memory
from benchmarks.harness.networks import compiled
from tflite_export import export
from tflite_export.conversion.converter import Converter
from train.models import vit

SHAPE, CLASSES, HEADS, BATCH = (32, 32, 3), 10, 6, 2
TARGET = "min_size"
_BITS = (8, 4, 2, 3, 6, 5, 7)
_TRACED_STEPS, _STEPS, _DECISIONS = 2, 3, 3
_SMALL = (24, 1)


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes:
        build: Builds the float model.
        batch: Random examples and targets, of a number of them.
    """

    build: Callable[[], keras.Model]
    batch: Callable[[int], tuple[Any, np.ndarray]]


def network(width: int, depth: int) -> keras.Model:
    """A vision transformer on images of 16 patches."""
    keras.utils.set_random_seed(0)
    config = vit.ViTConfig(
        patch=8, width=width, depth=depth, heads=HEADS, distilled=False
    )
    return vit.vision_transformer(SHAPE, CLASSES, config, "vit")


def run(part: str, width: int, depth: int) -> dict[str, Any]:
    """Measures a part.

    Args:
        part: A key of `PARTS`.
        width: Features of a token.
        depth: Number of blocks.

    Returns:
        Parameters, bytes of the float weights and what each phase took; JSON
        values.
    """
    PARTS[part](Subject(lambda: network(*_SMALL), _batch))
    measured = PARTS[part](Subject(lambda: network(width, depth), _batch))
    return {"part": part, "width": width, "depth": depth, **measured}


def _float(subject: Subject) -> dict[str, Any]:
    model, phases = _built(subject)
    facts = _size(model)
    _steps(compiled(model), subject, phases)
    return {**facts, "phases": phases}


def _msq(subject: Subject) -> dict[str, Any]:
    model, phases = _built(subject)
    qmodel, phases["prepare"] = memory.over(
        lambda: msq_tf.quantize_model(model)
    )
    facts = {**_size(model), "weights": len(qmodel.paths)}
    compiled(qmodel)
    # As in the middle of a search, with every weight pulled.
    qmodel.search.lsb.assign([4] * len(qmodel.paths))
    qmodel.search.strength.assign(0.05)
    _steps(qmodel, subject, phases)
    qmodel.search.restart([8] * len(qmodel.paths))
    _, phases["search"] = memory.over(lambda: _search(qmodel, subject))
    state = qmodel.search.rule_state
    facts["decisions"] = int(state.decisions)
    facts["changes"] = len(qmodel.history_of_bits())
    return {**facts, "phases": phases}


def _search(qmodel: msq_tf.MSQModel, subject: Subject) -> None:
    x, y = subject.batch(BATCH * (_DECISIONS + 1))
    rule = msq_tf.BudgetRule(target_compression=8.0, end=1.0)
    callback = msq_tf.MSQCallback(
        rule, samples=BATCH, batch_size=BATCH, interval=1, max_probes=2
    )
    with warnings.catch_warnings():
        # A few decisions do not reach the target.
        warnings.filterwarnings("ignore", message="The search ended at")
        qmodel.fit(x, y, batch_size=BATCH, verbose=0, callbacks=[callback])


def _export(subject: Subject) -> dict[str, Any]:
    model, phases = _built(subject)
    qmodel = msq_tf.quantize_model(model)
    widths = {p: _BITS[i % len(_BITS)] for i, p in enumerate(qmodel.paths)}
    qmodel.set_bits(widths)
    parts = _Parts()
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(Converter, "convert", parts.convert()),
    ):
        report, whole = memory.over(
            lambda: export(
                qmodel,
                Path(folder) / "m.tflite",
                target=TARGET,
                representative_data=subject.batch(BATCH)[0],
            )
        )
    rest = max(parts.outside_mib, memory.peak(), whole["peak_mib"])
    phases["export"] = {
        **whole,
        "peak_mib": max(rest, parts.found["peak_mib"]),
        "peak_outside_mib": round(rest, 1),
        "converter": parts.found,
    }
    return {
        **_size(model),
        "phases": phases,
        "target": TARGET,
        "file_bytes": report.file_bytes,
        "float_file_bytes": report.float_file_bytes,
        "tensors": len(report.tensors),
        "relative_error": max(c.relative_error for c in report.checks),
    }


@dataclasses.dataclass
class _Parts:
    """Tells TensorFlow's converter from the rest of an export.

    Attributes:
        outside_mib: Peak outside of the converter so far.
        found: What its runs took, and how many they were.
    """

    outside_mib: float = 0.0
    found: dict[str, float] = dataclasses.field(default_factory=dict)

    def convert(self) -> Callable[..., bytes]:
        """A `Converter.convert` that is measured."""
        original = Converter.convert

        def measured(converter: Converter, *args: Any, **kwargs: Any) -> bytes:
            self.outside_mib = max(self.outside_mib, memory.peak())
            data, run = memory.over(
                lambda: original(converter, *args, **kwargs)
            )
            memory.reset_peak()
            first = self.found or dict.fromkeys(run, 0.0) | {
                "runs": 0,
                "before_mib": run["before_mib"],
            }
            self.found = {
                "runs": first["runs"] + 1,
                "seconds": round(first["seconds"] + run["seconds"], 2),
                "cpu_seconds": round(
                    first["cpu_seconds"] + run["cpu_seconds"], 2
                ),
                "before_mib": first["before_mib"],
                "peak_mib": max(first["peak_mib"], run["peak_mib"]),
                "after_mib": run["after_mib"],
            }
            return data

        return measured


def _built(subject: Subject) -> tuple[keras.Model, dict[str, Any]]:
    model, phase = memory.over(subject.build)
    return model, {"build": phase}


def _steps(model: Any, subject: Subject, phases: dict[str, Any]) -> None:
    """The first steps, with their tracing, and those that follow."""
    x, y = subject.batch(BATCH)

    def step(count: int) -> None:
        for _ in range(count):
            model.train_on_batch(x, y)

    _, phases["first steps"] = memory.over(lambda: step(_TRACED_STEPS))
    _, phases["step"] = memory.over(lambda: step(_STEPS))
    for key in ("seconds", "cpu_seconds"):
        phases["step"][key] = round(phases["step"][key] / _STEPS, 3)


def _batch(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, *SHAPE)).astype(np.float32)
    return x, rng.integers(0, CLASSES, count)


def _size(model: keras.Model) -> dict[str, Any]:
    count = model.count_params()
    return {"parameters": count, "float_mib": round(4 * count / 2**20, 1)}


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    "float": _float,
    "msq": _msq,
    "export": _export,
}


def main(arguments: list[str]) -> int:
    """Measures, and writes what was found."""
    part, width, depth, result = arguments
    found = run(part, int(width), int(depth))
    child.write(result, found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

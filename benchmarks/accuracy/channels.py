"""Accuracy at equal bytes with channels removed and without.

One float model, one number of steps for all rows. `plan_channels` removes
before the first of them, on training images; the widths follow with the same
rule. A device whose containers are wide has no widths that would help: there
channels are all that can go.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import msq_tf
from benchmarks.accuracy import run as accuracy_run
from benchmarks.accuracy.study import STUDIES
from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import ran
from benchmarks.harness.markdown import table
from msq_tf import atomic_files
from tflite_export import export
from train.data import batches
from train.data import datasets

STUDY = dataclasses.replace(STUDIES["fashion_mnist_mini"], name="channels")
SEEDS = (0, 1)
# Device, share of the bytes of the int8 file, and whether channels may go.
ROWS = (
    ("min_size", 1.0, False),
    ("min_size", 0.5, False),
    ("min_size", 0.5, True),
    ("min_size", 0.4, False),
    ("min_size", 0.4, True),
    ("min_size", 0.3, True),
    ("cpu_int8", 0.5, True),
)


def measure() -> dict[str, Any]:
    """Trains every row with every seed, or goes on where it stopped.

    Returns:
        The budget, and a record of each run; JSON values.
    """
    folder = accuracy_run.FOLDER / STUDY.name
    folder.mkdir(parents=True, exist_ok=True)
    accuracy_run.make_base(STUDY, folder)
    data = accuracy_run.load_data(STUDY)
    return {
        "budget": STUDY.budget(),
        "runs": [
            _kept(
                folder / f"{device}-{share}-{removes}-{seed}.json",
                functools.partial(
                    _run, data, folder, device, share, removes, seed
                ),
            )
            for seed in SEEDS
            for device, share, removes in ROWS
        ],
    }


def _kept(path: Path, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a run gave, also where a process before this one did it."""
    if not path.exists():
        with atomic_files.replacing(path) as partial:
            partial.write_text(json.dumps(run()))
    return json.loads(path.read_text())


def _run(
    data: datasets.ImageDataset,
    folder: Path,
    device: str,
    share: float,
    removes: bool,
    seed: int,
) -> dict[str, Any]:
    base = accuracy_run.float_model(STUDY, data)
    base.load_weights(folder / accuracy_run.BASE)
    model = msq_tf.quantize_model(base)
    images = batches.scaled(data.train.images[:512], STUDY.pixels)
    samples = images, data.train.labels[:512]
    whole = _file_bytes(model, device, images)
    steps = STUDY.epochs * STUDY.steps
    accuracy_run.compile_for(STUDY, model, STUDY.learning_rate, steps)
    rule = msq_tf.BudgetRule(target_bytes=int(whole * share), device=device)
    changes: list[dict[str, Any]] = []
    if removes:
        plan = msq_tf.plan_channels(model, rule, samples)
        changes = [dataclasses.asdict(change) for change in plan.changes]
        model = msq_tf.remove_channels(model, plan.channels)
        rule = plan.rule
        accuracy_run.compile_for(STUDY, model, STUDY.learning_rate, steps)
    keras.utils.set_random_seed(seed)
    fitted = datasets.Examples(
        data.train.images[: -STUDY.held_out],
        data.train.labels[: -STUDY.held_out],
    )
    searches = [msq_tf.MSQCallback(rule, samples)] if share < 1.0 else []
    model.fit(
        accuracy_run.training_data(STUDY, fitted, seed, 0),
        epochs=STUDY.epochs,
        steps_per_epoch=STUDY.steps,
        shuffle=False,
        verbose=2,
        callbacks=searches,
    )
    test = accuracy_run.test_data(STUDY, data, None)
    _, accuracy = model.evaluate(test, verbose=0)
    return {
        "device": device,
        "share": share,
        "removes": removes,
        "seed": seed,
        "accuracy": float(accuracy),
        "int8_bytes": whole,
        "bytes": _file_bytes(model, device, images),
        "weights": sum(model.sizes),
        "bits": model.bits,
        "changes": changes,
    }


def _file_bytes(model: msq_tf.MSQModel, device: str, images: Any) -> int:
    """Bytes of the verified file."""
    with tempfile.TemporaryDirectory() as folder:
        return export(
            model,
            Path(folder) / "model.tflite",
            target=device,
            representative_data=np.asarray(images)[:64],
            verbose=False,
        ).file_bytes


def rows(results: dict[str, Any]) -> list[list[str]]:
    """A line a row: bytes, weights and accuracy, means over the seeds."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for entry in results["runs"]:
        key = entry["device"], entry["share"], entry["removes"]
        found.setdefault(key, []).append(entry)
    return [
        [
            device,
            f"{share:.0%}",
            "and channels" if removes else "widths" if share < 1 else "8 bits",
            f"{statistics.fmean(e['bytes'] for e in entries):,.0f}",
            f"{statistics.fmean(e['weights'] for e in entries):,.0f}",
            f"{100 * statistics.fmean(e['accuracy'] for e in entries):.2f}",
            ", ".join(f"{100 * e['accuracy']:.2f}" for e in entries),
        ]
        for (device, share, removes), entries in found.items()
    ]


def markdown(content: dict[str, Any]) -> str:
    """Bytes of files and test accuracy."""
    results = content["results"]
    budget = results["budget"]
    seeds = len({entry["seed"] for entry in results["runs"]})
    facts = ran(
        content["environment"],
        f"ResNet-8 on {budget['dataset']}",
        f"{budget['epochs']} x {budget['steps']} steps of "
        f"{budget['batch_size']}",
        f"{seeds} seed{'s' * (seeds > 1)}",
    )
    return page(
        f"{facts}, weights quantized and activations in float. The target is "
        "a share of the bytes of the int8 file; files are verified. Test "
        "accuracy in percent:",
        table(
            ("device", "target", "what goes")
            + ("bytes", "weights", "accuracy", "by seed"),
            rows(results),
            left=3,
        ),
    )

"""What the remedies for a fallen accuracy are worth, one at a time.

A fine-tuning that goes wrong in four ways at once: a learning rate that repairs
nothing, few epochs, a size that is too small, and 8-bit activations that no
training saw. Each row mends some of it; nothing else changes.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import rich.table

import msq_tf
from benchmarks.harness import tables
from benchmarks.harness.compiling import compiled
from tflite_export import export
from tflite_export import run as run_file
from train.data import datasets
from train.models import builders

SEEDS = (0, 1)
_DATA = "fashion_mnist_mini"
_BASE_EPOCHS = 8
_BATCH = 128
_KEPT = 64


@dataclasses.dataclass(frozen=True)
class Remedy:
    """One way to fine-tune.

    Attributes:
        name: What is done.
        rate: First learning rate, which falls to zero as a cosine.
        epochs: Epochs of fine-tuning.
        compression: Size that is asked for.
        activation_bits: As `MSQConfig` takes it.
        first: Least bits of the first and last layer.
        scale: As `MSQConfig` takes it.
    """

    name: str
    rate: float = 0.0002
    epochs: int = 2
    compression: float = 14.0
    activation_bits: int | None = None
    first: int | None = None
    scale: str = "max"


FALLEN = Remedy("as it fell")
REMEDIES = (
    FALLEN,
    Remedy("trained ranges", activation_bits=8),
    Remedy("a higher learning rate", rate=0.02),
    Remedy("three times the epochs", epochs=6),
    Remedy("less compression", compression=8.0),
    Remedy("8 bits for the first and last layer", first=8),
    Remedy("learned scales", scale="learned"),
    Remedy("rate, epochs and ranges", rate=0.02, epochs=6, activation_bits=8),
    Remedy(
        "all but less compression",
        rate=0.02,
        epochs=6,
        activation_bits=8,
        first=8,
        scale="learned",
    ),
)
COLUMNS = (
    "what was done",
    "compression",
    "Keras, %",
    "min_size, %",
    "cpu_int8, %",
    "least and most of cpu_int8",
)


def measure() -> dict[str, Any]:
    """Trains a float model, and fine-tunes it in every way.

    Returns:
        The float model's accuracy, and by remedy a list over seeds of
        accuracies of the model and its files; JSON values.
    """
    data = datasets.load(_DATA)
    (x, y), (held, labels) = (
        (part.images.astype("float32") / 255, part.labels)
        for part in (data.train, data.test)
    )
    keras.utils.set_random_seed(0)
    model = builders.build("resnet8", data.image_shape, data.classes)
    _fit(model, 0.1, _BASE_EPOCHS, x, y)
    weights = model.get_weights()
    rows: dict[str, list[dict[str, float]]] = {}
    for remedy in REMEDIES:
        for seed in SEEDS:
            keras.utils.set_random_seed(seed)
            model.set_weights(weights)
            print(f"{remedy.name}, seed {seed} ...", flush=True)
            rows.setdefault(remedy.name, []).append(
                _fine_tuned(remedy, model, x, y, held, labels)
            )
    model.set_weights(weights)
    return {
        "float": _accuracy(model.predict(held, verbose=0), labels),
        "rows": rows,
    }


def _fine_tuned(
    remedy: Remedy,
    model: keras.Model,
    x: np.ndarray,
    y: np.ndarray,
    held: np.ndarray,
    labels: np.ndarray,
) -> dict[str, float]:
    least = msq_tf.LayerConfig(min_bits=remedy.first or 2)
    paths = msq_tf.quantize_model(keras.models.clone_model(model)).paths
    config = msq_tf.MSQConfig(
        activation_bits=remedy.activation_bits,
        scale=remedy.scale,
        overrides={paths[0]: least, paths[-1]: least},
    )
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    qmodel = msq_tf.quantize_model(copy, config)
    rule = msq_tf.BudgetRule(
        target_compression=remedy.compression, device="min_size"
    )
    search = msq_tf.MSQCallback(rule, verbose=0)
    _fit(qmodel, remedy.rate, remedy.epochs, x, y, [search])
    found = {
        "compression": qmodel.compression,
        "keras": _accuracy(qmodel.predict(held, verbose=0), labels),
    }
    with tempfile.TemporaryDirectory() as folder:
        for target in ("min_size", "cpu_int8"):
            path = Path(folder, f"{target}.tflite")
            export(
                qmodel,
                path,
                target,
                representative_data=x[:_KEPT],
                min_agreement=0.0,
                verbose=False,
            )
            found[target] = _accuracy(run_file(path, held), labels)
    return found


def _fit(
    model: Any,
    rate: float,
    epochs: int,
    x: np.ndarray,
    y: np.ndarray,
    callbacks: Any = (),
) -> None:
    steps = epochs * -(-len(x) // _BATCH)
    decay = keras.optimizers.schedules.CosineDecay(rate, steps)
    compiled(model, decay).fit(
        x, y, _BATCH, epochs, verbose=0, callbacks=list(callbacks)
    )


def _accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(scores.argmax(-1) == labels))


def rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """Cells of the table, in order: means over seeds."""
    plain = f"{100 * results['float']:.2f}"
    found = [("float", "1.00x", plain, "", "", "")]
    for name, runs in results["rows"].items():
        mean = {
            key: statistics.mean(run[key] for run in runs) for key in runs[0]
        }
        values = sorted(run["cpu_int8"] for run in runs)
        found.append(
            (
                name,
                f"{mean['compression']:.2f}x",
                *(
                    f"{100 * mean[key]:.2f}"
                    for key in ("keras", "min_size", "cpu_int8")
                ),
                f"{100 * values[0]:.2f}..{100 * values[-1]:.2f}",
            )
        )
    return found


def table(results: dict[str, Any]) -> rich.table.Table:
    """One line a remedy."""
    return tables.filled("What helps", COLUMNS, rows(results))

"""Trains one row of an accuracy study with one seed, resumably.

    python -m benchmarks.accuracy.run STUDY ROW SEED FOLDER

Everything the run computes is in its folder: a kill costs at most the epoch
that was under way. The last file written is `result.json`.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import msq_tf
from benchmarks.accuracy import methods
from benchmarks.accuracy.study import DATA
from benchmarks.accuracy.study import EXTRA
from benchmarks.accuracy.study import MODELS
from benchmarks.accuracy.study import STUDIES
from benchmarks.accuracy.study import Row
from benchmarks.accuracy.study import Study
from msq_tf import atomic_files
from train.data import batches
from train.data import datasets
from train.folder import checkpoints
from train.folder.workspace import Workspace
from train.models import builders

RESULT = "result.json"
FOLDER = Path("out/accuracy")
BASE = "base.weights.h5"
_KEPT = "kept"
# By name in a `Row`, at a learning rate or schedule.
OPTIMIZERS: dict[str, Callable[[Any], keras.optimizers.Optimizer]] = {
    "SGD": lambda rate: keras.optimizers.SGD(rate, momentum=0.9),
    "Adam": keras.optimizers.Adam,
    "AdamW": keras.optimizers.AdamW,
    "Lion": keras.optimizers.Lion,
}


def missing(study: Study) -> str:
    """Why a study cannot run here; empty when it can."""
    pretrained = study.pretrained and MODELS / study.pretrained
    if pretrained and not pretrained.exists():
        return f"the pretrained model {pretrained.name} is not at hand"
    folders = (datasets.EMBEDDED, DATA)
    if not any((folder / study.dataset).is_dir() for folder in folders):
        return f"the data set {study.dataset} is not at hand"
    return ""


def load_data(study: Study) -> datasets.ImageDataset:
    """The study's data set, from `DATA` where it is not embedded.

    The decoded images are kept for the runs that follow.
    """
    cache = FOLDER / study.name / "data.npz"
    if not cache.exists():
        folder = None if (datasets.EMBEDDED / study.dataset).is_dir() else DATA
        data = datasets.load(study.dataset, folder and str(folder))
        with atomic_files.replacing(cache) as partial:
            np.savez(
                partial,
                name=data.name,
                classes=data.classes,
                **{
                    f"{split}_{field}": getattr(getattr(data, split), field)
                    for split in ("train", "test")
                    for field in ("images", "labels")
                },
            )
    with np.load(cache) as arrays:
        return datasets.ImageDataset(
            str(arrays["name"]),
            int(arrays["classes"]),
            *(
                datasets.Examples(
                    arrays[f"{split}_images"], arrays[f"{split}_labels"]
                )
                for split in ("train", "test")
            ),
        )


def float_model(study: Study, data: datasets.ImageDataset) -> keras.Model:
    """The float model before its fine-tuning: pretrained, or fresh."""
    if study.pretrained is not None:
        return keras.models.load_model(MODELS / study.pretrained, compile=False)
    keras.utils.set_random_seed(0)
    return builders.build(study.model, data.image_shape, data.classes)


def make_base(study: Study, folder: Path) -> None:
    """Trains the float baseline that all rows start from, once."""
    path = folder / BASE
    if path.exists():
        return
    data = load_data(study)
    model = float_model(study, data)
    steps = batches.steps_per_epoch(data.train, study.batch_size)
    compile_for(
        study, model, study.base_learning_rate, study.base_epochs * steps
    )
    workspace = Workspace(folder)
    done = checkpoints.restore(workspace, "base", model)
    model.fit(
        training_data(study, data.train, 0, done * steps),
        epochs=study.base_epochs,
        initial_epoch=done,
        steps_per_epoch=steps,
        shuffle=False,
        verbose=2,
        callbacks=[checkpoints.EpochCheckpoint(workspace, "base")],
    )
    with workspace.replacing(BASE) as partial:
        model.save_weights(partial)


def run(study: Study, row: Row, seed: int, folder: Path) -> dict[str, Any]:
    """Fine-tunes one row, or goes on where it stopped.

    Args:
        study: Data, model and budget.
        row: How to fine-tune.
        seed: Seed of the data's order and augmentation.
        folder: Folder of this run, below that of the study's baseline.

    Returns:
        The run's settings and the final figures, as JSON.
    """
    data = load_data(study)
    base = float_model(study, data)
    base.load_weights(folder.parent / BASE)
    model, callbacks = _prepared(study, row, base, data)
    rate = row.rate or study.learning_rate
    steps = study.epochs * study.steps
    method = methods.METHODS[row.method](model, steps)
    compile_for(study, model, rate, steps, row.optimizer, method.factors)
    _, untrained = model.evaluate(test_data(study, data, None), verbose=0)
    workspace = Workspace(folder)
    keras.utils.set_random_seed(seed)
    # What a method keeps from step to step is in no checkpoint.
    done = 0
    kept: list[keras.callbacks.Callback] = [*method.callbacks]
    if not row.method:
        done = checkpoints.restore(workspace, "fine", model)
        kept = [checkpoints.EpochCheckpoint(workspace, "fine")]
    fitted = datasets.Examples(
        data.train.images[: -study.held_out],
        data.train.labels[: -study.held_out],
    )
    watched = test_data(study, data, study.watched)
    if len(row.stages) > 1:
        # No choice is made by what is measured on.
        held_out = _held_out(study, data)
        watched = batches.test_batches(held_out, 500, study.pixels)
        kept.insert(0, msq_tf.ParetoCheckpoint(folder / _KEPT))
    start, processor = time.perf_counter(), time.process_time()
    model.fit(
        training_data(study, fitted, seed, done * study.steps),
        epochs=study.epochs,
        initial_epoch=done,
        steps_per_epoch=study.steps,
        shuffle=False,
        verbose=2,
        validation_data=watched,
        callbacks=[*callbacks, *kept],
    )
    seconds = time.perf_counter() - start
    processor = time.process_time() - processor
    loss, accuracy = model.evaluate(test_data(study, data, None), verbose=0)
    if isinstance(model, msq_tf.MSQModel):
        images = batches.scaled(fitted.images[:2048], study.pixels)
        msq_tf.reestimate_batch_norm(model, images)
    _, reestimated = model.evaluate(test_data(study, data, None), verbose=0)
    result = {
        "row": dataclasses.asdict(row),
        "seed": seed,
        "accuracy": float(accuracy),
        "untrained": float(untrained),
        "reestimated": float(reestimated),
        "loss": float(loss),
        "seconds": round(seconds, 1),
        "processor_seconds": round(processor, 1),
        **_precision(model),
    }
    if len(row.stages) > 1:
        result["front"] = [
            {
                "epoch": entry.epoch,
                "compression": entry.compression,
                "accuracy": float(
                    entry.load().evaluate(
                        test_data(study, data, None), verbose=0
                    )[1]
                ),
            }
            for entry in msq_tf.pareto_front(folder / _KEPT)
        ]
    workspace.write_json(RESULT, result)
    return result


def _prepared(
    study: Study, row: Row, base: keras.Model, data: datasets.ImageDataset
) -> tuple[keras.Model, list[keras.callbacks.Callback]]:
    """The model of a row, and what searches its bits."""
    if row.target is None and row.bits is None:
        return base, []
    qmodel = msq_tf.quantize_model(
        base,
        msq_tf.MSQConfig(
            start_bits=row.bits or 8,
            quantizer=row.quantizer,
            scale=row.scale,
        ),
    )
    if row.target is None:
        return qmodel, []
    rule: Any = msq_tf.BudgetRule(
        target_compression=row.target,
        most=row.most,
        growth=row.growth,
        stages=row.stages,
        allowed_bits=range(2, 9),
    )
    if row.rule == "threshold":
        rule = msq_tf.ThresholdRule(
            target_compression=row.target, most=row.most, alpha=row.alpha
        )
    held_out = _held_out(study, data)
    images = batches.scaled(data.train.images[:512], study.pixels)
    search = msq_tf.MSQCallback(
        rule,
        data=(images, data.train.labels[:512]),
        held_out=(
            batches.scaled(held_out.images, study.pixels),
            held_out.labels,
        ),
        hessian=row.hessian,
        ranking=row.ranking,
        lsb_strength=row.lsb_strength,
    )
    return qmodel, [search]


def _precision(model: keras.Model) -> dict[str, Any]:
    if not isinstance(model, msq_tf.MSQModel):
        return {"compression": 1.0, "average_bits": 32.0}
    report = json.loads(msq_tf.precision_report(model).to_json())
    return {
        "compression": model.compression,
        "average_bits": model.average_bits,
        "layers": [
            {key: layer[key] for key in ("path", "size", "bits", "trace")}
            for layer in report["layers"]
        ],
    }


def training_data(
    study: Study, examples: datasets.Examples, seed: int, skip: int
) -> Any:
    """Batches of training, in an order that follows from the seed."""
    steps = batches.steps_per_epoch(examples, study.batch_size)
    total = max(study.base_epochs * steps, study.epochs * study.steps)
    return batches.training_batches(
        examples,
        study.batch_size,
        range(-(-total // steps)),
        seed,
        batches.Augmentation(study.shift, flip=True),
        study.pixels,
    ).skip(skip)


def test_data(
    study: Study, data: datasets.ImageDataset, count: int | None
) -> Any:
    """Batches of the first `count` test examples; `None` for all."""
    examples = datasets.Examples(
        data.test.images[:count], data.test.labels[:count]
    )
    return batches.test_batches(examples, 500, study.pixels)


def _held_out(study: Study, data: datasets.ImageDataset) -> datasets.Examples:
    """The training examples that no row is trained on."""
    return datasets.Examples(
        data.train.images[-study.held_out :],
        data.train.labels[-study.held_out :],
    )


def compile_for(
    study: Study,
    model: keras.Model,
    learning_rate: float,
    steps: int,
    optimizer: str = "SGD",
    factors: bool = False,
) -> None:
    """Compiles a model for a study, the rate falling to zero.

    Args:
        study: Whose losses and metrics these are.
        model: The model.
        learning_rate: Start of the schedule.
        steps: Its length.
        optimizer: A key of `OPTIMIZERS`.
        factors: Whether the rate has a factor for each quantized weight.
    """
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    logits = study.pretrained is None
    made = OPTIMIZERS[optimizer](schedule)
    model.compile(
        methods.with_factors(made, model) if factors else made,
        keras.losses.SparseCategoricalCrossentropy(from_logits=logits),
        metrics=["accuracy"],
    )


def main(arguments: list[str]) -> int:
    """Runs what the command line names: a row and seed, or `base`."""
    name, row_name, seed, folder = arguments
    study = (STUDIES | {study.name: study for study in EXTRA})[name]
    if row_name == "base":
        make_base(study, Path(folder))
    else:
        row = next(row for row in study.rows if row.name == row_name)
        run(study, row, int(seed), Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

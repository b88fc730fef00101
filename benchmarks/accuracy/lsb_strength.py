"""How strongly to pull LSBs: a sweep of the regularizer's lambda.

One float ResNet-8 on the embedded data set, fine-tuned with MSQ from the
same weights at several strengths and targets, over seeds. The unit of the
strength is that of `LSBRegularizer`: with SGD's learning rate of 0.02, a
strength of 0.5 moves a weight by a hundredth of a coarse bin per step.
"""

from __future__ import annotations

import statistics
from typing import Any

import keras
import rich.progress
import rich.table

import msq_tf
from benchmarks.harness import tables
from benchmarks.harness.compiling import compiled
from train import recipes
from train.data import batches
from train.data import datasets
from train.models import builders

_DATASET = "fashion_mnist_mini"
_STRENGTHS = (0.0, 0.05, 0.2, 1.0)
_TARGETS = (8.0, 12.0)
_SEEDS = (0, 1, 2)
_FLOAT_EPOCHS = 6
_EPOCHS = 4
_PIXELS = "unit"


def measure() -> dict[str, Any]:
    """Fine-tunes at every strength, target and seed.

    Returns:
        Accuracies and the LSB shares at the last decision, JSON values.
    """
    data = datasets.load(_DATASET)
    recipe = recipes.for_dataset(_DATASET)
    float_model = builders.build("resnet8", data.image_shape, data.classes)
    _train(float_model, data, recipe, _FLOAT_EPOCHS, 0.1, seed=0)
    start = float_model.get_weights()
    runs = []
    grid = [
        (target, strength, seed)
        for target in _TARGETS
        for strength in _STRENGTHS
        for seed in _SEEDS
    ]
    for target, strength, seed in rich.progress.track(grid, "fine-tuning"):
        float_model.set_weights(start)
        qmodel = msq_tf.quantize_model(float_model)
        callback = msq_tf.MSQCallback(
            msq_tf.BudgetRule(
                target_compression=target, allowed_bits=range(2, 9)
            ),
            data=_sensitivity_data(data),
            lsb_strength=strength,
        )
        accuracy = _train(qmodel, data, recipe, _EPOCHS, 0.02, seed, [callback])
        runs.append(
            {
                "target": target,
                "strength": strength,
                "seed": seed,
                "accuracy": accuracy,
                "compression": qmodel.compression,
                "lsb_nonzero": float(qmodel.search.lsb_nonzero.numpy().mean()),
                "bits": qmodel.bits,
            }
        )
    float_model.set_weights(start)
    return {
        "dataset": data.name,
        "model": "resnet8",
        "float_epochs": _FLOAT_EPOCHS,
        "epochs": _EPOCHS,
        "learning_rate": 0.02,
        "float_accuracy": _evaluate(float_model, data),
        "runs": runs,
    }


def _sensitivity_data(data: datasets.ImageDataset) -> tuple[Any, Any]:
    train = data.train
    return batches.scaled(train.images[:256], _PIXELS), train.labels[:256]


def _train(
    model: Any,
    data: datasets.ImageDataset,
    recipe: recipes.Recipe,
    epochs: int,
    learning_rate: float,
    seed: int,
    callbacks: Any = (),
) -> float:
    keras.utils.set_random_seed(seed)
    steps = batches.steps_per_epoch(data.train, recipe.batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(
        learning_rate, epochs * steps
    )
    compiled(model, schedule).fit(
        batches.training_batches(
            data.train,
            recipe.batch_size,
            range(epochs),
            seed,
            batches.Augmentation(recipe.shift, recipe.flip),
            _PIXELS,
        ),
        epochs=epochs,
        steps_per_epoch=steps,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    )
    return _evaluate(model, data)


def _evaluate(model: Any, data: datasets.ImageDataset) -> float:
    images = batches.scaled(data.test.images, _PIXELS)
    if model.optimizer is None:
        model.compile(metrics=["accuracy"])
    return float(model.evaluate(images, data.test.labels, verbose=0)[-1])


def table(results: dict[str, Any]) -> rich.table.Table:
    """Mean and spread over seeds at each target and strength."""
    view = tables.filled(
        f"Strength of the LSB pull, {results['model']} on "
        f"{results['dataset']}, float "
        f"{100 * results['float_accuracy']:.2f} %",
        ("target", "strength", "accuracy %", "min..max", "LSB≠0"),
        left=0,
    )
    groups: dict[tuple[float, float], list[dict[str, Any]]] = {}
    for run in results["runs"]:
        groups.setdefault((run["target"], run["strength"]), []).append(run)
    for (target, strength), runs in groups.items():
        values = [100 * run["accuracy"] for run in runs]
        view.add_row(
            f"{target:g}x",
            f"{strength:g}",
            f"{statistics.mean(values):.2f}",
            f"{min(values):.2f}..{max(values):.2f}",
            f"{statistics.mean(run['lsb_nonzero'] for run in runs):.2f}",
        )
    return view

"""One training on several numbers of devices: how fast the weights part.

    python -m benchmarks.reliability.replicas_run DTYPE RESULT

In a process of its own, for `DTYPE` is the width of a float in all of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import msq_tf
from benchmarks.harness import child
from msq_tf.core import search_state
from train import phases
from train.data import batches
from train.data import datasets
from train.models import builders

# Runs by name: number of devices, and whether every weight starts a unit in
# the last place higher.
RUNS = {
    "one": (1, False),
    "nudged": (1, True),
    "two": (2, False),
}
BATCH, FLOAT_EPOCHS, EPOCHS = 64, 3, 4
STEPS = (1, 2, 5, 10, 20, 50, 100, 120, 130, 170, 220, 280)
_SEED = 0


def use_float64() -> None:
    """Has Keras and msq_tf, which names float32, compute in float64."""
    keras.config.set_floatx("float64")
    tf.float32 = tf.float64
    for table in (search_state.PER_WEIGHT, search_state.SHARED):
        for name, (shape, dtype) in table.items():
            if dtype == "float32":
                table[name] = (shape, "float64")


@dataclasses.dataclass
class Trained:
    """What came out of a run."""

    weights: list[np.ndarray]
    changes: list[list[Any]]
    bits: list[int]
    compression: float


def examples() -> datasets.Examples:
    """Small images: every second row and column of Fashion-MNIST's."""
    train = datasets.load("fashion_mnist_mini", train_examples=2560).train
    images = np.ascontiguousarray(train.images[:, ::2, ::2])
    return dataclasses.replace(train, images=images)


def trained(train: datasets.Examples, devices: int, nudged: bool) -> Trained:
    """Trains a ResNet-8 from scratch, then with MSQ, as `train` does."""
    keras.utils.set_random_seed(_SEED)
    strategy = None
    if devices > 1:
        strategy = tf.distribute.MirroredStrategy(
            [f"CPU:{i}" for i in range(devices)],
            tf.distribute.ReductionToOneDevice(),
        )

    def scope():
        return strategy.scope() if strategy else contextlib.nullcontext()

    steps = len(train) // BATCH
    weights: list[np.ndarray] = []

    def fit(model, variables, epochs, *callbacks):
        model.fit(
            batches.training_batches(
                train,
                BATCH,
                range(epochs),
                _SEED,
                batches.Augmentation(),
                "unit",
            ),
            epochs=epochs,
            steps_per_epoch=steps,
            shuffle=False,
            verbose=0,
            callbacks=[
                *callbacks,
                keras.callbacks.LambdaCallback(
                    on_train_batch_end=lambda batch, logs: weights.append(
                        np.concatenate([v.numpy().ravel() for v in variables])
                    )
                ),
            ],
        )

    _, height, width, channels = train.images.shape
    with scope():
        model = builders.build("resnet8", (height, width, channels), 10)
        _compile(model, 0.1, FLOAT_EPOCHS * steps, warm_up=steps)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
    draws = np.random.default_rng(_SEED)
    for variable in model.trainable_variables:
        if len(variable.shape) > 1:
            scale = np.sqrt(2.0 / np.prod(variable.shape[:-1]))
            # The same numbers whatever the width of a float.
            value = (draws.normal(size=variable.shape) * scale).astype(
                "float32"
            )
            value = value.astype(keras.config.floatx())
            if nudged:
                value = np.nextafter(value, np.full_like(value, np.inf))
            variable.assign(value)
    fit(model, model.trainable_variables, FLOAT_EPOCHS)
    with scope():
        qmodel = msq_tf.quantize_model(model)
        _compile(qmodel, 0.02, EPOCHS * steps)
    index = phases.spread(len(train), 256)
    data = (
        batches.scaled(train.images[index], "unit"),
        tf.constant(train.labels[index]),
    )
    rule = msq_tf.BudgetRule(target_compression=8.0)
    search = msq_tf.MSQCallback(rule, data=data)
    fit(qmodel, model.trainable_variables, EPOCHS, search)
    return Trained(
        weights,
        [list(change[:5]) for change in qmodel.history_of_bits()],
        list(qmodel.bits.values()),
        float(qmodel.compression),
    )


def _compile(
    model: keras.Model, rate: float, steps: int, warm_up: int = 0
) -> None:
    schedule = keras.optimizers.schedules.CosineDecay(
        0.1 * rate if warm_up else rate,
        steps - warm_up,
        warmup_target=rate if warm_up else None,
        warmup_steps=warm_up,
    )
    model.compile(
        keras.optimizers.SGD(
            schedule, momentum=0.9, nesterov=True, weight_decay=5e-4
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )


def compared(run: Trained, one: Trained) -> dict[str, Any]:
    """What a run has in common with that on one device."""
    same = 0
    for mine, theirs in zip(run.changes, one.changes, strict=False):
        # Step, path, old and new width.
        if [mine[0], *mine[2:]] != [theirs[0], *theirs[2:]]:
            break
        same += 1
    pairs = zip(run.weights, one.weights, strict=True)
    apart = [float(np.abs(a - b).max()) for a, b in pairs]
    return {
        "compression": round(run.compression, 2),
        "bits": run.bits,
        "changes": len(run.changes),
        "first_changes_in_common": same,
        "apart": {step: apart[step - 1] for step in STEPS},
    }


def main(arguments: list[str]) -> int:
    """Trains all runs and writes, after each, how they compare."""
    dtype, result = arguments
    if dtype == "float64":
        use_float64()
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()]
        * max(devices for devices, _ in RUNS.values()),
    )
    tf.config.experimental.enable_op_determinism()
    train = examples()
    found: dict[str, Any] = {}
    one: Trained | None = None
    for name, options in RUNS.items():
        run = trained(train, *options)
        one = one or run
        found[name] = compared(run, one)
        child.write(result, found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The two phases of training: float, then quantized with MSQ."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Sequence

import keras
import numpy as np
import rich.console
import tensorflow as tf

import msq_tf
from msq_tf.decider import search_stats
from msq_tf.loading import load_model
from msq_tf.overlay import child_layers
from msq_tf.round_clamp import MAX_BITS
from msq_tf.round_clamp import MIN_BITS
from train import batches
from train import checkpoints
from train import loop
from train import models
from train import seals
from train import targets
from train.datasets import ImageDataset
from train.distribution import Distribution
from train.diverged import StopAtNaN
from train.progress import WORDS
from train.progress import EpochProgress
from train.recipes import Recipe
from train.settings import Settings
from train.workspace import FLOAT_MODEL
from train.workspace import MODEL
from train.workspace import Workspace

# Examples on which MSQ measures the sensitivity of the layers.
_SENSITIVITY_EXAMPLES = 256
# Flag of the learning rate, by phase.
_RATES = {"float": "float_learning_rate", "msq": "learning_rate"}
# Share of the first learning rate at which warm-up starts.
_WARM_UP_START = 0.1


@dataclasses.dataclass(frozen=True)
class Context:
    """What both phases work with."""

    settings: Settings
    data: ImageDataset
    workspace: Workspace
    console: rich.console.Console
    distribution: Distribution = dataclasses.field(default_factory=Distribution)


def check(context: Context) -> keras.Model | None:
    """Refuses now what would be refused once the float model is trained.

    Args:
        context: The run, whose folder need not be there yet.

    Returns:
        The model to train; `None` where a trained one is there.

    Raises:
        ValueError: If the model cannot be built or loaded, does not classify
            this data set, cannot be quantized or run on a target, or cannot
            reach the compression asked for.
    """
    settings = context.settings
    trained = settings.start_from is not None
    # One that will be removed is none.
    if trained or (not settings.overwrite and _float_file_exists(context)):
        model = load_model(_float_file(context))
        _check_outputs(model, context)
        _check_search(model, settings)
        return None
    with context.distribution.scope():
        model = models.build(
            settings.model,
            context.data.image_shape,
            context.data.classes,
            settings.width_multiplier,
        )
        _check_search(model, settings)
    return model


def _check_search(model: keras.Model, settings: Settings) -> None:
    qmodel = msq_tf.quantize_model(model, config(settings))
    rule(settings).start(search_stats(qmodel))


def float_model(context: Context, untrained: keras.Model | None) -> keras.Model:
    """Trains the float model, or loads the one to start from.

    A finished float model in the run's folder is loaded.

    Args:
        context: The run.
        untrained: What `check` returned.

    Returns:
        The trained float model, not compiled.

    Raises:
        ValueError: If the model cannot be loaded.
    """
    recipe, distribution = context.settings.recipe, context.distribution
    if untrained is not None:
        with distribution.scope():
            _compile(
                untrained, context, recipe.float_learning_rate, 1, logits=True
            )
        _fit(untrained, context, "float", recipe.float_epochs, [])
        if distribution.chief:
            with context.workspace.sealing(FLOAT_MODEL) as path:
                untrained.save(path)
    # From the file even if it was written just now: what follows then starts
    # from the same, in this run and in a resumed one.
    return load_model(_float_file(context))


def quantized_model(context: Context) -> msq_tf.MSQModel | None:
    """Fine-tunes the float model with MSQ until its target is reached.

    A finished model in the run's folder is loaded.

    Args:
        context: The run, whose float model is trained.

    Returns:
        The quantized model, compiled, on a single device; None for a worker
        that is not the chief.

    Raises:
        ValueError: If the model cannot be quantized, or the target cannot
            be reached.
    """
    settings, recipe = context.settings, context.settings.recipe
    distribution = context.distribution
    finished = context.workspace.path(MODEL)
    logits = _check_outputs(load_model(_float_file(context)), context)
    if not distribution.chiefs(_finished(context, MODEL)):
        with distribution.scope():
            model = load_model(_float_file(context))
            qmodel = msq_tf.quantize_model(model, config(settings))
            _compile(qmodel, context, recipe.learning_rate, 0, logits=logits)
        search = msq_tf.MSQCallback(
            rule(settings),
            data=_sensitivity_data(context),
            batch_size=recipe.batch_size,
            verbose=0,
        )
        context.console.print(WORDS, highlight=False)
        _fit(qmodel, context, "msq", recipe.epochs, [search])
        if distribution.chief:
            with context.workspace.sealing(MODEL) as path:
                qmodel.save(path)
        if distribution.workers > 1:
            print(f"{distribution}: {fingerprint(qmodel)}", flush=True)
        if not distribution.distributed:
            return qmodel
    if not distribution.chief:
        return None
    qmodel = load_model(finished)
    _compile(qmodel, context, recipe.learning_rate, 0, logits=logits)
    return qmodel


def fingerprint(qmodel: msq_tf.MSQModel) -> str:
    """Returns what has to be the same on all workers, in one line."""
    digest = hashlib.sha256(json.dumps(qmodel.bits).encode())
    for variable in qmodel.trainable_variables:
        digest.update(variable.numpy().tobytes())
    return (
        f"{qmodel.compression:.2f}x, bits and weights {digest.hexdigest()[:16]}"
    )


def config(settings: Settings) -> msq_tf.MSQConfig:
    """Returns what MSQ starts from."""
    return msq_tf.MSQConfig(
        min_bits=settings.min_bits,
        activation_bits=settings.activation_bits,
        targets=targets.chosen(settings),
    )


def rule(settings: Settings) -> msq_tf.BudgetRule | msq_tf.ThresholdRule:
    """Returns the rule by which bits are chosen."""
    if settings.rule == "threshold":
        return msq_tf.ThresholdRule(
            target_compression=settings.target_compression
        )
    return msq_tf.BudgetRule(
        target_compression=settings.target_compression,
        allowed_bits=settings.allowed_bits or range(MIN_BITS, MAX_BITS + 1),
    )


def spread(count: int, wanted: int) -> np.ndarray:
    """Returns evenly spaced indices, for data that is sorted by class."""
    return np.linspace(0, count - 1, min(count, wanted)).astype(np.int64)


def _sensitivity_data(context: Context) -> tuple[tf.Tensor, tf.Tensor]:
    train = context.data.train
    index = spread(len(train), _SENSITIVITY_EXAMPLES)
    images = batches.scaled(train.images[index], context.settings.pixels)
    return images, tf.constant(train.labels[index])


def _float_file(context: Context) -> pathlib.Path:
    """The float model's file, where this worker can read it."""
    path = context.settings.start_from or context.workspace.path(FLOAT_MODEL)
    return context.distribution.file(path)


def _float_file_exists(context: Context) -> bool:
    return context.settings.start_from is not None or bool(
        context.distribution.chiefs(_finished(context, FLOAT_MODEL))
    )


def _finished(context: Context, name: str) -> bool:
    """Whether a model is there whole; the chief says if it is not.

    One that is damaged is made again, from the last checkpoint.

    Raises:
        ValueError: On the chief, if it is another run's.
    """
    path = context.workspace.path(name)
    if not context.distribution.chief or not path.exists():
        return False
    try:
        context.workspace.check(name)
    except seals.DamagedError as error:
        _warn(context, f"A model is damaged and made again: {path} ({error})")
        return False
    return True


def _warn(context: Context, text: str) -> None:
    context.console.print(text, highlight=False, markup=False)


def _fit(
    model: keras.Model,
    context: Context,
    phase: str,
    epochs: int,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    settings, recipe = context.settings, context.settings.recipe
    # Whatever draws from Keras's global seed draws the same in a resumed run.
    keras.utils.set_random_seed(settings.seed)
    distribution = context.distribution
    if settings.sync_batch_norm and distribution.replicas > 1:
        _synchronize(model)
    with distribution.scope():
        model.optimizer.build(model.trainable_variables)
    done = 0
    if distribution.chief:
        # Outside of the scope, where all workers have to create variables
        # together: Keras makes some for itself while it loads or saves.
        done = checkpoints.restore(
            context.workspace,
            phase,
            model,
            epochs,
            functools.partial(_warn, context),
        )
    done = distribution.chiefs(done)
    distribution.take_over(model.variables + model.optimizer.variables)
    if done:
        context.console.print(f"Resuming {phase} training at epoch {done + 1}.")
    steps = _steps(context)
    data = batches.training_batches(
        context.data.train,
        recipe.batch_size,
        range(done, epochs),
        settings.seed,
        batches.Augmentation(recipe.shift, recipe.flip),
        settings.pixels,
        distribution.share,
    )
    with EpochProgress(context.console, phase, epochs, steps, done) as progress:
        called = [
            checkpoints.EpochSeeds(settings.seed),
            *callbacks,
            # Ahead of the line and the checkpoint of the epoch.
            StopAtNaN(phase, _RATES[phase]),
            progress,
        ]
        if distribution.chief:
            called.append(checkpoints.EpochCheckpoint(context.workspace, phase))
        if distribution.workers > 1:
            loop.fit(
                model,
                distribution.strategy,
                data,
                epochs=epochs,
                initial_epoch=done,
                steps_per_epoch=steps,
                callbacks=called,
                exchange=distribution.exchange,
            )
        else:
            model.fit(
                data,
                epochs=epochs,
                initial_epoch=done,
                steps_per_epoch=steps,
                shuffle=False,
                verbose=0,
                callbacks=called,
                validation_data=_validation(context),
            )


def _validation(context: Context) -> tf.data.Dataset | None:
    """What the accuracy after every epoch is measured on: the test images.

    Nothing is chosen by it. On one device only: the last batch need not have
    a part for every replica.
    """
    if context.distribution.replicas > 1:
        return None
    return batches.test_batches(
        context.data.test,
        context.settings.recipe.batch_size,
        context.settings.pixels,
    )


def _synchronize(layer: keras.Layer) -> None:
    """Has every batch norm in a model take statistics over all replicas."""
    if isinstance(layer, keras.layers.BatchNormalization):
        layer.synchronized = True
    for child in child_layers(layer):
        _synchronize(child)


def _compile(
    model: keras.Model,
    context: Context,
    learning_rate: float,
    warm_up_epochs: int,
    logits: bool,
) -> None:
    recipe = context.settings.recipe
    epochs = recipe.float_epochs if warm_up_epochs else recipe.epochs
    model.compile(
        optimizer=_optimizer(
            recipe, learning_rate, epochs, warm_up_epochs, _steps(context)
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=logits),
        metrics=["accuracy"],
    )


def _optimizer(
    recipe: Recipe,
    learning_rate: float,
    epochs: int,
    warm_up_epochs: int,
    steps: int,
) -> keras.optimizers.Optimizer:
    warm_up_epochs = min(warm_up_epochs, epochs - 1)
    decay_steps = (epochs - warm_up_epochs) * steps
    if warm_up_epochs:
        schedule = keras.optimizers.schedules.CosineDecay(
            _WARM_UP_START * learning_rate,
            decay_steps,
            warmup_target=learning_rate,
            warmup_steps=warm_up_epochs * steps,
        )
    else:
        schedule = keras.optimizers.schedules.CosineDecay(
            learning_rate, decay_steps
        )
    build = {
        "sgd": functools.partial(
            keras.optimizers.SGD,
            momentum=0.9,
            nesterov=True,
            weight_decay=recipe.weight_decay,
        ),
        "adam": keras.optimizers.Adam,
        "adamw": functools.partial(
            keras.optimizers.AdamW, weight_decay=recipe.weight_decay
        ),
    }[recipe.optimizer]
    optimizer = build(schedule)
    if optimizer.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    return optimizer


def _steps(context: Context) -> int:
    return batches.steps_per_epoch(
        context.data.train, context.settings.recipe.batch_size
    )


def _check_outputs(model: keras.Model, context: Context) -> bool:
    """Checks that a model classifies the data, and how it says so.

    Returns:
        Whether its outputs are logits; False for probabilities.
    """
    train, classes = context.data.train, context.data.classes
    images = batches.scaled(train.images[:8], context.settings.pixels)
    try:
        outputs = np.asarray(model(images, training=False), np.float32)
        fits = outputs.shape == (len(images), classes)
        received = f"outputs of shape {outputs.shape}"
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        fits, received = False, str(error).strip().partition("\n")[0]
    if not fits:
        raise ValueError(
            "The model does not classify this data set. Expected images of "
            f"shape {context.data.image_shape} and {classes} outputs. "
            f"Received: {received}"
        )
    probabilities = outputs.min() >= 0 and np.allclose(
        outputs.sum(axis=-1), 1.0, atol=1e-2
    )
    return not probabilities

"""Training of a phase: optimizer, epochs, and what happens after each."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from msq_tf.keras3.overlay import child_layers
from train.context import Context
from train.data import batches
from train.distribution import loop
from train.diverged import StopAtNaN
from train.folder import checkpoints
from train.progress import EpochProgress
from train.recipes import Recipe

# Flag of the learning rate, by phase.
_RATES = {"float": "float_learning_rate", "msq": "learning_rate"}
# Share of the first learning rate at which warm-up starts.
_WARM_UP_START = 0.1


def fit(
    model: keras.Model,
    context: Context,
    phase: str,
    epochs: int,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Trains a compiled model, or goes on after its phase's last checkpoint.

    The phase is `"float"` or `"msq"`, of so many epochs; `callbacks` are called
    beside those of every run.
    """
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
            context.workspace, phase, model, epochs, context.warn
        )
    done = distribution.chiefs(done)
    distribution.take_over(model.variables + model.optimizer.variables)
    if done:
        context.console.print(f"Resuming {phase} training at epoch {done + 1}.")
    steps = context.steps
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

    Nothing is chosen by it, but with several stages, which take what is held
    out. On one device only: the last batch need not have a part for every
    replica.
    """
    if context.distribution.replicas > 1:
        return None
    examples = context.data.test
    if context.settings.stages > 1 and context.data.held_out is not None:
        examples = context.data.held_out
    return batches.test_batches(
        examples,
        context.settings.recipe.batch_size,
        context.settings.pixels,
    )


def _synchronize(layer: keras.Layer) -> None:
    """Has every batch norm in a model take statistics over all replicas."""
    if isinstance(layer, keras.layers.BatchNormalization):
        layer.synchronized = True
    for child in child_layers(layer):
        _synchronize(child)


def compile_model(
    model: keras.Model,
    context: Context,
    learning_rate: float,
    warm_up_epochs: int,
    logits: bool,
) -> None:
    """Compiles a classifier with the recipe's optimizer.

    The learning rate is the largest one: it falls to zero as a cosine. It rises
    for `warm_up_epochs`, which are those of the float phase; 0 is for the
    quantized one.
    """
    recipe = context.settings.recipe
    epochs = recipe.float_epochs if warm_up_epochs else recipe.epochs
    model.compile(
        optimizer=_optimizer(
            recipe, learning_rate, epochs, warm_up_epochs, context.steps
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
    decay = recipe.weight_decay
    if recipe.optimizer == "adam":
        optimizer = keras.optimizers.Adam(schedule)
    elif recipe.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(schedule, weight_decay=decay)
    else:
        optimizer = keras.optimizers.SGD(
            schedule, momentum=0.9, nesterov=True, weight_decay=decay
        )
    if optimizer.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    return optimizer

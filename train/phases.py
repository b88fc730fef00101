"""The two phases of training: float, then quantized with MSQ."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import msq_tf
import tflite_export
from msq_tf.bit_widths import MAX_BITS
from msq_tf.bit_widths import MIN_BITS
from msq_tf.keras3.loading import load_model
from msq_tf.keras3.overlay import fixed_batch_size
from msq_tf.search import device_costs
from msq_tf.search.controller import search_stats
from train import front
from train import targets
from train.context import Context
from train.data import batches
from train.fitting import compile_model
from train.fitting import fit
from train.folder import seals
from train.folder.workspace import FLOAT_MODEL
from train.folder.workspace import MODEL
from train.folder.workspace import TOLERANCE
from train.models import builders
from train.progress import WORDS
from train.settings import Settings

# Examples of a batch of what is held out.
_BATCH = 250
# Examples on which MSQ measures the sensitivity of the layers.
_SENSITIVITY_EXAMPLES = 256


def check(context: Context) -> keras.Model | None:
    """Refuses now what would be refused once the float model is trained.

    The run's folder need not be there yet. Returns the model to train; `None`
    where a trained one is there.

    Raises:
        ValueError: If the model cannot be built or loaded, does not classify
            this data set, cannot be quantized or run on a target, or cannot
            reach the compression asked for.
    """
    settings = context.settings
    trained = settings.start_from is not None
    # One that will be removed is none.
    if trained or (not settings.overwrite and _float_file_exists(context)):
        model = _loaded(context)
        _check_outputs(model, context)
        qmodel = _check_search(model, settings)
        if trained:
            # Nobody knows whether there is a file of somebody's own model.
            images = batches.scaled(
                context.data.train.images[:8], settings.pixels
            )
            for target in targets.chosen(settings):
                tflite_export.check(qmodel, target, np.asarray(images))
        return None
    with context.distribution.scope():
        model = builders.build(
            settings.model,
            context.data.image_shape,
            context.data.classes,
            settings.width_multiplier,
        )
        _check_search(model, settings)
    return model


def _check_search(model: keras.Model, settings: Settings) -> msq_tf.MSQModel:
    qmodel = msq_tf.quantize_model(model, config(settings))
    chosen = rule(settings)
    device_costs.find(chosen, qmodel)
    chosen.start(search_stats(qmodel))
    return qmodel


def float_model(context: Context, untrained: keras.Model | None) -> keras.Model:
    """Trains the float model that `check` returned, or loads the trained one.

    It isn't compiled then.

    Raises:
        ValueError: If the model cannot be loaded.
    """
    recipe, distribution = context.settings.recipe, context.distribution
    if untrained is not None:
        with distribution.scope():
            compile_model(
                untrained, context, recipe.float_learning_rate, 1, logits=True
            )
        fit(untrained, context, "float", recipe.float_epochs, [])
        if distribution.chief:
            with context.workspace.sealing(FLOAT_MODEL) as path:
                untrained.save(path)
    # From the file even if it was written just now: what follows then starts
    # from the same, in this run and in a resumed one.
    return _loaded(context)


def quantized_model(context: Context) -> msq_tf.MSQModel | None:
    """Fine-tunes the float model with MSQ until its target is reached.

    A finished model in the run's folder is loaded. Returns the quantized
    model, compiled, on a single device; None for a worker that is not the
    chief.

    Raises:
        ValueError: If the model cannot be quantized, or the target cannot
            be reached.
    """
    settings, recipe = context.settings, context.settings.recipe
    distribution = context.distribution
    finished = context.workspace.path(MODEL)
    logits = _check_outputs(_loaded(context), context)
    if not distribution.chiefs(_finished(context, MODEL)):
        with distribution.scope():
            model = _loaded(context)
            qmodel = msq_tf.quantize_model(model, config(settings))
            compile_model(
                qmodel, context, recipe.learning_rate, 0, logits=logits
            )
        search = msq_tf.MSQCallback(
            rule(settings, _held_out_accuracy(context)),
            data=_sensitivity_data(context),
            batch_size=recipe.batch_size,
            directory=_tolerance_folder(context),
            # A search for a tolerance says what it expects and does.
            verbose=0 if settings.max_drop is None else 1,
        )
        context.console.print(WORDS, highlight=False)
        called = [search, *front.checkpoints(context)]
        fit(qmodel, context, "msq", recipe.epochs, called)
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
    compile_model(qmodel, context, recipe.learning_rate, 0, logits=logits)
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


def rule(
    settings: Settings, metric: Callable[[Any], float] | None = None
) -> msq_tf.rules.Rule:
    """Returns the rule by which bits are chosen.

    Args:
        settings: Of the run.
        metric: What a tolerance is about; not needed to look at the rule.
    """
    allowed = settings.allowed_bits or range(MIN_BITS, MAX_BITS + 1)
    if settings.max_drop is not None:
        return msq_tf.ToleranceRule(
            max_drop=settings.max_drop,
            monitor=metric or "val_accuracy",
            mode="max",
            unit="points",
            allowed_bits=allowed,
        )
    if settings.rule == "threshold":
        return msq_tf.ThresholdRule(
            target_compression=settings.target_compression
        )
    return msq_tf.BudgetRule(
        target_compression=settings.target_compression,
        stages=front.shares(settings.recipe.epochs, settings.stages),
        allowed_bits=allowed,
        target_latency=settings.target_latency_ms,
        target_ram=settings.target_ram,
        device=settings.target_device,
    )


def _held_out_accuracy(context: Context) -> Callable[[Any], float] | None:
    """The accuracy on what is held out, if anything is."""
    held_out = context.data.held_out
    if held_out is None:
        return None

    def held_out_accuracy(model: Any) -> float:
        # Batch by batch, without a strategy: each worker measures alike.
        pixels = context.settings.pixels
        right = 0
        for images, labels in batches.test_batches(held_out, _BATCH, pixels):
            outputs = np.asarray(model(images, training=False))
            right += int((outputs.argmax(-1) == np.asarray(labels)).sum())
        return right / len(held_out)

    return held_out_accuracy


def _tolerance_folder(context: Context) -> str | None:
    """Where a search for a tolerance keeps weights, on the chief."""
    if context.settings.max_drop is None or not context.distribution.chief:
        return None
    return str(context.workspace.path(TOLERANCE))


def spread(count: int, wanted: int) -> np.ndarray:
    """Returns evenly spaced indices, for data that is sorted by class."""
    return np.linspace(0, count - 1, min(count, wanted)).astype(np.int64)


def _sensitivity_data(context: Context) -> tuple[tf.Tensor, tf.Tensor]:
    train = context.data.train
    index = spread(len(train), _SENSITIVITY_EXAMPLES)
    images = batches.scaled(train.images[index], context.settings.pixels)
    return images, tf.constant(train.labels[index])


def _loaded(context: Context) -> keras.Model:
    """The float model, from a file of Keras or of TFLite."""
    path = _float_file(context)
    if path.suffix == ".tflite":
        return msq_tf.from_tflite(path)
    return load_model(path)


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
        context.warn(f"A model is damaged and made again: {path} ({error})")
        return False
    return True


def _check_outputs(model: keras.Model, context: Context) -> bool:
    """Checks that a model classifies the data; whether it gives logits."""
    train, classes = context.data.train, context.data.classes
    images = batches.scaled(train.images[:8], context.settings.pixels)
    try:
        outputs = np.asarray(model(images, training=False), np.float32)
        fits = outputs.shape == (len(images), classes)
        received = f"outputs of shape {outputs.shape}"
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        fits, received = False, str(error).strip().partition("\n")[0]
    size = fixed_batch_size(model)
    if not fits and size not in (None, len(images)):
        raise ValueError(
            f"The model takes batches of {size} alone. Expected one that takes "
            "any number of images, or a file of such a model; recurrent layers "
            "that a converter kept as a loop take the batch of the file. "
            f"Received: {received}"
        )
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

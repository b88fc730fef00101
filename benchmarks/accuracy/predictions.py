"""Predicted against real damage, one layer at a time.

Every quantized layer of a trained network is put to 4, 3 and 2 bits alone.
The real damage is the increase of the loss on several thousand training
examples; the predictions see the few that a search sees. What matters to a
search is the order of layers, so the figure is Spearman's rank correlation.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import rich.table
import tensorflow as tf

import msq_tf
from benchmarks.accuracy import run
from benchmarks.accuracy.study import STUDIES
from benchmarks.harness import tables
from benchmarks.harness.compiling import compiled
from msq_tf.core.batches import take_batches
from msq_tf.sensitivity.statistics import DIVERGENCE
from msq_tf.sensitivity.statistics import HESSIAN
from msq_tf.sensitivity.statistics import MEASURED
from msq_tf.sensitivity.statistics import StatisticsGatherer
from train.data import batches
from train.data import datasets
from train.models import builders

_WIDTHS = (4, 3, 2)
_SAMPLES = 256  # what a search looks at, by default
_REFERENCE = 4096
_PROBES = 4
_GAUSS_NEWTON_PROBES = 8
_EPOCHS = 6

Batches = Sequence[Any]


def measure() -> dict[str, Any]:
    """Predicts and measures, for every network.

    Returns:
        Predictions, damages and rank correlations, JSON values.
    """
    return {
        "samples": _SAMPLES,
        "reference_samples": _REFERENCE,
        "widths": list(_WIDTHS),
        "networks": {
            name: _compare(*make(), seed=1)
            for name, make in (("resnet8", _resnet8), ("mobilenet_v2", _mobile))
        },
    }


def _resnet8() -> tuple[keras.Model, datasets.ImageDataset, str, bool]:
    """The float baseline of the accuracy study that can run here."""
    study = STUDIES["cifar10"]
    if run.missing(study):
        study = STUDIES["fashion_mnist_mini"]
    folder = run.FOLDER / study.name
    run.make_base(study, folder)
    data = run.load_data(study)
    model = run.float_model(study, data)
    model.load_weights(folder / run.BASE)
    return model, data, study.pixels, study.pretrained is None


def _mobile() -> tuple[keras.Model, datasets.ImageDataset, str, bool]:
    """MobileNetV2, alpha 0.35, trained on the embedded data at 32 pixels."""
    keras.utils.set_random_seed(0)
    data = datasets.load("fashion_mnist_mini", image_size=32)
    model = builders.build("mobilenet_v2", data.image_shape, data.classes, 0.35)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # Its 0.999 forgets the start in thousands of steps; these are few.
            layer.momentum = 0.9
    steps = batches.steps_per_epoch(data.train, 64)
    schedule = keras.optimizers.schedules.CosineDecay(2e-3, _EPOCHS * steps)
    model.compile(
        keras.optimizers.Adam(schedule),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(
        batches.training_batches(
            data.train,
            64,
            range(_EPOCHS),
            0,
            batches.Augmentation(1, flip=True),
            "unit",
        ),
        epochs=_EPOCHS,
        steps_per_epoch=steps,
        shuffle=False,
        verbose=0,
    )
    return model, data, "unit", True


def _compare(
    model: keras.Model,
    data: datasets.ImageDataset,
    pixels: str,
    logits: bool,
    seed: int,
) -> dict[str, Any]:
    qmodel = compiled(msq_tf.quantize_model(model), from_logits=logits)
    order = np.random.default_rng(seed).permutation(len(data.train))
    seen = order[:_SAMPLES]
    unseen = order[_SAMPLES : _SAMPLES + _REFERENCE]

    def taken(index: np.ndarray) -> Batches:
        images = batches.scaled(data.train.images[index], pixels)
        labels = data.train.labels[index]
        return take_batches((images.numpy(), labels), len(index), 128)

    damage = _costs(StatisticsGatherer(qmodel, taken(unseen), MEASURED))
    predictions = _predictions(qmodel, taken(seen))
    test = batches.test_batches(data.test, 500, pixels)
    return {
        "dataset": data.name,
        "accuracy": float(qmodel.evaluate(test, verbose=0)[-1]),
        "layers": list(qmodel.paths),
        "damage": damage,
        "predictions": predictions,
        "spearman": {
            name: {
                width: _spearman(values[width], damage[width])
                for width in damage
            }
            for name, values in predictions.items()
        },
    }


def _predictions(
    qmodel: msq_tf.MSQModel, data: Batches
) -> dict[str, dict[str, list[float]]]:
    """What each formula says of every layer at every width."""
    gatherer = StatisticsGatherer(qmodel, data, HESSIAN)
    estimate = gatherer.traces(max_probes=_PROBES, tolerance=0.0)
    return {
        DIVERGENCE: _costs(StatisticsGatherer(qmodel, data, DIVERGENCE)),
        MEASURED: _costs(StatisticsGatherer(qmodel, data, MEASURED)),
        HESSIAN: _costs(gatherer, estimate.trace),
        **_gauss_newton(qmodel, data),
    }


def _costs(
    gatherer: StatisticsGatherer, trace: np.ndarray | None = None
) -> dict[str, list[float]]:
    """Costs by width, of all layers. Every width here is looked at itself."""
    rule = msq_tf.BudgetRule(target_bits=2, allowed_bits=(8, *_WIDTHS))
    count = len(gatherer.model.paths)
    costs = gatherer.costs(rule, np.zeros(count) if trace is None else trace)
    return {str(width): costs[:, width].tolist() for width in _WIDTHS}


def _gauss_newton(
    qmodel: msq_tf.MSQModel, data: Batches
) -> dict[str, dict[str, list[float]]]:
    """The Fisher matrix from random directions in the outputs.

    With `r` of covariance `diag(p) - p p'` per sample, `u = J' r` has the
    Fisher matrix as its covariance: a gradient a probe for all layers and
    widths, the diagonal of it or all of a layer's block.
    """
    current = list(qmodel.quantized_values())
    from_logits = qmodel.loss.get_config()["from_logits"]

    @tf.function(autograph=False)
    def direction(values: Any, x: Any, seed: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(values)
            outputs = qmodel.outputs_at(values, x)
            if from_logits:
                log_p = tf.nn.log_softmax(outputs)
            else:
                log_p = tf.math.log(tf.clip_by_value(outputs, 1e-7, 1.0))
            p = tf.stop_gradient(tf.exp(log_p))
            noise = tf.random.stateless_normal(tf.shape(p), seed)
            scale = tf.sqrt(tf.cast(tf.shape(p)[0], tf.float32))
            total = tf.reduce_sum(tf.sqrt(p) * noise * log_p) / scale
        return tape.gradient(total, values)

    directions = [
        [u.numpy() for u in direction(current, x, tf.constant([probe, i]))]
        for probe in range(_GAUSS_NEWTON_PROBES)
        for i, (x, _, _) in enumerate(data)
    ]
    moves = {}
    for width in _WIDTHS:
        qmodel.set_bits(dict.fromkeys(qmodel.paths, width))
        moves[str(width)] = [
            (value - old).numpy()
            for value, old in zip(
                qmodel.quantized_values(), current, strict=True
            )
        ]
    qmodel.set_bits(dict.fromkeys(qmodel.paths, 8))

    def estimate(form: Callable[[Any, Any], float]) -> dict[str, list[float]]:
        return {
            width: [
                0.5 * float(np.mean([form(u[i], d) for u in directions]))
                for i, d in enumerate(layer_moves)
            ]
            for width, layer_moves in moves.items()
        }

    return {
        "fisher diagonal": estimate(lambda u, d: (u**2 * d**2).sum()),
        "fisher block": estimate(lambda u, d: (u * d).sum() ** 2),
    }


def _spearman(a: Sequence[float], b: Sequence[float]) -> float:
    ranks = [np.argsort(np.argsort(values)) for values in (a, b)]
    return float(np.corrcoef(ranks)[0, 1])


def table(results: dict[str, Any]) -> rich.table.Table:
    """Rank correlations of each formula."""
    view = tables.filled(
        "Spearman correlation of predicted damage "
        f"({results['samples']} samples) with the measured "
        f"({results['reference_samples']} others)",
        (
            "network",
            "prediction",
            *(f"{width} bits" for width in results["widths"]),
        ),
        left=2,
    )
    for name, network in results["networks"].items():
        for formula, values in network["spearman"].items():
            view.add_row(
                f"{name}, {len(network['layers'])} layers",
                formula,
                *(f"{values[str(width)]:.3f}" for width in results["widths"]),
            )
        view.add_section()
    return view

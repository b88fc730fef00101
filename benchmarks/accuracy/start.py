"""What a trained float model is worth at few bits before any more training.

Agreement with the float model on test images, by width and by where scales
come from. Networks are taken as they are, and with their batch norms folded
into the kernels before them, as published inference models have it: then
channels, and the kernels' values, differ in size, and no statistics are left to
follow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import msq_tf
from benchmarks.accuracy import run as accuracy_run
from benchmarks.accuracy.study import STUDIES
from benchmarks.accuracy.study import Study
from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import ran
from benchmarks.harness.markdown import table
from train.data import batches
from train.data import datasets

_WIDTHS = (2, 3, 4, 5, 6, 8)
# With the statistics of batch norms computed at the quantized weights.
_ANEW = "mse, re-estimated"
_KINDS: dict[str, dict[str, Any]] = {
    "max": {"scale": "max"},
    "mse": {"scale": "mse"},
    "DoReFa, max": {"scale": "max", "quantizer": "dorefa"},
    _ANEW: {"scale": "mse"},
}
_GRANULARITIES = {
    "tensor": msq_tf.PerTensor(),
    "channel": msq_tf.PerChannel(),
}
_IMAGES = 2000
# Batches of 128 training images for the statistics of batch norms.
_BATCHES = 16


def depthwise(shape: tuple[int, ...], classes: int) -> keras.Model:
    """A small network of depthwise separable convolutions."""
    layers = keras.layers
    inputs = keras.Input(shape)
    x = layers.Conv2D(16, 3, 2, "same", use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    for filters, strides in ((32, 1), (64, 2), (64, 1), (128, 2)):
        x = layers.DepthwiseConv2D(3, strides, "same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Conv2D(filters, 1, use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes)(x), name="depthwise")


def fold(model: keras.Model) -> None:
    """Moves batch norms into the kernels before them, in place.

    Each is left with the bias alone. Only those behind a convolution.
    """
    written = {id(layer.output): layer for layer in model.layers}
    for norm in model.layers:
        if not isinstance(norm, keras.layers.BatchNormalization):
            continue
        layer = written[id(norm.input)]
        if not hasattr(layer, "kernel"):
            continue
        factor = norm.gamma / np.sqrt(norm.moving_variance + norm.epsilon)
        factor = np.asarray(factor)
        mean = np.asarray(norm.moving_mean)
        if layer.use_bias:
            mean = mean - layer.bias
            layer.bias.assign(np.zeros_like(layer.bias))
        depth = isinstance(layer, keras.layers.DepthwiseConv2D)
        shape = (*layer.kernel.shape[2:], 1)[:2] if depth else (-1,)
        layer.kernel.assign(layer.kernel * factor.reshape(shape))
        norm.beta.assign(norm.beta - mean * factor)
        norm.moving_mean.assign(np.zeros_like(mean))
        norm.moving_variance.assign(np.ones_like(mean))
        norm.gamma.assign(np.full_like(mean, np.sqrt(1 + norm.epsilon)))


def measure() -> dict[str, Any]:
    """Quantizes every network with every scale.

    Returns:
        By network its float accuracy and the agreement of every kind and
        width, or the reason where a network is not at hand; JSON values.
    """
    found: dict[str, Any] = {}
    for name, (study, make) in _NETWORKS.items():
        if reason := accuracy_run.missing(study):
            found[name] = {"skipped": reason}
            continue
        data = accuracy_run.load_data(study)
        x = batches.scaled(data.test.images[:_IMAGES], study.pixels).numpy()
        seen = batches.scaled(
            data.train.images[: 128 * _BATCHES], study.pixels
        ).numpy()
        for folded in (False, True):
            model = make(study, data)
            labels = data.test.labels[: len(x)]
            wanted = _classes(model, x)
            if folded:
                fold(model)
                if np.mean(_classes(model, x) == wanted) < 0.999:
                    raise RuntimeError(f"folding has changed {name}")
            found[name + ", folded" * folded] = {
                "images": len(x),
                "accuracy": float(np.mean(wanted == labels)),
                "agreement": {
                    f"{granularity}, {kind}": _agreement(
                        model, x, wanted, granularity, kind, seen
                    )
                    for granularity in _GRANULARITIES
                    for kind in _KINDS
                    if not (folded and kind == _ANEW)
                },
            }
    return found


def _agreement(
    model: keras.Model,
    x: np.ndarray,
    wanted: np.ndarray,
    granularity: str,
    kind: str,
    seen: np.ndarray,
) -> dict[str, float]:
    # The model is quantized in place, and goes on as it was.
    own = keras.models.clone_model(model)
    own.set_weights(model.get_weights())
    qmodel = msq_tf.quantize_model(
        own,
        msq_tf.MSQConfig(
            granularity=_GRANULARITIES[granularity], **_KINDS[kind]
        ),
    )
    shares = {}
    for bits in _WIDTHS:
        qmodel.set_bits(dict.fromkeys(qmodel.paths, bits))
        if kind == _ANEW:
            msq_tf.reestimate_batch_norm(qmodel, seen, _BATCHES)
        shares[str(bits)] = float(np.mean(_classes(qmodel, x) == wanted))
    return shares


def _classes(model: Any, x: np.ndarray) -> np.ndarray:
    return np.argmax(model.predict(x, 500, verbose=0), -1)


def _trained(study: Study, data: datasets.ImageDataset) -> keras.Model:
    """The depthwise network after some epochs, kept for the next time."""
    keras.utils.set_random_seed(0)
    model = depthwise(data.image_shape, data.classes)
    path = Path(accuracy_run.FOLDER, study.name, "depthwise.weights.h5")
    if path.exists():
        model.load_weights(path)
        return model
    model.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    x = batches.scaled(data.train.images, study.pixels)
    model.fit(x, data.train.labels, 64, study.base_epochs, verbose=2)
    model.save_weights(path)
    return model


_MINI = dataclasses.replace(
    STUDIES["fashion_mnist_mini"], name="start", base_epochs=12
)
_NETWORKS: dict[str, tuple[Study, Callable[..., keras.Model]]] = {
    "MLPerf Tiny ResNet-8": (STUDIES["cifar10"], accuracy_run.float_model),
    "depthwise": (_MINI, _trained),
}


def rows(results: dict[str, Any]) -> list[list[str]]:
    """Agreement in percent, a column a width."""
    return [
        [name, kind, *(f"{100 * shares[str(bits)]:.1f}" for bits in _WIDTHS)]
        for name, entry in results.items()
        for kind, shares in entry.get("agreement", {}).items()
    ]


def markdown(content: dict[str, Any]) -> str:
    """One line a network, granularity and kind of scale."""
    results = content["results"]
    parts = [
        f"{name}: {entry['skipped']}"
        if "skipped" in entry
        else f"{name} {entry['accuracy']:.2%} of {entry['images']:,} images"
        for name, entry in results.items()
    ]
    return page(
        f"{ran(content['environment'], 'seed 0')}. Accuracy in float: "
        f"{'; '.join(parts)}. The table has the agreement with float in "
        "percent, before any training, with all weights at one width:",
        table(
            ("network", "one scale per", *(f"{b} bits" for b in _WIDTHS)),
            rows(results),
            left=2,
        ),
    )

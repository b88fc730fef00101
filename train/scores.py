"""Accuracy and agreement of models and of files, on the same images."""

from __future__ import annotations

import dataclasses
import pathlib

import keras
import numpy as np

import tflite_export
from tflite_export.differences import agreement
from tflite_export.runtime import ports
from train.data import batches
from train.data.datasets import Examples

_BATCH = 250


@dataclasses.dataclass(frozen=True)
class Score:
    """How a file does on the test examples.

    Attributes:
        accuracy: Share of examples that it gets right.
        agreement: Share of examples for which it and the Keras model that it
            was made from predict the same class.
        max_abs_error: Largest difference of an output from that model's.
    """

    accuracy: float
    agreement: float
    max_abs_error: float


def outputs(model: keras.Model, examples: Examples, pixels: str) -> np.ndarray:
    """Returns a Keras model's outputs for all examples, in order."""
    data = batches.test_batches(examples, _BATCH, pixels)
    return np.asarray(model.predict(data, verbose=0), np.float32)


def accuracy(values: np.ndarray, labels: np.ndarray) -> float:
    """Returns the share of examples whose largest output is the label's."""
    return float(np.mean(values.argmax(axis=-1) == labels))


def score(
    file: pathlib.Path, examples: Examples, pixels: str, reference: np.ndarray
) -> Score:
    """Runs a `.tflite` file over all examples with `ai-edge-litert`.

    `reference` is what the Keras model gives for the same examples.
    """
    data = file.read_bytes()
    (source,), (target,) = ports.inputs(data), ports.outputs(data)
    # Some devices' files take and give integers.
    images = source.quantize(batches.scaled(examples.images, pixels).numpy())
    values = target.real(np.asarray(tflite_export.run(data, images)))
    values = values.astype(np.float32).reshape(reference.shape)
    return Score(
        accuracy=accuracy(values, examples.labels),
        agreement=agreement(values, reference),
        max_abs_error=float(np.abs(values - reference).max()),
    )

"""The page that shows what a run did to the model."""

from __future__ import annotations

import pathlib

import keras
import numpy as np

import msq_tf
import tflite_export
from msq_tf import extras
from train.context import Context
from train.data import batches

# Test examples that the page compares float model and file on.
_EXAMPLES = 256
# The file that is shown, if it was made; else the first.
_PREFERRED = ("cpu_int8", "cpu_int16", "min_size")


def write(
    context: Context,
    qmodel: msq_tf.MSQModel,
    model: keras.Model,
    history: list[dict[str, object]],
    targets: tuple[str, ...],
    path: pathlib.Path,
) -> None:
    """Writes the page of one of the files of a run.

    Args:
        context: The run.
        qmodel: The trained model.
        model: The float model that it was made from.
        history: The logs of its epochs.
        targets: Names of the targets whose files were made.
        path: Where to write.
    """
    target = next((t for t in _PREFERRED if t in targets), targets[0])
    test = context.data.test
    images = batches.scaled(test.images[:_EXAMPLES], context.settings.pixels)
    tflite_export.look(
        context.workspace.path(f"{target}.tflite"),
        model=qmodel,
        float_model=model,
        history=history,
        representative_data=np.asarray(images),
        labels=test.labels[:_EXAMPLES],
        samples=_EXAMPLES,
        output=path,
    )


def installed() -> bool:
    """Whether pages can be drawn."""
    return not extras.missing("look")

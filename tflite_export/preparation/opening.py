"""The beginning of an export: a model, its inputs and their sizes."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np

from msq_tf.keras3.one_input import check_one_input
from tflite_export.conversion import open_axes
from tflite_export.conversion import other_floats
from tflite_export.conversion import sizes
from tflite_export.conversion.open_axes import Sized
from tflite_export.conversion.source import QuantizedModel
from tflite_export.conversion.source import from_model
from tflite_export.conversion.source import trained_bits
from tflite_export.data import image_folder
from tflite_export.data import samples as samples_of
from tflite_export.preparation import input_check
from tflite_export.preparation import preconditions
from tflite_export.runtime import table_ids
from tflite_export.targets import Target


@dataclasses.dataclass(frozen=True)
class Opening:
    """A model that is about to be converted.

    Attributes:
        sized: The model with the inputs that its file takes.
        inputs: Samples, one array per input.
        origin: Whether they are `"given"` or `"random"`.
        notes: Sentences for the report.
    """

    sized: Sized
    inputs: list[np.ndarray]
    origin: str
    notes: tuple[str, ...]


def opened(
    model: QuantizedModel,
    target: Target,
    representative_data: Any,
    input_signature: Any,
    batch_size: int | None,
    samples: int,
    trained: bool = True,
    folder: str | os.PathLike[str] | None = None,
) -> Opening:
    """Prepares a model and what it is run on, with arguments of `export`.

    Before it is trained, integers are those of ranges measured on any inputs,
    whatever will be trained. A large float file lies in the folder on the way,
    in memory where none is given.

    Raises:
        ExportError: If the model or the inputs stand against a file.
        ValueError: If an argument is wrong.
    """
    example, data = samples_of.first_batch(representative_data)
    source = from_model(
        model,
        input_signature,
        example,
        batch_size,
        target.options.get("batch_size"),
    )
    check_one_input(source.base)
    sizes.check_size(source.base)
    notes: list[str] = []
    if isinstance(data, str | os.PathLike):
        data, note = image_folder.inputs(data, source.specs, samples)
        notes.append(note)
    if target.integer:
        ranged = preconditions.with_ranges(
            model, source, target, measurable=data is not None or not trained
        )
        source = ranged if trained else source
    rest: list[list[np.ndarray]] = []
    inputs, origin = samples_of.collect(
        data,
        source.structure,
        samples,
        rest if open_axes.names(source) else None,
    )
    inputs = other_floats.as_read(source.base, inputs)
    names = [spec.name for spec in source.specs]
    table_ids.check(
        table_ids.of_model(source.base), names, inputs, "representative_data"
    )
    if origin == "given":
        notes += input_check.check_samples(
            model,
            source,
            inputs,
            measures=target.integer and trained_bits(model) is None,
            integer=target.integer,
        )
    sized = open_axes.settle(source, target, inputs, origin, rest, folder)
    return Opening(sized, inputs, origin, (*sized.notes, *notes))

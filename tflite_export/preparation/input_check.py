"""Whether samples are on the scale of what a model was trained on.

A file of integers has 256 codes for an input. If ranges are measured on samples
many times as large as those of training, the real inputs share a handful of
codes. If the samples are many times as small, the real inputs are clipped to
next to nothing. The check needs both the ends and the mean magnitude to differ:
a test set that reaches a bit further, a few outliers or a dark image do not
mean another scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tflite_export.conversion.source import SeenModel
from tflite_export.conversion.source import Source
from tflite_export.data.data_scale import OTHER
from tflite_export.data.data_scale import DataScale
from tflite_export.data.data_scale import in_words

# Inputs of training that are so much smaller than the samples have eight of
# 256 codes, and those that are so much larger lose all but a 32nd.
_WRONG = 32.0
# Fewer samples than these say little about ranges.
_FEW = 8


def check_samples(
    model: Any,
    source: Source,
    samples: Sequence[np.ndarray],
    measures: bool,
    integer: bool,
) -> list[str]:
    """Compares given samples with what the model was trained on, in sentences.

    A model that does not know what it was trained on passes.

    Args:
        model: The quantized model.
        source: How it is called.
        samples: One array per input.
        measures: Whether ranges of activations are measured on them.
        integer: Whether the file computes with integers.

    Raises:
        ValueError: If no right file comes of them.
    """
    notes = []
    count = len(samples[0])
    if measures and count < _FEW:
        notes.append(
            "ranges of activations are those of "
            f"{count} sample{'s' * (count > 1)}: what lies beyond is clipped; "
            "give representative_data of a hundred samples or more"
        )
    known = trained_on(model, source)
    for spec, array in zip(source.specs, samples, strict=True):
        trained = known.get(spec.name)
        if trained is None or not array.size:
            continue
        given = DataScale.of(array)
        times = given.times(trained)
        if 1.0 / OTHER <= times <= OTHER:
            continue
        words = in_words(times)
        # Trained ranges are not measured; what overruns them shows nothing.
        useless = measures or (integer and times > 1.0)
        if useless and not 1.0 / _WRONG <= times <= _WRONG:
            raise ValueError(
                f"representative_data for the input '{spec.name}' is on "
                f"another scale than training: about {words} what the model "
                "was trained on, so that the file would be wrong for that. "
                "Expected inputs as `fit` was given them, after all "
                f"preprocessing, about {trained}. Received: {given}"
            )
        notes.append(
            f"representative_data for the input '{spec.name}' ranges from "
            f"{given}, about {words} what the model was trained on "
            f"({trained}): was all preprocessing applied?"
        )
    return notes


def trained_on(model: Any, source: Source) -> dict[str, DataScale]:
    """Scales of the inputs in training, by name, as far as a model knows.

    Args:
        model: The quantized model.
        source: How it is called.
    """
    if not isinstance(model, SeenModel) or model.input_ranges is None:
        return {}
    specs, ranges = source.specs, model.input_ranges
    return {
        spec.name: DataScale(*seen)
        for spec, seen in zip(specs, ranges.seen(len(specs)), strict=True)
        if seen is not None
    }

"""Conditions that have to hold before a model is converted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from msq_tf.core.quantized_weight import QuantizedWeight
from tflite_export.conversion.source import QuantizedModel
from tflite_export.conversion.source import RegraphedModel
from tflite_export.conversion.source import SearchedModel
from tflite_export.conversion.source import Source
from tflite_export.conversion.source import trained_bits
from tflite_export.errors import ExportError
from tflite_export.matching.scales import MUTED_SCALE
from tflite_export.targets import Target


def check_numbers(model: QuantizedModel, base: Any) -> None:
    """Raises an ExportError for a variable with NaN, of whatever layer.

    NaN in the state of a search is what no decision has told yet.
    """
    known = model.search_variables if isinstance(model, SearchedModel) else ()
    search = {id(variable) for variable in known}
    wrong = [
        getattr(variable, "path", variable.name)
        for variable in base.variables
        if id(variable) not in search
        and tf.as_dtype(variable.dtype).is_floating
        and np.isnan(np.asarray(variable)).any()
    ]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ExportError(
            "The model holds NaN, so its outputs mean nothing. Expected a "
            "training that has not diverged: lower the learning rate, or look "
            "for NaN in the data, and train again. Received: NaN in "
            f"'{wrong[0]}'{more}"
        )


def check_weights(quantized: Sequence[QuantizedWeight]) -> None:
    """Raises an ExportError for codes or steps that no file can hold."""
    if not quantized:
        raise ExportError(
            "The model has no quantized weight to export. Expected one or "
            "more. Received: none; `float_file` writes float models"
        )
    for weight in quantized:
        limit = (1 << (weight.bits - 1)) - 1
        top = int(np.abs(weight.codes.astype(np.int16)).max(initial=0))
        step = weight.step
        if top > limit:
            raise ExportError(
                f"Layer '{weight.path}': its codes don't fit its bits. "
                f"Expected at most {limit} at {weight.bits} bits. Received: "
                f"{top}"
            )
        if not (np.isfinite(step).all() and (step > 0).all()):
            raise ExportError(
                f"Layer '{weight.path}': its steps are not all positive "
                "finite numbers; did the training diverge? Received: "
                f"{step.min():.2g} to {step.max():.2g}"
            )
        if (step < MUTED_SCALE).any():
            raise ExportError(
                f"Layer '{weight.path}': its steps are so small that runtimes "
                f"may flush them to zero. Expected at least {MUTED_SCALE:.2g}; "
                f"scale the weights up. Received: {step.min():.2g}"
            )


def with_ranges(
    model: QuantizedModel, source: Source, target: Target, measurable: bool
) -> Source:
    """How a model is called, with its trained ranges where it has them.

    Raises:
        ExportError: If nothing says what the ranges are, or they are of
            another width.
    """
    bits = trained_bits(model)
    wanted = int(target.mode.removeprefix("int"))
    if bits is None:
        if not measurable:
            raise ExportError(
                f"Target '{target.name}' needs activation ranges. Expected "
                "representative_data, a few hundred inputs, or a model trained "
                f"with MSQConfig(activation_bits={wanted}). Received: "
                "representative_data=None, activation_bits=None"
            )
        return source
    if bits != wanted:
        stored = "" if bits in (8, 16) else "no runtime stores them, and "
        raise ExportError(
            f"The model was trained with {bits}-bit activations: {stored}"
            f"target '{target.name}' has {wanted} bits. Expected "
            f"MSQConfig(activation_bits={wanted}) in training, or a target of "
            f"float activations. Received: activation_bits={bits}"
        )
    base = source.base
    if isinstance(model, RegraphedModel):
        base = model.integer_base
    return dataclasses.replace(source, base=base, trained_ranges=True)

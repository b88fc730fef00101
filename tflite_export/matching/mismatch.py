"""Sentences for weights that could not be matched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msq_tf.core.quantized_weight import QuantizedWeight
from tflite_export.matching import scales as fitting
from tflite_export.matching.layouts import arrangements

if TYPE_CHECKING:
    from tflite_export.matching.file_constants import Constant

# Folding in float32 stays far below this; a different weight far above.
_LOST_PRECISION = 1e-3


def unmatched(weight: QuantizedWeight, constants: Sequence[Constant]) -> str:
    """Says why a quantized weight isn't in the file.

    With the layer, the nearest tensor, its operator and the figure by which it
    fails, and what the user can do.
    """
    head = (
        f"Layer '{weight.path}' ({weight.layer} {weight.attribute}, "
        f"{weight.bits} bits, shape {weight.codes.shape}): no tensor of the "
        "converted file holds its codes. "
    )
    nearest = _nearest(weight, constants)
    if nearest is None:
        return head + (
            "No constant of that size is left: the converter computed with "
            "the weight, and its operators can't be told to do that while "
            "the file runs. Expected the layer left out of quantize_model "
            f"(filters=). Received: {len(constants)} constants, none of "
            f"{weight.codes.size} elements"
        )
    error, constant = nearest
    head += (
        f"Nearest: tensor '{constant.name}' of shape {constant.value.shape}, "
        f"read by {', '.join(constant.readers) or 'nothing'}. "
    )
    received = (
        "Expected every weight "
        f"within {fitting.RELATIVE_TOLERANCE:.2g} of code times factor. "
        f"Received: an error of {error:.2g} of its largest weight"
    )
    if error < _LOST_PRECISION:
        return head + (
            "The converter folded a following batch normalization or "
            "multiplication into the weight and lost precision on the way. "
            "Check its moving variance and gamma for very large or very small "
            f"values. {received}"
        )
    # Not to be advised where it is so already.
    per_tensor = (
        "If the layer has a scale per channel on two axes of the "
        "tensor, of which one can hold scales, try per-tensor granularity; "
        "else leave"
        if weight.step.size > 1
        else "Leave"
    )
    return head + (
        "The converter changed this weight, and its operators don't take it "
        f"as it is. {per_tensor} the layer out of quantize_model (filters=). "
        f"{received}"
    )


def unexplained(
    constant: Constant, quantized: Sequence[QuantizedWeight]
) -> str:
    """Says which float weight of the file nothing explains."""
    text = (
        "The file holds float weights that are no "
        "weight of the model as it is, neither a quantized nor a float one. "
        "Expected no layer that computes its weight from a variable "
        "(normalization, masking, tying), which can't be exported. Received: "
        f"tensor '{constant.name}' of shape {constant.value.shape}, read by "
        f"{', '.join(constant.readers)}"
    )
    near = [
        (found[0], weight)
        for weight in quantized
        if (found := _nearest(weight, [constant])) is not None
    ]
    if near:
        error, weight = min(near, key=lambda item: item[0])
        text += (
            f"; nearest: layer '{weight.path}', whose codes leave an error of "
            f"{error:.2g} of the largest weight"
        )
    return text


def _nearest(
    weight: QuantizedWeight, constants: Sequence[Constant]
) -> tuple[float, Constant] | None:
    best: tuple[float, Constant] | None = None
    for constant in constants:
        shape = constant.value.shape
        for arrangement in arrangements(
            weight.layout, weight.codes.shape, weight.channel_axes, shape
        ):
            codes = arrangement.apply(weight.codes, shape)
            error, _ = fitting.residual(constant.value, codes)
            if best is None or error < best[0]:
                best = (error, constant)
    return best

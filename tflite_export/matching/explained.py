"""From a model to a float file in which every weight is found again.

If the converter folds weights away, the model is converted again with these
weights kept from it. This happens only then, as every conversion takes time.
"""

from __future__ import annotations

from collections.abc import Sequence

from msq_tf.core.quantized_weight import QuantizedWeight
from msq_tf.core.quantized_weight import SkippedWeight
from tflite_export.conversion.float_file import Conversion
from tflite_export.conversion.float_file import FloatFile
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import model as fb
from tflite_export.matching.float_weights import from_code
from tflite_export.matching.match import Matching
from tflite_export.matching.match import Unmatched
from tflite_export.matching.match import match


def explained(
    conversion: Conversion,
    quantized: Sequence[QuantizedWeight],
    skipped: Sequence[SkippedWeight],
) -> tuple[FloatFile, Matching]:
    """Converts a model until all float constants of the file are explained.

    Returns the float file, and which of its constants hold which weights.

    Raises:
        ExportError: If the converter refuses the model, or a weight isn't in
            the file although nothing can have been folded into it.
    """
    apart: set[str] = set()
    best: tuple[FloatFile, Matching] | ExportError | None = None
    while True:
        try:
            converted = conversion.file(apart)
            matching = _matched(conversion, converted, quantized, skipped)
            best = converted, matching
            more = set(matching.ambiguous)
        except ExportError as error:
            # What a second try says is of a graph that nobody wrote.
            best = best or error
            more = _folded(error, conversion)
        if more <= apart:
            break
        apart |= more
    if isinstance(best, ExportError):
        raise best
    return best


def _folded(error: ExportError, conversion: Conversion) -> set[str]:
    """Paths of weights whose codes may be lost by folding."""
    if not isinstance(error, Unmatched):
        return set()
    return set(error.paths or conversion.changed())


def _matched(
    conversion: Conversion,
    converted: FloatFile,
    quantized: Sequence[QuantizedWeight],
    skipped: Sequence[SkippedWeight],
) -> Matching:
    written = [
        from_code(array, "written in the model's code")
        for array in converted.constants
    ]
    return match(
        fb.load(converted.data),
        [w for w in quantized if w.path not in converted.unread],
        [*skipped, *written],
        converted.held,
        lambda: [
            from_code(array, "computed by the model's code")
            for array in conversion.computed()
        ],
    )

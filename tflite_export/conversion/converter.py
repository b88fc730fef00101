"""TensorFlow's converter.

This is the only place that holds it, so that its successor can replace it.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Container
from collections.abc import Iterator

import tensorflow as tf

from tflite_export.conversion.freezing import freeze
from tflite_export.conversion.frozen_graph import Traced
from tflite_export.errors import ExportError


class Converter:
    """Converts a traced function without any quantization.

    The function may be gone afterwards.

    Attributes:
        frozen: The graph that is converted; `None` where TensorFlow freezes
            it in a way of its own.
    """

    def __init__(self, traced: Traced):
        self._converter = tf.lite.TFLiteConverter.from_concrete_functions(
            [traced.function], tf.Module()
        )
        # By way of a SavedModel the order and the names of the outputs get
        # lost (for models without variables of their own; TensorFlow 2.21).
        self._converter.experimental_lower_to_saved_model = False
        # It takes reading and writing the whole file once more.
        self._converter.exclude_conversion_metadata = True
        # So does looking for equal constants, in Python; `fb.dump` writes
        # those once, and constants behind the rest are not read for it.
        self._converter._experimental_use_buffer_offset = True
        self.frozen = freeze(self._converter, traced)

    @property
    def weights(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the weights that `convert` can leave out, by their names.

        In the order of the graph. None where the graph calls functions.
        """
        return {} if self.frozen is None else self.frozen.weights

    def groups(self) -> list[list[str]]:
        """The names of `weights` in groups that may become one constant."""
        return [] if self.frozen is None else self.frozen.groups()

    def convert(self, shown: Container[str] | None = None) -> bytes:
        """A float TFLite file; may be called again.

        Only weights that are shown have their own values, `None` for all: one
        number stands for all elements of each of the others.

        Raises:
            ExportError: If the converter refuses an operator.
        """
        if self.frozen is not None:
            self.frozen.shown = shown
        try:
            with _without_collections():
                return self._converter.convert()
        except Exception as error:  # the converter raises several kinds
            raise ExportError(_message(str(error))) from error


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Drops TensorFlow's warnings of collections that no file has.

    KerasHub's tokenizers leave such a collection in the graph.
    """

    def other(record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(
            "Issue encountered when serializing"
        )

    logger = tf.get_logger()
    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)


def _message(text: str) -> str:
    missing = sorted(set(re.findall(r"'(tf\.\w+)' op is neither", text)))
    if missing:
        return (
            "The converter has no TFLite operator for what a layer computes. "
            "Expected layers of operators that TFLite has. Received: "
            f"{', '.join(missing)}"
        )
    errors = re.findall(r"error: (.+)", text) or text.strip().splitlines()
    return (
        "The converter refused the model. Expected layers that TFLite has "
        f"operators for. Received: {errors[0] if errors else 'no reason'}"
    )

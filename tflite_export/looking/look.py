"""`look`: what quantization did to a model, in one page."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msq_tf.arguments import check_integer
from msq_tf.core.quantized_network import QuantizedNetwork
from msq_tf.page import charts
from msq_tf.page import document
from msq_tf.page.records import Page
from msq_tf.page.records import Side
from msq_tf.reports import search_page
from msq_tf.reports.precision_report import PrecisionReport
from tflite_export.inspect import compare
from tflite_export.looking import limits
from tflite_export.looking import node_data
from tflite_export.looking import side as side_lib
from tflite_export.looking import two_sides

Source = str | os.PathLike[str] | PrecisionReport


@dataclasses.dataclass(frozen=True)
class Look:
    """The findings of `look`; `str()` says them in lines.

    Attributes:
        page: All of it, as records.
    """

    page: Page

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the HTML page, which appears whole or not at all.

        Raises:
            ImportError: If the extra `look` is not installed.
            NotWrittenError: If the file can't be written, an `OSError`.
        """
        document.save(self.page, path)

    def to_json(self, indent: int | None = 2) -> str:
        """The data of the page as JSON; `null` for what is not finite."""
        return self.page.to_json(indent)

    def node_data(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Writes node data for Model Explorer, one JSON file a metric.

        Of two sides, those of the second: it is the new one.

        Args:
            folder: Where to write; it is made.

        Returns:
            The files: `bits.json`, `bytes.json` and what else is known.

        Raises:
            ValueError: If the side is no file with weights.
        """
        return node_data.write(self.page.sides[-1], folder)

    def failures(self, fail_if: str) -> list[str]:
        """Figures beyond given limits, for an exit code.

        Of two sides, the second is looked at; `accuracy_drop` is then the
        fall from the first to the second.

        Args:
            fail_if: Conditions such as `"accuracy_drop>1, max_units>4"`:
                `accuracy`, `accuracy_drop` and `disagreement` are in percent,
                `min_snr` in decibels; others are `average_bits`, `bytes`,
                `compression`, `dead_channels`, `latency_ms`, `max_units`.

        Returns:
            A sentence for each condition that holds, none if none does.

        Raises:
            ValueError: If a condition is none, or its figure is not known.
        """
        figures = dict(self.page.sides[-1].figures)
        if len(self.page.sides) > 1:
            figures.pop("accuracy_drop", None)
            before = self.page.sides[0].figures
            if "accuracy" in figures and "accuracy" in before:
                drop = before["accuracy"] - figures["accuracy"]
                figures["accuracy_drop"] = drop
        found = [limit.broken(figures) for limit in limits.parse(fail_if)]
        return [text for text in found if text is not None]

    def __str__(self) -> str:
        lines = []
        for side in self.page.sides:
            lines.append(side.name)
            lines += [f"  {what}: {figure}" for what, figure in side.facts]
            for sentences in side.findings.values():
                lines += [f"  ! {sentence}" for sentence in sentences]
        lines += list(self.page.changes)
        return "\n".join(lines)


def look(
    file: Source,
    other: Source | None = None,
    *,
    model: Any = None,
    float_model: Any = None,
    representative_data: Any = None,
    labels: Any = None,
    history: Any = None,
    samples: int = 64,
    words: Sequence[str] | None = None,
    output: str | os.PathLike[str] | None = None,
) -> Look:
    """Shows in one page what quantization did to a model.

    The page has the weights with their codes and bytes, the search that led to
    them, the error of every tensor on real inputs, the inputs on which the
    float model and the file disagree most, and where the file runs. What there
    is no model or no data for is left out with a word.

    Files are run in a process of its own, with limits on memory and time.

    Args:
        file: A TFLite file, whoever wrote it, or a `PrecisionReport`.
        other: Another, to be put beside it.
        model: The `MSQModel` that the file was made from, or the `ModelView`
            of a tf_keras model. It tells what was decided, and has the weights
            that were rounded to codes.
        float_model: The float Keras model that all began with. Its answers are
            compared with the file's, and its accuracy. Without it they are
            those of the file's own graph in float.
        representative_data: Inputs, as `export` takes them.
        labels: True classes of these inputs, for the accuracy.
        history: What the `fit` of the model returned, as `precision_report`
            takes it, for the metric against bytes.
        samples: Largest number of inputs to use. Tensors are compared on the
            first 32 of them.
        words: Words of tokens by their id, for text models.
        output: Where to write the page, such as `"m.html"`; `None` for not.

    Returns:
        A `Look`: `print` it, call `save(path)`, `to_json()`,
        `node_data(folder)` or `failures("max_units>4")`.

    Raises:
        ValueError: If a file can't be read, or the data does not fit it.
        ImportError: If the page is to be written and the extra `look` is not
            installed.

    Example:
        >>> tflite_export.look(
        ...     "m.tflite", model=qmodel, representative_data=x, output="m.html"
        ... )
    """
    if output is not None:
        charts.check_installed()
    check_integer("samples", samples, 1)
    if labels is not None and representative_data is None:
        raise ValueError(
            "`labels` belong to `representative_data`. Expected both. "
            "Received: labels alone"
        )
    if model is not None and not isinstance(model, QuantizedNetwork):
        raise ValueError(
            "`model` is a quantized one. Expected an MSQModel, the ModelView "
            "of a tf_keras model, or a float model as `float_model`. Received: "
            f"model={type(model).__name__}"
        )
    if history is not None and model is None:
        raise ValueError(
            "`history` belongs to the search of `model`. Expected both. "
            "Received: model=None"
        )
    given = side_lib.Given(
        model=model,
        float_model=float_model,
        history=history,
        data=representative_data,
        labels=labels,
        limit=samples,
        words=words,
    )
    sources = [file] if other is None else [file, other]
    sides = [_side(source, given) for source in sources]
    found = Look(
        _one(sides[0])
        if other is None
        else _two(sides, sources, _cut(representative_data, samples))
    )
    if output is not None:
        found.save(output)
    return found


def _side(source: Source, given: side_lib.Given) -> Side:
    if isinstance(source, PrecisionReport):
        return search_page.side(source)
    return side_lib.of_file(source, given)


def _one(side: Side) -> Page:
    return Page(title=f"{side.name}: what quantization did", sides=(side,))


def _two(sides: Sequence[Side], sources: Sequence[Source], data: Any) -> Page:
    first, second = sides
    if first.name == second.name:
        first = dataclasses.replace(first, name=f"{first.name} (first)")
        second = dataclasses.replace(second, name=f"{second.name} (second)")
    found = two_sides.pairs(first.layers, second.layers)
    told = two_sides.changes(first, second, found)
    told += _answers(sources, data)
    return Page(
        title=f"{first.name} and {second.name}",
        sides=(first, second),
        pairs=found,
        tensor_pairs=two_sides.pairs(first.tensors, second.tensors),
        changes=tuple(told),
    )


def _cut(data: Any, limit: int) -> Any:
    """The first samples of arrays; `None` for what is more than arrays."""
    parts = data
    if isinstance(data, dict):
        parts = list(data.values())
    elif not isinstance(data, (list, tuple)):
        parts = [data]
    if not all(isinstance(part, np.ndarray) for part in parts):
        return None
    if isinstance(data, dict):
        return {name: array[:limit] for name, array in data.items()}
    several = isinstance(data, (list, tuple))
    return [array[:limit] for array in data] if several else data[:limit]


def _answers(sources: Sequence[Source], data: Any) -> list[str]:
    """How the answers of two files differ."""
    first, second = sources
    if isinstance(first, PrecisionReport) or isinstance(
        second, PrecisionReport
    ):
        return []
    try:
        result = compare.compare_files(first, second, data)
    except ValueError as error:
        return [f"the answers can't be compared: {error}"]
    return [
        f"on {result.samples} {result.inputs} inputs {output.name} differs by "
        f"up to {output.relative_error:.2g} of its range"
        + (
            ""
            if output.agreement is None
            else f", and the class is the same in {output.agreement:.1%}"
        )
        for output in result.outputs
    ]

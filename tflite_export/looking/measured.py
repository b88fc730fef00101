"""Measures a file in a separate process."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from msq_tf.page.records import Answer
from msq_tf.page.records import Sample
from msq_tf.page.records import Tensor
from tflite_export.flatbuffer import model as fb
from tflite_export.looking import shown
from tflite_export.looking.file_layers import Weight
from tflite_export.runtime import sandbox
from tflite_export.text_tables import short

_MOST_SECONDS = 600.0
_LONGEST_NAME = 120
# Tensors that a page lists.
_MOST_TENSORS = 2000
# Share of values beyond a range that is worth a word.
_MANY_CLIPPED = 0.01


def measure(
    path: str | os.PathLike[str],
    samples: Sequence[np.ndarray],
    floats: Mapping[int, np.ndarray],
    given: Sequence[np.ndarray],
    labels: np.ndarray | None,
    decisions: Sequence[Mapping[str, Any] | None],
    trained: bool = False,
) -> dict[str, Any]:
    """Runs a file, see `measure_worker`.

    Args:
        path: The file.
        samples: Inputs, none to run it on random ones.
        floats: Float weights by the index of their tensor.
        given: What the float model gives, where the file has no float form.
        labels: True classes; `None` for none.
        decisions: How each output decides, fields of a `Decision`.
        trained: Whether the weights were trained in their quantized form: then
            those before rounding need not be a model.

    Raises:
        ValueError: If the file can't be run.
    """
    arrays = [*samples, *floats.values(), *given]
    if labels is not None:
        arrays.append(np.asarray(labels))
    request = {
        "path": str(path),
        "inputs": len(samples),
        "floats": list(floats),
        "given": len(given),
        "labels": labels is not None,
        "decisions": list(decisions),
        "trained": trained,
    }
    return json.loads(
        sandbox.run(
            "tflite_export.looking.measure_worker",
            request,
            arrays,
            _MOST_SECONDS,
            f"The interpreter can't run '{path}'",
        )
    )


def tensors(
    model: schema.ModelT,
    weights: Sequence[Weight],
    keys: Sequence[str],
    found: Mapping[str, Any],
    inputs: Sequence[str],
) -> tuple[Tensor, ...]:
    """Errors of each tensor, as a page shows them.

    Args:
        model: The parsed file.
        weights: Its weights.
        keys: Their keys.
        found: What `measure` gave.
        inputs: Names of the file's inputs.
    """
    graph = model.subgraphs[0]
    called = dict(zip(fb.inputs(graph), inputs, strict=True))
    by_operator = {
        weight.operator: key
        for weight, key in zip(weights, keys, strict=True)
        if weight.graph == 0
    }
    rows = []
    counts: dict[str, int] = {}
    for place, row in enumerate(found.get("tensors", ())[:_MOST_TENSORS]):
        position = row["operator"]
        operator = "INPUT"
        name = called.get(row["tensor"])
        if position is not None:
            op = graph.operators[position]
            operator = fb.op_name(model, op)
            if operator == "QUANTIZE":
                name = called.get(fb.inputs(op)[0])
        operator = short(operator, _LONGEST_NAME)
        name = short(
            name or fb.name(graph.tensors[row["tensor"]]), _LONGEST_NAME
        )
        layer = by_operator.get(position)
        number = counts[operator] = counts.get(operator, 0) + 1
        rows.append(
            Tensor(
                key=layer or f"{operator} {number}",
                name=name or layer or f"{operator} {number}",
                operator=operator,
                position=position,
                layer=layer,
                isolated=row["isolated"],
                accumulated=row["accumulated"],
                units=row["units"],
                rim=row["rim"],
                clipped=row["clipped"],
                wrong=place == found.get("wrong"),
            )
        )
    return tuple(rows)


def samples(
    found: Mapping[str, Any],
    names: Sequence[str],
    inputs: Sequence[np.ndarray],
    words: Sequence[str] | None = None,
) -> tuple[Sample, ...]:
    """The samples that are furthest apart, as a page shows them."""
    return tuple(
        Sample(
            number=row["number"],
            distance=row["distance"],
            inputs=tuple(
                shown.shown(short(name, _LONGEST_NAME), x, row["number"], words)
                for name, x in zip(names, inputs, strict=True)
            ),
            answers=tuple(_answer(answer) for answer in row["answers"]),
        )
        for row in found.get("samples", ())
    )


def _answer(row: Mapping[str, Any]) -> Answer:
    fields: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in row.items()
    }
    fields["name"] = short(fields["name"], _LONGEST_NAME)
    return Answer(**fields)


def findings(
    found: Mapping[str, Any], rows: Sequence[Tensor]
) -> tuple[str, ...]:
    """Sentences on where a file goes wrong, and what it is compared with."""
    told = []
    if found.get("floats") is False and "alike" in found:
        told.append(
            "the weights that training moves are no model by themselves: only "
            f"{found['alike']:.0%} of their answers are those of the trained "
            "one. Tensors are compared with the trained weights, as the codes "
            "have them, and float activations"
        )
    wrong = next((row for row in rows if row.wrong), None)
    if wrong is None:
        return (*told, *_clipped(rows))
    text = (
        f"{wrong.name} ({wrong.operator}) is the first tensor of which a third "
        f"or more is error: {wrong.accumulated:.1f} dB"
    )
    if wrong.isolated is not None:
        alone = wrong.isolated - (wrong.accumulated or 0.0) < 3.0
        text += f". Alone it has {wrong.isolated:.1f} dB: " + (
            "the error begins here" if alone else "most came before it"
        )
    return (*told, text, *_clipped(rows))


def _clipped(rows: Sequence[Tensor]) -> tuple[str, ...]:
    """A sentence on ranges that are too narrow for the inputs."""
    narrow = [row for row in rows if (row.clipped or 0.0) >= _MANY_CLIPPED]
    if not narrow:
        return ()
    first = narrow[0]
    most = max(narrow, key=lambda row: row.clipped or 0.0)
    worst = "" if most is first else f", and {most.clipped:.1%} of {most.name}"
    return (
        f"ranges are too narrow for these inputs at {len(narrow):,} of "
        f"{len(rows):,} tensors: {first.clipped:.1%} of the values of "
        f"{first.name} lie beyond its range{worst}. Calibrate on inputs like "
        "these",
    )


def without_names(rows: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Tensors that go by the layer whose weight computes them."""
    return tuple(
        dataclasses.replace(row, name=row.layer) if row.layer else row
        for row in rows
    )

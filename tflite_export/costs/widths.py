"""The file of a target with all weights at one width, and who reads them."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from msq_tf.core.quantized_network import QuantizedNetwork
from msq_tf.core.quantized_weight import QuantizedWeight
from tflite_export import steps
from tflite_export import target_file
from tflite_export import targets
from tflite_export.flatbuffer import model as fb
from tflite_export.matching.match import Match
from tflite_export.preparation import opening
from tflite_export.target_file import Built

# Samples to measure ranges on, which no cost depends on.
_SAMPLES = 8


@contextlib.contextmanager
def files_of(
    model: QuantizedNetwork,
    target: str,
    representative_data: Any = None,
    input_signature: Any = None,
    batch_size: int | None = None,
) -> Iterator[Files]:
    """Converts a model once, for files of it at any widths.

    Args:
        model: A quantized model, trained or not; it stays as it is.
        target: Name of an export target.
        representative_data: As in `export`.
        input_signature: As in `export`.
        batch_size: As in `export`.

    Raises:
        ExportError: If the model can't be converted.
    """
    known: Any = model
    begun = opening.opened(
        known,
        targets.load(target),
        representative_data,
        input_signature,
        batch_size,
        _SAMPLES,
        trained=False,
    )
    # Constants of a large model may lie there, as long as they are needed.
    with tempfile.TemporaryDirectory() as folder:
        yield Files(model, target, steps.convert(known, begun, folder))


class Files:
    """Files of one model at any widths.

    For other widths the codes alone are replaced, and their scales by the ratio
    of the steps. What the numbers are is only nearly right then, which changes
    no cost: operators, types and shapes are those of an export, and so are the
    codes.
    """

    def __init__(self, model: QuantizedNetwork, target: str, job: steps.Job):
        self._model = model
        self.target = targets.load(target)
        self._matching = job.matching
        self._plan: Any = job.plan(
            self.target, target_file.Limits(), calibrates=True
        )
        self.inputs = job.inputs

    def at(self, widths: Mapping[str, int]) -> Built:
        """The file with weights at some widths, by path.

        Raises:
            ExportError: If the target can't run a part of the model.
        """
        model = self._model
        weights = model.weights_at([widths[path] for path in model.paths])
        named = dict(zip(model.paths, weights, strict=True))
        matching = self._matching
        changed = dataclasses.replace(
            matching,
            matches=tuple(_changed(m, named) for m in matching.matches),
        )
        plan = dataclasses.replace(self._plan, matching=changed)
        built: Built = plan.build(self.target)
        return built


def _changed(match: Match, weights: Mapping[str, QuantizedWeight]) -> Match:
    weight = weights[match.weight.path]
    ratio = np.median(weight.step) / np.median(match.weight.step)
    scale = (match.fit.scale * ratio).astype(np.float32)
    return dataclasses.replace(
        match,
        weight=weight,
        fit=dataclasses.replace(match.fit, scale=scale),
        twins=tuple(_changed(twin, weights) for twin in match.twins),
    )


def readers(built: Built) -> dict[int, str]:
    """The weight that each operator reads first, by the operator's position.

    A DEQUANTIZE, RESHAPE or TRANSPOSE of the weight counts, and what reads the
    result. Operators without a quantized weight are not in it.
    """
    model = fb.read(built.data)
    graph = model.subgraphs[0]
    held = {
        record.tensor: record.match.weight.path
        for record in built.written
        if not record.match.constant.graph
    }
    found = {}
    for position, op in enumerate(graph.operators or ()):
        read = [held[i] for i in fb.inputs(op) if i in held]
        if not read:
            continue
        found[position] = read[0]
        constant = all(
            i in held or fb.raw_data(model, graph.tensors[i]) is not None
            for i in fb.inputs(op)
        )
        if constant:  # what it makes of the weight
            held |= dict.fromkeys(fb.outputs(op), read[0])
    return found


def by_path(
    paths: Sequence[str], rows: Mapping[int, float], reads: Mapping[int, str]
) -> tuple[dict[str, float], float]:
    """Sums figures of operators by weight, and those of all other operators.

    Args:
        paths: All quantized weights; one that no operator reads has 0.
        rows: A figure for each operator, by its position.
        reads: As of `readers`.
    """
    sums = dict.fromkeys(paths, 0.0)
    rest = 0.0
    for position, figure in rows.items():
        path = reads.get(position)
        if path is None:
            rest += figure
        else:
            sums[path] += figure
    return sums, rest

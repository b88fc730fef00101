"""Which weight of a model is in which constant of a file, told by its codes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from msq_tf.core.quantized_network import QuantizedNetwork
from msq_tf.core.quantized_weight import QuantizedWeight
from msq_tf.page.records import Layer
from msq_tf.reports import search_page
from msq_tf.reports.precision_report import PrecisionReport
from tflite_export.looking.file_layers import Weight
from tflite_export.matching import layouts


@dataclasses.dataclass(frozen=True)
class Joined:
    """A constant of a file and the weight whose codes it holds.

    Attributes:
        record: The weight.
        floats: float32 array of the constant's shape: what training moves,
            in the place of the codes.
    """

    record: QuantizedWeight
    floats: np.ndarray


def join(
    weights: Sequence[Weight], qmodel: QuantizedNetwork
) -> dict[int, Joined]:
    """Finds the weights of a model among those of a file.

    Args:
        weights: Those of the file.
        qmodel: The quantized model.

    Returns:
        What was found, by the place in `weights`. A weight with the codes of
        none in the model is left out.

    Raises:
        ValueError: If a weight of the model is not finite.
    """
    records = qmodel.quantized_weights()
    latent = [value.numpy() for value in qmodel.latent_weights()]
    found: dict[int, Joined] = {}
    taken: set[tuple[int, int]] = set()
    for place, weight in enumerate(weights):
        codes = weight.codes
        if codes is None or not weight.scales.size or not weight.plain:
            continue
        for number, record in enumerate(records):
            arrangement = _arrangement(codes, record)
            if arrangement is None or (number, arrangement.start) in taken:
                continue
            taken.add((number, arrangement.start))
            step = np.broadcast_to(record.step, record.codes.shape)
            # In steps of the grid: the file's scale may hold a batch norm.
            steps = arrangement.apply(latent[number] / step, weight.shape)
            scale = weight.per_element(weight.scales)
            found[place] = Joined(record, (steps * scale).astype(np.float32))
            break
    return found


def _arrangement(
    codes: np.ndarray, record: QuantizedWeight
) -> layouts.Arrangement | None:
    for arrangement in layouts.arrangements(
        record.layout, record.codes.shape, record.channel_axes, codes.shape
    ):
        if np.array_equal(arrangement.apply(record.codes, codes.shape), codes):
            return arrangement
    return None


def with_search(layer: Layer, joined: Joined, report: PrecisionReport) -> Layer:
    """A layer of a file with what its training decided."""
    path = joined.record.path
    entry = next(x for x in report.layers if x.path == path)
    known = search_page.layer(entry, report)
    bits = joined.record.bits
    same = layer.next_bits == known.next_bits
    return dataclasses.replace(
        layer,
        key=path,
        name=path,
        kind=f"{layer.kind} ({known.kind})",
        bits=bits,
        ideal_bytes=min(layer.ideal_bytes, -(-layer.size * bits // 8))
        if layer.bits <= bits
        else layer.ideal_bytes,
        dead=known.dead if layer.dead is None else layer.dead,
        channels=known.channels if layer.dead is None else layer.channels,
        next_cost=known.next_cost if same else None,
        sensitivity=known.sensitivity,
        predicted=known.predicted,
        why=known.why,
    )

"""Figures of a page as node data of Model Explorer, one file a metric."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

from msq_tf import atomic_files
from msq_tf.page.records import Side

# Model Explorer calls the graph of a file so.
_GRAPH = "main"
# Colours from a low figure to a high one; of an error low is bad.
_GOOD, _BAD = "#7fc8a9", "#e4744f"


def write(side: Side, folder: str | os.PathLike[str]) -> list[Path]:
    """Writes a JSON file for each figure that is known.

    Values are of the operator that computes with a weight, or that writes a
    tensor, by its place in the file. `model-explorer m.tflite
    --node_data_paths bits.json,error.json` shows them.

    Args:
        side: A side of a page that is a file.
        folder: Where to write; it is made.

    Returns:
        The files, in order.

    Raises:
        ValueError: If the side has nothing to write.
    """
    written = []
    for name, values in metrics(side).items():
        if not values:
            continue
        path = Path(folder) / f"{name}.json"
        tree = node_data(name, values)
        with atomic_files.replacing(path) as partial:
            partial.write_text(json.dumps(tree, indent=1, allow_nan=False))
        written.append(path)
    if not written:
        raise ValueError(
            "There is nothing to write for Model Explorer. Expected a file "
            "with weights in its main graph. Received: a side without"
        )
    return written


def node_data(name: str, values: dict[int, float]) -> dict[str, object]:
    """The tree of one file of node data."""
    ends = (_BAD, _GOOD) if name.startswith("error") else (_GOOD, _BAD)
    return {
        _GRAPH: {
            "name": name.replace("_", " "),
            "results": {
                str(place): {"value": value}
                for place, value in sorted(values.items())
            },
            "gradient": [
                {"stop": 0, "bgColor": ends[0]},
                {"stop": 1, "bgColor": ends[1]},
            ],
        }
    }


def metrics(side: Side) -> dict[str, dict[int, float]]:
    """Figures by the place of the operator, for each metric."""
    found: dict[str, dict[int, float]] = {
        name: {}
        for name in (
            "bits",
            "bytes",
            "error_isolated_db",
            "error_accumulated_db",
            "sensitivity",
            "predicted_cost",
        )
    }

    def put(name: str, place: int | None, value: float | None) -> None:
        if place is not None and value is not None and math.isfinite(value):
            found[name][place] = float(value)

    for layer in side.layers:
        place = layer.operator
        put("bits", place, layer.bits)
        if place is not None:
            before = found["bytes"].get(place, 0.0)
            put("bytes", place, before + layer.stored_bytes)
        put("sensitivity", place, layer.sensitivity)
        put("predicted_cost", place, layer.next_cost)
    for tensor in side.tensors:
        put("error_isolated_db", tensor.position, tensor.isolated)
        put("error_accumulated_db", tensor.position, tensor.accumulated)
    return found

"""Where a step's time goes, by TensorFlow's own profiler.

The same network in float and in MSQ's two phases; what each type of operation
takes in a step, summed over its nodes, says what MSQ adds and where. A profile
slows a step down: for how long a step takes, see `cost`.
"""

from __future__ import annotations

import collections
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import rich.console
import rich.table
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from benchmarks.harness import tables
from benchmarks.harness.networks import NETWORKS
from benchmarks.harness.networks import Network
from benchmarks.training_cost import methods

METHODS = (methods.FLOAT, methods.SEARCHING, methods.FROZEN)
_OPERATION = re.compile(r"[^:]+:([A-Za-z_]\w*)")
# Of these the cost table says that MSQ's step takes longest.
_NETWORKS = ("mobilenet_v2", "deit_tiny, small batch")
# Steps of a profile, and how many turns each method gets, one after another.
_STEPS = 5
_TURNS = 5
# Types of operations that a table has, those that MSQ adds most of.
SHOWN = 10


def measure() -> dict[str, Any]:
    """Profiles every network and method.

    Returns:
        For every network and method the milliseconds and the nodes of each
        type of operation in a step, the median of the turns; JSON values.
    """
    return {
        "steps": _STEPS,
        "turns": _TURNS,
        "networks": {name: _profiled(NETWORKS[name]) for name in _NETWORKS},
    }


def _profiled(network: Network) -> dict[str, Any]:
    keras.backend.clear_session()
    x, y = network.batch()
    models = {name: methods.build(name, network.build()) for name in METHODS}
    for model in models.values():
        for _ in range(3):
            model.train_on_batch(x, y)
    turns: dict[str, list[dict[str, tuple[float, float]]]] = {
        name: [] for name in METHODS
    }
    for _ in range(_TURNS):
        for name, model in models.items():
            with tempfile.TemporaryDirectory() as folder:
                with tf.profiler.experimental.Profile(folder):
                    for _ in range(_STEPS):
                        model.train_on_batch(x, y)
                (path,) = Path(folder).rglob("*.xplane.pb")
                space = xplane_pb2.XSpace.FromString(path.read_bytes())
            turns[name].append(by_type(events(space), _STEPS))
    return {
        name: {
            kind: {
                "ms": _median(t.get(kind, (0.0, 0.0))[0] for t in all_turns),
                "nodes": max(t.get(kind, (0.0, 0.0))[1] for t in all_turns),
            }
            for kind in sorted(set().union(*all_turns))
        }
        for name, all_turns in turns.items()
    }


def _median(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def events(space: Any) -> Iterable[tuple[str, float]]:
    """Names and milliseconds of what the processor's threads ran.

    Args:
        space: An `XSpace` of the profiler.
    """
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                metadata = plane.event_metadata[event.metadata_id]
                yield metadata.name, event.duration_ps / 1e9


def by_type(
    found: Iterable[tuple[str, float]], steps: int
) -> dict[str, tuple[float, float]]:
    """Milliseconds and nodes in a step by type of operation.

    The profiler names an operation `node:Type`; everything else it saw, such
    as the executor around them, is left out.

    Args:
        found: Names and milliseconds.
        steps: Number of steps that they come from.
    """
    milliseconds: collections.Counter[str] = collections.Counter()
    nodes: collections.Counter[str] = collections.Counter()
    for name, duration in found:
        operation = _OPERATION.fullmatch(name)
        if operation:
            kind = operation[1]
            milliseconds[kind] += duration
            nodes[kind] += 1
    return {
        kind: (milliseconds[kind] / steps, nodes[kind] / steps)
        for kind in milliseconds
    }


def added(network: dict[str, Any]) -> list[str]:
    """Types of operations, those first on which MSQ's search spends more."""
    plain, msq = network[methods.FLOAT], network[methods.SEARCHING]

    def more(kind: str) -> float:
        return msq[kind]["ms"] - plain.get(kind, {"ms": 0.0})["ms"]

    return sorted(msq, key=more, reverse=True)


def total(row: dict[str, Any]) -> float:
    """Milliseconds of all operations of a step, over all threads."""
    return sum(kind["ms"] for kind in row.values())


def rows(network: dict[str, Any]) -> list[tuple[str, ...]]:
    """The types that MSQ adds most of, and all, as text."""
    found = []
    for kind in added(network)[:SHOWN]:
        cells = [kind]
        for method in METHODS:
            entry = network[method].get(kind, {"ms": 0.0, "nodes": 0.0})
            cells += [f"{entry['ms']:.1f}", f"{entry['nodes']:.0f}"]
        found.append(tuple(cells))
    cells = ["all"]
    for method in METHODS:
        nodes = sum(kind["nodes"] for kind in network[method].values())
        cells += [f"{total(network[method]):.1f}", f"{nodes:.0f}"]
    return [*found, tuple(cells)]


COLUMNS = (
    "operation",
    *(f"{name}: {unit}" for name in METHODS for unit in ("ms", "nodes")),
)


def table(results: dict[str, Any]) -> rich.console.Group:
    """A table for every network."""
    return rich.console.Group(
        *(
            tables.filled(f"{name}: what a step runs", COLUMNS, rows(network))
            for name, network in results["networks"].items()
        )
    )

"""How a training step grows with width and depth: float, MSQ and BSQ.

Residual networks for small images, ever wider and ever deeper. Steps of the
methods are timed in turn in one process; memory is what the peak of a step
adds to what a process held before it built the model, in a process of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from benchmarks.harness import networks
from benchmarks.harness import timing
from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import ran
from benchmarks.harness.markdown import table
from benchmarks.harness.networks import Network
from benchmarks.training_cost import methods
from benchmarks.training_cost import step

METHODS = (methods.FLOAT, methods.SEARCHING, methods.FROZEN, methods.BSQ)
# What grows, and against what.
ALONG = {"width": networks.WIDER, "depth": networks.DEEPER}


def measure(rounds: int = 15) -> dict[str, Any]:
    """Measures every network along both ways to grow.

    Args:
        rounds: Timed steps of each method.

    Returns:
        For `"width"` and `"depth"` the points with their methods, and the
        fitted exponents; JSON values.
    """
    found: dict[str, Any] = {"rounds": rounds, "batch_size": 32}
    for name, grown in ALONG.items():
        points = [_point(factor, n, rounds) for factor, n in grown.items()]
        found[name] = {"points": points, "exponents": exponents(points)}
    return found


def _point(factor: int, network: Network, rounds: int) -> dict[str, Any]:
    keras.backend.clear_session()
    x, y = network.batch()
    models = {name: methods.build(name, network.build()) for name in METHODS}
    seconds = timing.interleaved(
        {
            name: lambda model=model: model.train_on_batch(x, y)  # type: ignore[misc]
            for name, model in models.items()
        },
        rounds,
    )
    rows = {}
    for name in METHODS:
        memory = step.memory(network.name, name)
        rows[name] = {
            "step_ms": timing.milliseconds(seconds[name]),
            "step_ratio": timing.ratio(seconds, name, methods.FLOAT),
            "step_mib": memory["step_mib"] - memory["start_mib"],
        }
    weights = methods.counts(models[methods.FLOAT])["trainable"]
    return {"factor": factor, "parameters": weights, "methods": rows}


def exponents(points: list[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Exponents of step time and memory against the number of parameters.

    Returns:
        By method, `"time"` and `"memory"`.
    """
    sizes = [point["parameters"] for point in points]

    def fitted(name: str, key: str) -> float:
        return timing.exponent(sizes, [p["methods"][name][key] for p in points])

    return {
        name: {
            "time": fitted(name, "step_ms"),
            "memory": fitted(name, "step_mib"),
        }
        for name in points[0]["methods"]
    }


def rows(grown: dict[str, Any]) -> list[tuple[str, ...]]:
    """The points of one way to grow as text, and the exponents."""
    found = []
    for point in grown["points"]:
        by = point["methods"]
        found.append(
            (
                f"x{point['factor']}",
                f"{point['parameters']:,}",
                f"{by[methods.FLOAT]['step_ms']:.1f}",
                *(f"{by[m]['step_ratio']:.2f}x" for m in METHODS[1:]),
                *(f"{by[m]['step_mib']:,.0f}" for m in METHODS),
            )
        )
    fitted = grown["exponents"]
    found.append(
        (
            "exponent",
            "",
            *(f"{fitted[m]['time']:.2f}" for m in METHODS),
            *(f"{fitted[m]['memory']:.2f}" for m in METHODS),
        )
    )
    return found


def markdown(content: dict[str, Any]) -> str:
    """A table for each way to grow, with the fitted exponents."""
    results = content["results"]
    columns = (
        "parameters",
        *(f"{method}: ms" for method in METHODS[:1]),
        *(f"{method}: of float" for method in METHODS[1:]),
        *(f"{method}: MiB" for method in METHODS),
    )
    return page(
        f"{ran(content['environment'])}: residual networks for 16 x 16 images, "
        f"batches of {results['batch_size']}, medians of {results['rounds']} "
        "interleaved rounds; MiB are what the peak of a step adds to the "
        "memory of the process before, in a process for each cell.",
        *(table((name, *columns), rows(results[name])) for name in ALONG),
    )

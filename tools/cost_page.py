"""Tables of what training costs, from the results of `benchmarks cost`."""

from __future__ import annotations

from typing import Any

from benchmarks.training_cost import methods
from benchmarks.training_cost import statistics as statistics_cost
from benchmarks.training_cost import step as benchmark
from tools import markdown

_NAMES = {
    methods.FLOAT: "float",
    methods.AGAIN: "float, a second model",
    methods.SEARCHING: "MSQ, searching",
    methods.FROZEN: "MSQ, bits frozen",
    methods.BSQ: "BSQ",
    methods.CSQ: "CSQ",
}


def tables(cost: dict[str, Any]) -> str:
    """All rows, and what a search adds."""
    columns = (
        "network",
        "weights",
        "step of a default run, mean",
        "Hessian probe, all of them",
        "change of all widths",
        "retraces",
    )
    rows = benchmark.search_rows(cost["results"])
    lines = [_steps(cost), *markdown.table(columns, rows), ""]
    return "\n".join(lines)


def statistics(content: dict[str, Any]) -> str:
    """What a whole search's statistics take.

    Args:
        content: What `benchmarks/results/statistics.json` holds.
    """
    ran = markdown.ran(content["environment"], "a process a network")
    rows = statistics_cost.rows(content["results"])
    lines = [f"{ran}:", "", *markdown.table(statistics_cost.COLUMNS, rows)]
    return "\n".join([*lines, ""])


def _title(name: str) -> str:
    """A network's name without what tells it from the same at another batch."""
    return name.partition(",")[0]


def _steps(cost: dict[str, Any]) -> str:
    results, rows = cost["results"], []
    for name, network in results["networks"].items():
        height, width, channels = network["input_shape"]
        size = f"{network['batch_size']} x {height}x{width}x{channels}"
        label = f"{_title(name)}, {size}"
        rows += [
            (label, _NAMES[method], *benchmark.cells(network, row))
            for method, row in network["methods"].items()
        ]
    ran = markdown.ran(
        cost["environment"],
        f"medians of {results['rounds']} interleaved rounds in one process",
        results["optimizer"],
        "random weights and inputs",
    )
    lines = [
        f"{ran}; memory is resident, of a process for each row:",
        "",
        *markdown.table(
            (
                "network",
                "method",
                "trainable",
                "optimizer slots",
                "step",
                "prediction",
                "peak of a step, MiB",
                "of float",
                "peak with tracing, MiB",
            ),
            rows,
            left=2,
        ),
    ]
    return "\n".join([*lines, ""])

"""Tables of what training costs, from the results of `benchmarks cost`."""

from __future__ import annotations

from typing import Any

from benchmarks import cost as benchmark
from benchmarks import methods
from tools import markdown

_NAMES = {
    methods.FLOAT: "float",
    methods.AGAIN: "float, a second model",
    methods.SEARCHING: "MSQ, searching",
    methods.FROZEN: "MSQ, bits frozen",
    methods.BSQ: "BSQ",
    methods.CSQ: "CSQ",
}
# What the README shows; docs/performance.md has all.
_FEW = ("resnet8", "deit_tiny")


def summary(cost: dict[str, Any]) -> str:
    """A few rows for the README."""
    return _steps(cost, _FEW)


def tables(cost: dict[str, Any]) -> str:
    """All rows, and what a search adds."""
    columns = (
        "network",
        "weights",
        "Hessian probe, all of them",
        "change of all widths",
        "retraces",
    )
    rows = benchmark.search_rows(cost["results"])
    steps = _steps(cost, cost["results"]["networks"])
    return "\n".join([steps, *markdown.table(columns, rows), ""])


def _steps(cost: dict[str, Any], names: Any) -> str:
    results, rows = cost["results"], []
    for name in names:
        network = results["networks"][name]
        height, width, channels = network["input_shape"]
        label = f"{name}, {network['batch_size']} x {height}x{width}x{channels}"
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

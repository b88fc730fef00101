"""Tables of what training costs, from the results of `benchmarks cost`."""

from __future__ import annotations

from typing import Any

from benchmarks import cost as benchmark
from benchmarks import methods

_NAMES = {
    methods.FLOAT: "float",
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
    networks = cost["results"]["networks"]
    lines = [
        _steps(cost, networks),
        "| network | weights | Hessian probe, all of them | change of all "
        "widths | retraces |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, network in networks.items():
        hessian, change = network["hessian"], network["change"]
        lines.append(
            f"| {name} | {network['layers']} | "
            f"{hessian['probe_in_gradients']:.2f} gradients | "
            f"{change['ms']:.2f} ms, {change['in_steps']:.3f} steps | "
            f"{change['retraces']} |"
        )
    return "\n".join([*lines, ""])


def _steps(cost: dict[str, Any], names: Any) -> str:
    results, environment = cost["results"], cost["environment"]
    lines = [
        f"`{environment['command']}`, medians of {results['rounds']} "
        f"interleaved rounds in one process, {results['optimizer']}, random "
        f"weights and inputs, {environment['date']}, {environment['cores']} "
        "cores; memory is resident, of a process for each row:",
        "",
        "| network | method | trainable | optimizer slots | step | prediction "
        "| peak of a step, MiB | of float | peak with tracing, MiB |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in names:
        network = results["networks"][name]
        height, width, channels = network["input_shape"]
        label = f"{name}, {network['batch_size']} x {height}x{width}x{channels}"
        lines += [
            f"| {label} | {_NAMES[method]} | "
            f"{' | '.join(benchmark.cells(network, row))} |"
            for method, row in network["methods"].items()
        ]
    return "\n".join([*lines, ""])

"""How a step grows and where its time goes, for docs/performance.md."""

from __future__ import annotations

from typing import Any

from benchmarks.training_cost import profile as profile_benchmark
from benchmarks.training_cost import scaling as scaling_benchmark
from tools import markdown


def scaling(content: dict[str, Any]) -> str:
    """A table for each way to grow, with the fitted exponents.

    Args:
        content: What `benchmarks/results/scaling.json` holds.
    """
    results, environment = content["results"], content["environment"]
    lines = [
        f"{markdown.ran(environment)}: residual networks for 16 x 16 images, "
        f"batches of {results['batch_size']}, medians of {results['rounds']} "
        "interleaved rounds; MiB are what the peak of a step adds to what the "
        "process held before, in a process for each cell.",
        "",
    ]
    for name in scaling_benchmark.ALONG:
        lines += [
            *markdown.table(
                scaling_benchmark.columns(name),
                scaling_benchmark.rows(results[name]),
            ),
            "",
        ]
    return "\n".join(lines)


def profile(content: dict[str, Any]) -> str:
    """What a step runs, by type of operation, for every network.

    Args:
        content: What `benchmarks/results/step_profile.json` holds.
    """
    results, environment = content["results"], content["environment"]
    lines = [
        f"{markdown.ran(environment)}: TensorFlow's profiler, medians of "
        f"{results['turns']} turns of {results['steps']} steps; milliseconds "
        "are summed over threads. The operations on which a searching step "
        "spends more than the float step, the most first:",
        "",
    ]
    for name, network in results["networks"].items():
        columns = (name, *profile_benchmark.COLUMNS[1:])
        lines += [*markdown.table(columns, profile_benchmark.rows(network)), ""]
    return "\n".join(lines)

"""Tables of a large model and of a long run, from their results."""

from __future__ import annotations

from typing import Any

from benchmarks.files import large
from benchmarks.files import large_run
from benchmarks.training_cost import long_run
from tools import markdown


def large_section(content: dict[str, Any]) -> str:
    """Phases of a large model, and how exports grow.

    Args:
        content: What `benchmarks/results/large.json` holds.
    """
    results, environment = content["results"], content["environment"]
    plain, bounds = results["float"], results["bounds"]
    lines = [
        f"`{environment['command']}`: a vision transformer of "
        f"{results['depth']} blocks of {results['width']} features, "
        f"{plain['parameters'] / 1e6:.1f} million parameters, "
        f"{plain['float_mib']:,.0f} MiB of float weights, on batches of "
        f"{large_run.BATCH} images of {large_run.SHAPE[0]}x"
        f"{large_run.SHAPE[1]}, SGD with momentum, {environment['date']}, "
        f"{environment['cores']} cores. A process for each of float, MSQ and "
        "the exporter; MiB are resident, *above* is the peak above what was "
        "resident before the phase, in multiples of the float weights:",
        "",
        *markdown.table(
            (
                "process",
                "phase",
                "s",
                "processor s",
                "before, MiB",
                "peak, MiB",
                "after, MiB",
                "above",
            ),
            large.rows(results),
            left=2,
        ),
        "",
        f"Preparing adds {bounds['prepare']:.2f} of the float weights. A step "
        f"of MSQ peaks {bounds['step']:.2f} of them above a float step, and "
        f"{bounds['first_steps']:.2f} where it is traced. The search took "
        f"{results['msq']['decisions']} decisions on "
        f"{results['msq']['weights']} weights, with "
        f"{results['msq']['changes']} changes. An export peaks "
        f"{bounds['export']:.1f} of them above the model: "
        f"{bounds['export_converter']:.1f} inside of TensorFlow's converter, "
        f"{bounds['export_outside']:.1f} in all the rest.",
        "",
        f"Exports of the same network for `{large_run.TARGET}`, of other "
        "widths:",
        "",
        "| parameters | float weights, MiB | s | of that the converter | "
        "its runs | above, MiB | | outside of the converter, MiB | | "
        "file, bytes |",
        f"| --- |{' ---: |' * 9}",
        *(f"| {' | '.join(row)} |" for row in large.export_rows(results)),
        "",
        "| | exponent | of the largest three | a million parameters | "
        "at none |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, key, unit in (
        ("time", "seconds", "s"),
        ("processor time", "cpu_seconds", "s"),
        ("memory above the start", "mib", "MiB"),
    ):
        row = results["growth"][key]
        lines.append(
            f"| {name} | {row['exponent']:.2f} | "
            f"{row['exponent_of_largest_three']:.2f} | "
            f"{row['per_million']:.2f} {unit} | {row['at_zero']:.0f} {unit} |"
        )
    return "\n".join([*lines, ""])


def long_section(content: dict[str, Any]) -> str:
    """What a long run held and took, at its start and its end.

    Args:
        content: What `benchmarks/results/long_run.json` holds.
    """
    results, environment = content["results"], content["environment"]
    lines = [
        f"`{environment['command']}`: {results['steps']:,} steps of a network "
        f"of {results['weights']} weights, a decision every "
        f"{results['every']}, {results['decisions']} in all, seed 0, "
        f"{environment['date']}, {environment['cores']} cores; medians of "
        f"{long_run.WINDOW:,} steps behind a warm-up of as many, and of the "
        "last; the float model steps in between:",
        "",
        *markdown.table(("", "start", "end", "change"), long_run.rows(results)),
    ]
    return "\n".join([*lines, ""])

"""Time and memory of a model of 100 million parameters, phase by phase.

A vision transformer of ViT-B's width on small images, so that weights are what
takes memory: a float step, preparing, an MSQ step, a few decisions of a search,
an export; and exports of smaller ones, to see how it grows. Every part runs in
a process of its own, see `large_run`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.files import large_run
from benchmarks.harness import child as processes
from benchmarks.harness import timing
from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import table

WIDTH, DEPTH = 768, 14
# Features of a token that give about 1, 3, 10 and 30 million parameters.
SMALLER = (78, 132, 240, 432)
PHASES = ("build", "prepare", "first steps", "step", "search", "export")


def measure(
    width: int = WIDTH, depth: int = DEPTH, smaller: Sequence[int] = SMALLER
) -> dict[str, Any]:
    """Measures the model, and exports of narrower ones.

    Args:
        width: Features of a token.
        depth: Number of blocks, also of the narrower models.
        smaller: Widths of these.

    Returns:
        What each part took, the bounds and the exponents; JSON values.
    """
    runs = {part: child(part, width, depth) for part in ("float", "msq")}
    exports = [child("export", w, depth) for w in (*smaller, width)]
    return {
        "width": width,
        "depth": depth,
        **runs,
        "exports": exports,
        "bounds": bounds(runs["float"], runs["msq"], exports[-1]),
        "growth": growth(exports),
    }


def child(part: str, width: int, depth: int) -> dict[str, Any]:
    """`large_run.run` in a process of its own."""
    return processes.measured("benchmarks.files.large_run", part, width, depth)


def bounds(
    plain: dict[str, Any], msq: dict[str, Any], exported: dict[str, Any]
) -> dict[str, float]:
    """Memory in multiples of the float weights.

    Args:
        plain: What the part `float` found.
        msq: What the part `msq` found.
        exported: What the part `export` found.

    Returns:
        `prepare` and `prepare_peak`, what preparing adds for good and at its
        peak; `step` and `first_steps`, what an MSQ step peaks above a float
        step, graphs included; `search`, what a search peaks above what is
        resident before it;
        `export`, the same, `export_converter` in TensorFlow's converter and
        `export_outside` in the rest.
    """
    phases, size = msq["phases"], msq["float_mib"]
    prepare, search = phases["prepare"], phases["search"]
    export = exported["phases"]["export"]
    steps = {
        name: phases[phase]["peak_mib"] - plain["phases"][phase]["peak_mib"]
        for name, phase in (("first_steps", "first steps"), ("step", "step"))
    }
    start = export["before_mib"]
    found = {
        "prepare": prepare["after_mib"] - prepare["before_mib"],
        "prepare_peak": prepare["peak_mib"] - prepare["before_mib"],
        **steps,
        "search": search["peak_mib"] - search["before_mib"],
        "export": export["peak_mib"] - start,
        "export_converter": export["converter"]["peak_mib"] - start,
        "export_outside": export["peak_outside_mib"] - start,
    }
    return {name: round(mib / size, 3) for name, mib in found.items()}


def growth(exports: list[dict[str, Any]]) -> dict[str, Any]:
    """How exports grow with the model.

    Args:
        exports: What the parts `export` found, the smallest model first.

    Returns:
        For seconds and MiB above the start, over all models and the largest
        three: the exponent, which is the slope of least squares on logarithms;
        and the slope of a straight line, per million parameters.
    """
    millions = [e["parameters"] / 1e6 for e in exports]
    found: dict[str, Any] = {}
    for name, values in (
        ("seconds", [e["phases"]["export"]["seconds"] for e in exports]),
        (
            "cpu_seconds",
            [e["phases"]["export"]["cpu_seconds"] for e in exports],
        ),
        ("mib", [above_start(e) for e in exports]),
    ):
        line, at_zero = np.polyfit(millions, values, 1)
        found[name] = {
            "exponent": round(timing.exponent(millions, values), 3),
            "exponent_of_largest_three": round(
                timing.exponent(millions[-3:], values[-3:]), 3
            ),
            "per_million": round(float(line), 3),
            "at_zero": round(float(at_zero), 1),
        }
    return found


def above_start(exported: dict[str, Any]) -> float:
    """MiB of an export's peak above what was resident before it."""
    phase = exported["phases"]["export"]
    return phase["peak_mib"] - phase["before_mib"]


def rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """Model, phase, seconds, MiB before, at the peak and after, multiples."""
    found = []
    parts = (
        ("float", results["float"]),
        ("MSQ", results["msq"]),
        ("MSQ, exporter", results["exports"][-1]),
    )
    for name, part in parts:
        for phase in PHASES:
            row = part["phases"].get(phase)
            if row is None or (phase == "build" and name != "float"):
                continue
            above = row["peak_mib"] - row["before_mib"]
            found.append(
                (
                    name,
                    phase,
                    f"{row['seconds']:,.1f}",
                    f"{row['cpu_seconds']:,.1f}",
                    f"{row['before_mib']:,.0f}",
                    f"{row['peak_mib']:,.0f}",
                    f"{row['after_mib']:,.0f}",
                    f"{above / part['float_mib']:.2f}x",
                )
            )
    return found


def export_rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """Parameters, seconds, runs, MiB above the start, and multiples."""
    found = []
    for part in results["exports"]:
        phase, size = part["phases"]["export"], part["float_mib"]
        start = phase["before_mib"]
        outside = phase["peak_outside_mib"] - start
        found.append(
            (
                f"{part['parameters'] / 1e6:.1f} million",
                f"{size:,.1f}",
                f"{phase['seconds']:,.1f}",
                f"{phase['converter']['seconds']:,.1f}",
                str(phase["converter"]["runs"]),
                f"{above_start(part):,.0f}",
                f"{above_start(part) / size:.1f}x",
                f"{outside:,.0f}",
                f"{outside / size:.1f}x",
                f"{part['file_bytes']:,}",
            )
        )
    return found


def markdown(content: dict[str, Any]) -> str:
    """The phases, and how exports grow."""
    results, environment = content["results"], content["environment"]
    plain, msq, found = results["float"], results["msq"], results["bounds"]
    phases = (
        "process",
        "phase",
        "s",
        "processor s",
        "before, MiB",
        "peak, MiB",
        "after, MiB",
        "above",
    )
    exports = (
        "parameters",
        "float weights, MiB",
        "s",
        "converter, s",
        "converter runs",
        "above, MiB",
        "",
        "outside of the converter, MiB",
        "",
        "file, bytes",
    )
    fits = ("", "exponent", "of the largest three", "per million parameters")
    return page(
        f"`{environment['command']}`: a vision transformer of "
        f"{results['depth']} blocks of {results['width']} features, "
        f"{plain['parameters'] / 1e6:.1f} million parameters, "
        f"{plain['float_mib']:,.0f} MiB of float weights, on batches of "
        f"{large_run.BATCH} images of {large_run.SHAPE[0]}x"
        f"{large_run.SHAPE[1]}, SGD with momentum, {environment['date']}, "
        f"{environment['cores']} cores. A process for each of float, MSQ and "
        "the exporter; MiB are resident, *above* is the peak above the "
        "resident memory before the phase, in multiples of the float weights:",
        table(phases, rows(results), left=2),
        f"Preparing adds {found['prepare']:.2f} of the float weights. A step "
        f"of MSQ peaks {found['step']:.2f} of them above a float step, and "
        f"{found['first_steps']:.2f} while it is traced. The search took "
        f"{msq['decisions']} decisions on {msq['weights']} weights, with "
        f"{msq['changes']} changes. An export peaks "
        f"{found['export']:.1f} of them above the model: "
        f"{found['export_converter']:.1f} inside of TensorFlow's converter, "
        f"{found['export_outside']:.1f} outside of it.",
        f"Exports for `{large_run.TARGET}` of the same network with other "
        "numbers of features:",
        table(exports, export_rows(results)),
        table((*fits, "at zero parameters"), _growth_rows(results["growth"])),
    )


def _growth_rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            name,
            f"{found[key]['exponent']:.2f}",
            f"{found[key]['exponent_of_largest_three']:.2f}",
            f"{found[key]['per_million']:.2f} {unit}",
            f"{found[key]['at_zero']:.0f} {unit}",
        )
        for name, key, unit in (
            ("time", "seconds", "s"),
            ("processor time", "cpu_seconds", "s"),
            ("memory above the start", "mib", "MiB"),
        )
    ]

"""Tables of docs/zoo.md, from the benchmark's results."""

from __future__ import annotations

from typing import Any

from benchmarks.files import zoo
from benchmarks.files import zoo_run
from benchmarks.files.zoo_models import ROWS
from tools import markdown


def zoo_tables(results: dict[str, Any]) -> str:
    """What was quantized, and what came of every export, with reasons."""
    environment = results["environment"]
    models = results["results"]["models"]
    bits = ", ".join(map(str, results["results"]["bits"]))
    ran = markdown.ran(
        environment,
        f"Keras {environment['versions']['keras']}",
        f"LiteRT {environment['versions']['ai-edge-litert']}",
    )
    lines = [
        f"{ran}, a process for each model; seconds are processor time.",
        "",
        *markdown.table(
            (
                "family",
                "model",
                "input",
                "weights",
                "quantized",
                "8 bits against float",
                "noise as large",
                "prepare",
                "peak MiB",
            ),
            map(_prepared, models),
            left=2,
        ),
        "",
        f"Then exported with the bits {bits} cycling over the weights; bytes "
        "and seconds of each file that was verified:",
        "",
        *markdown.table(
            ("model", "float", *(f"`{name}`" for name in zoo_run.TARGETS)),
            map(_exported, models),
        ),
        "",
        *_reasons(models),
    ]
    return "\n".join([*lines, ""])


def _prepared(run: dict[str, Any]) -> tuple[str, ...]:
    if "noise" not in run:
        reason = run.get("reason", "")
        return (run["family"], run["name"], reason, *[""] * 6)
    pixels = run["input"][0]
    return (
        run["family"],
        run["name"],
        f"{pixels} x {pixels}",
        f"{run['coverage']['elements']:,}",
        f"{100 * zoo.share(run):.4g} %",
        f"{100 * run['forward']['mean']:.2f} %",
        f"{100 * run['noise']['mean']:.2f} %",
        f"{run['prepare']['cpu_seconds']:.2f}",
        f"{zoo.peak_mib(run):,}",
    )


def _exported(run: dict[str, Any]) -> list[str]:
    exports = run.get("exports", {})
    whole = next(
        (e["float_bytes"] for e in exports.values() if "float_bytes" in e), None
    )
    cells = [run["name"], "" if whole is None else f"{whole:,}"]
    for target in zoo_run.TARGETS:
        entry = exports.get(target, {"outcome": "not reached"})
        verified = entry["outcome"] == "verified"
        cells.append(
            f"{entry['bytes']:,} in {entry['cpu_seconds']:.0f} s"
            if verified
            else entry["outcome"]
        )
    return cells


def _reasons(models: list[dict[str, Any]]) -> list[str]:
    """A list of what is not quantized and of what is not verified."""
    lines = []
    for run in models:
        for path, reason in run.get("coverage", {}).get("left_out", {}).items():
            lines.append(f"- {run['name']}: `{path}` stays float: {reason}")
        for target, entry in run.get("exports", {}).items():
            if entry["outcome"] != "verified":
                lines.append(
                    f"- {run['name']}, `{target}`, {entry['outcome']}: "
                    f"{entry.get('reason', '')}"
                )
        if run.get("reason"):
            lines.append(f"- {run['name']}: {run['reason']}")
    known = {run["name"] for run in models}
    missing = [row.name for row in ROWS if row.name not in known]
    if missing:
        lines.append(f"- not run yet: {', '.join(missing)}")
    if not lines and all(zoo.share(run) == 1.0 for run in models):
        return [
            "Nothing is left out: all weights of all families are quantized, "
            "and every file is verified."
        ]
    return lines

"""Every architecture of keras.applications: coverage, exports, memory, time.

Random weights, normalizations as after training, bits 2 to 8 cycling over the
weights; see `zoo_models` for the rows and `zoo_run` for what is done with one.
Each model has a process of its own, so that peaks of memory are its own. What
is in `results/zoo.json` is not run again; remove it to start anew.
"""

from __future__ import annotations

from typing import Any

from benchmarks.files import zoo_run
from benchmarks.files.zoo_models import ROWS
from benchmarks.harness import processes
from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import ran
from benchmarks.harness.markdown import table

NAME = "zoo"
# Of these a table says what compressors recover.
_PACKED = ("MobileNetV2", "MobileNetV3Small", "EfficientNetV2B0", "DenseNet121")


def measure() -> dict[str, Any]:
    """Runs the models that are missing, one after the other.

    Returns:
        The entries of `zoo_run`, in the order of the rows; JSON values.
    """
    done = processes.measure(
        NAME, ROWS, "benchmarks.files.zoo_run", zoo_run.TARGETS
    )
    return {"bits": list(zoo_run.BITS)} | processes.content(ROWS, done)


def share(run: dict[str, Any]) -> float:
    """Share of a model's weights that is quantized."""
    return run["coverage"]["quantized"] / run["coverage"]["elements"]


def peak_mib(run: dict[str, Any]) -> int:
    """Most memory that the process of a model held."""
    entries = [run[name] for name in ("built", "prepare") if name in run]
    entries += run.get("exports", {}).values()
    return max((entry.get("peak_mib", 0) for entry in entries), default=0)


def markdown(content: dict[str, Any]) -> str:
    """What was quantized, and what came of every export, with reasons."""
    environment = content["environment"]
    models = content["results"]["models"]
    bits = ", ".join(map(str, zoo_run.BITS))
    facts = ran(
        environment,
        f"Keras {environment['versions']['keras']}",
        f"LiteRT {environment['versions']['ai-edge-litert']}",
    )
    columns = (
        "family",
        "model",
        "input",
        "weights",
        "quantized",
        "8 bits against float",
        "noise as large",
        "prepare",
        "peak MiB",
    )
    return page(
        f"{facts}, a process for each model; seconds are processor time.",
        table(columns, map(_prepared, models), left=2),
        f"Then exported with the bits {bits} cycling over the weights; bytes "
        "and seconds of each file that was verified:",
        table(
            ("model", "float", *(f"`{name}`" for name in zoo_run.TARGETS)),
            map(_exported, models),
        ),
        _reasons(models),
    )


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
        f"{100 * share(run):.4g} %",
        f"{100 * run['forward']['mean']:.2f} %",
        f"{100 * run['noise']['mean']:.2f} %",
        f"{run['prepare']['cpu_seconds']:.2f}",
        f"{peak_mib(run):,}",
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
    if not lines and all(share(run) == 1.0 for run in models):
        return [
            "Nothing is left out: all weights of all families are quantized, "
            "and every file is verified."
        ]
    return lines


def packed(content: dict[str, Any]) -> str:
    """What compressors recover of files whose widths are between containers."""
    results = content["results"]
    models = {model["name"]: model for model in results["models"]}
    bits = ", ".join(map(str, zoo_run.BITS))
    rows = []
    for name in _PACKED:
        files = models[name]["exports"]
        whole, small = files["cpu_float"], files["min_size"]
        rows.append(
            (
                name,
                f"{whole['float_bytes']:,}",
                *(
                    f"{file['bytes']:,}, {file['deflated_bytes']:,}"
                    for file in (whole, small)
                ),
                f"{small['ideal_bytes']:,}",
            )
        )
    return page(
        f"`python -m benchmarks zoo`, random weights, the bits {bits} in turn, "
        f"{content['environment']['date']}:",
        table(
            (
                "model",
                "float",
                "`cpu_float`, deflated",
                "`min_size`, deflated",
                "ideal",
            ),
            rows,
        ),
    )

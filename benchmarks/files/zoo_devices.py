"""The zoo on what this machine does not have: ARM, an NPU, and a browser.

All are emulated, so outputs are compared and nothing is timed. Models, widths
and processes are those of `zoo`; the scores are what is compared, without the
softmax, which would flatten the differences of random weights.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import msq_tf
from benchmarks.files import zoo_run
from benchmarks.files.zoo_models import ROWS
from benchmarks.files.zoo_models import Row
from benchmarks.files.zoo_models import build
from benchmarks.files.zoo_models import images
from benchmarks.harness import child
from benchmarks.harness import exports
from benchmarks.harness import processes
from benchmarks.harness import record
from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import ran
from benchmarks.harness.markdown import table
from tflite_export.devices import arm
from tflite_export.devices import web

NAME = "zoo_devices"
_SAMPLES = 4
_SOC = "SM8650"
_ARM, _NPU, _WEB = "arm", "qualcomm_npu", "web"
_NOT_RUN = {"outcome": "not run yet"}
# How each is exported: the target, and the arguments besides.
_HOW: dict[str, tuple[str, dict[str, Any]]] = {
    _ARM: ("cpu_int8", {"verify_on": ("arm",), "batch_size": 1}),
    _NPU: (_NPU, {"device_options": {"socs": [_SOC]}}),
    _WEB: (_WEB, {"verify_on": ("web",)}),
}


def measure() -> dict[str, Any]:
    """Runs the models and exports that are missing, one after the other.

    Returns:
        What each export's report says, in the order of the rows; JSON values.
    """
    done = processes.measure(
        NAME, ROWS, "benchmarks.files.zoo_devices", list(_HOW)
    )
    return processes.content(ROWS, done)


def run(row: Row, result: Path) -> None:
    """Fills `result` step by step.

    Args:
        row: Which model.
        result: A JSON file.
    """
    recorded = record.read(NAME) or {"models": []}
    known = {run["name"]: run for run in recorded["models"]}
    entry: dict[str, Any] = {
        "name": row.name,
        "family": row.family,
        "soc": _SOC,
        "exports": known.get(row.name, {}).get("exports", {}),
    }
    qmodel = msq_tf.quantize_model(build(row))
    widths = itertools.cycle(zoo_run.BITS)
    qmodel.set_bits({path: next(widths) for path in qmodel.paths})
    inputs = images(row, _SAMPLES, seed=2)
    for name, (target, options) in _HOW.items():
        if name not in entry["exports"]:
            entry["exports"][name] = _exported(qmodel, target, inputs, options)
        child.write(result, entry)


def _exported(
    qmodel: msq_tf.MSQModel, target: str, inputs: Any, options: dict[str, Any]
) -> dict[str, Any]:
    report, facts = exports.outcome(qmodel, target, inputs, **options)
    if report is None:
        return facts
    return facts | {
        "bytes": report.file_bytes,
        "device": {k: v for k, v in report.device.items() if k != "tosa"},
    }


def markdown(content: dict[str, Any]) -> str:
    """Units between kernels, and bytes of the NPU, by model; with reasons."""
    models = content["results"]["models"]
    rows, reasons = [], []
    for model in models:
        found = model["exports"]
        for name, entry in found.items():
            if entry["outcome"] != "verified":
                words = entry["reason"].splitlines()[0]
                reasons.append(
                    f"- {model['name']}, `{name}`, {entry['outcome']}: {words}"
                )
        rows.append(
            (
                model["name"],
                *_on_arm(found.get(_ARM, _NOT_RUN)),
                *_on_npu(found.get(_NPU, _NOT_RUN)),
                *_in_browsers(found.get(_WEB, _NOT_RUN)),
            )
        )
    known = {model["name"] for model in models}
    missing = [row.name for row in ROWS if row.name not in known]
    if missing:
        reasons.append(f"- not run yet: {', '.join(missing)}")
    heads = (
        "model",
        "ARM: XNNPACK",
        "ARM: builtin",
        f"NPU {_SOC}: units",
        "NPU: bytes",
        "NPU: read an inference",
        "`web`: LiteRT.js",
        "`web`: bytes",
    )
    return page(
        f"{ran(content['environment'])}. ARM: `cpu_int8` on "
        f"{', '.join(arm.CORES)}, the largest difference from the same kernels "
        "on x86, in units of the output; NPU: `qualcomm_npu`, the difference "
        "from XNNPACK; `web` in LiteRT.js on Node, both builds, the difference "
        "from XNNPACK, and whether XNNPACK runs all operators.",
        table(heads, rows),
        reasons,
    )


def _on_arm(entry: dict[str, Any]) -> list[str]:
    if entry["outcome"] != "verified":
        return [entry["outcome"], ""]
    found = entry["device"]["arm"]
    cells = []
    for kernels in ("xnnpack", "builtin"):
        # With a reason behind them where single units explain more.
        units = [
            float(str(value).split(":")[0])
            for name, value in found.items()
            if name.endswith(kernels)
        ]
        cells.append(f"{max(units):g}" if units else "not run")
    return cells


def _on_npu(entry: dict[str, Any]) -> list[str]:
    if entry["outcome"] != "verified":
        return [entry["outcome"], "", ""]
    (found,) = entry["device"]["socs"].values()
    return [
        "-" if found["max_units"] is None else f"{found['max_units']:g}",
        f"{found['context_bytes']:,}",
        "-" if found["read_bytes"] is None else f"{found['read_bytes']:,}",
    ]


def _in_browsers(entry: dict[str, Any]) -> list[str]:
    if entry["outcome"] != "verified":
        return [entry["outcome"], ""]
    found = entry["device"]["web"]
    if "skipped" in found:
        return ["-", f"{entry['bytes']:,}"]
    worst = max(float(str(found[kind]).split(":")[0]) for kind in web.KERNELS)
    apart = f"{worst:g} units" if worst else "equal"
    words = "all" if found["fully_accelerated"] else "partly"
    return [f"{words}, {apart}", f"{entry['bytes']:,}"]


if __name__ == "__main__":
    sys.exit(processes.run_one(ROWS, run, sys.argv[1:]))

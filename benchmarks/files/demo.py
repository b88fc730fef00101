"""The main job, `make demo`: what is kept of it, and its table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.harness import record
from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import ran

_ROOT = Path(__file__).resolve().parent.parent.parent
# Where `make demo` leaves its results.
FOLDER = _ROOT / "out" / "demo"
RESULTS = _ROOT / "docs" / "results" / "demo.json"
_KEPT = (
    "dataset",
    "test_examples",
    "float_accuracy",
    "msq_accuracy",
    "compression",
    "bits",
    "float_file",
    "files",
    "int8_bytes",
    "seconds",
)


def collect() -> None:
    """Keeps the demo's report, without its details."""
    report = json.loads((FOLDER / "report.json").read_text())
    kept = {name: report[name] for name in _KEPT}
    for file in (kept["float_file"], *kept["files"].values()):
        file["device"] = (file.pop("export") or {}).get("device", {})
    content = {
        "environment": record.environment("make demo"),
        "run": json.loads((FOLDER / "run.json").read_text()),
        "results": kept,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(content, indent=2) + "\n")


def markdown(demo: dict[str, Any]) -> str:
    """Accuracy, agreement with Keras and bytes of every file."""
    results, run = demo["results"], demo["run"]
    small, whole = results["files"]["min_size"], results["float_file"]
    name = f"MSQ, Keras, {run['activation_bits']}-bit activations"
    rows = [
        ("float, Keras", f"{results['float_accuracy']:.2%}", "", ""),
        (name, f"{results['msq_accuracy']:.2%}", "", ""),
    ]
    for file in (whole, *results["files"].values()):
        score, agrees = file["score"], file["score"]["agreement"]
        rows.append(
            (
                f"`{file['name']}`",
                f"{score['accuracy']:.2%}",
                "" if agrees is None else f"{agrees:.2%}",
                f"{file['bytes']:,}",
            )
        )
    lines = [
        f"| | accuracy on {results['test_examples']:,} test images | agrees "
        "with Keras | bytes |",
        "| --- | ---: | ---: | ---: |",
        *(f"| {' | '.join(cells)} |" for cells in rows),
    ]
    if results["int8_bytes"]:
        lines.append(f"| int8 weights | | | {results['int8_bytes']:,} |")
    facts = ran(
        demo["environment"],
        f"{run['model']} on {results['dataset']}",
        f"seed {run['seed']}",
    )
    arena = results["files"]["mcu"]["device"]["arena_bytes"]
    npu = results["files"]["ethos_u"]["device"]["accelerators"]["ethos-u55-256"]
    return page(
        f"{facts}, {sum(results['seconds'].values()):.0f} s: "
        f"{results['compression']:.2f}x by stored bits (sign counted), "
        f"`{small['name']}` {whole['bytes'] / small['bytes']:.1f}x smaller "
        "than the float file.",
        lines,
        f"On TFLite Micro its arena takes {arena:,} bytes. For an "
        "Ethos-U55-256 Vela encodes the weights in "
        f"{npu['encoded_bytes']:,} bytes and estimates "
        f"{npu['estimated_ms']:.2f} ms.",
        f"The float model trained {run['float_epochs']} epochs; MSQ "
        f"fine-tunes it for {run['epochs']} more, so part of its accuracy is "
        "longer training.",
    )

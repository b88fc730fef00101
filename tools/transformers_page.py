"""The table of docs/transformers.md, from the benchmark's results."""

from __future__ import annotations

from typing import Any

from tools import markdown


def table(content: dict[str, Any]) -> str:
    """Markdown of one row a network, and what was refused below it.

    Args:
        content: What `benchmarks/results/transformers.json` holds.
    """
    environment = content["environment"]
    rows, refusals, later = [], [], []
    for run in content["results"]["runs"]:
        share = run["quantized"] / (run["quantized"] + run["left_in_float"])
        size = next(
            (f"{f['float_bytes']:,}" for f in run["files"] if "bytes" in f), "-"
        )
        cells = []
        for file in run["files"]:
            if "date" in file:
                later.append(
                    f"{run['model']}, `{file['target']}`: measured again "
                    f"alone, {file['date']}, on a machine that was busy"
                )
            if "bytes" in file:
                cells.append(f"{file['bytes']:,}, {file['seconds']:.0f} s")
            else:
                cells.append("refused")
                refusals.append(
                    f"- {run['model']}, `{file['target']}`: {file['refused']}"
                )
        rows.append(
            (
                run["model"],
                "x".join(map(str, run["input"])),
                f"{run['parameters']:,}",
                f"{share:.2%}",
                str(run["products"]),
                size,
                *cells,
            )
        )
    lines = [
        f"LiteRT {environment['versions']['ai-edge-litert']}, "
        f"{environment['date']}, {environment['cores']} cores; seconds are of "
        "conversion and verification.",
        "",
        *markdown.table(
            (
                "model",
                "input",
                "parameters",
                "quantized",
                "layers of products",
                "float bytes",
                "`cpu_float`",
                "`min_size`",
                "`cpu_int8`",
            ),
            rows,
            left=2,
        ),
    ]
    if refusals:
        lines += ["", "Refused:", "", *refusals]
    if later:
        lines += ["", *(f"- {words}" for words in later)]
    return "\n".join([*lines, ""])

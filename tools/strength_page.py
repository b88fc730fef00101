"""The table of docs/algorithm.md, from the results of `benchmarks strength`."""

from __future__ import annotations

import statistics
from typing import Any

from tools import markdown


def table(content: dict[str, Any]) -> str:
    """Accuracy and nonzero LSBs by strength of the pull, means over seeds.

    Args:
        content: What `benchmarks/results/strength.json` holds.
    """
    runs = content["results"]["runs"]
    targets = sorted({run["target"] for run in runs})
    heads = [
        "lambda",
        *(f"accuracy at {target:g}x" for target in targets),
        f"nonzero LSBs at {targets[-1]:g}x",
    ]
    rows = []
    for strength in sorted({run["strength"] for run in runs}):
        groups = [
            [
                run
                for run in runs
                if (run["target"], run["strength"]) == (target, strength)
            ]
            for target in targets
        ]
        rows.append(
            (
                f"{strength:g}",
                *(
                    f"{100 * statistics.mean(r['accuracy'] for r in group):.2f}"
                    " %"
                    for group in groups
                ),
                f"{statistics.mean(r['lsb_nonzero'] for r in groups[-1]):.2f}",
            )
        )
    return "\n".join([*markdown.table(heads, rows, left=0), ""])

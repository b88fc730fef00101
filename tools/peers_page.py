"""Tables of docs/peers.md, from the benchmark's results."""

from __future__ import annotations

from typing import Any

from benchmarks.comparison.peers import run
from benchmarks.comparison.peers import tables
from tools import markdown

_MODES = ("cost", "accuracy")


def peers_tables(content: dict[str, Any]) -> str:
    """Versions, cost and accuracy of every peer, and what was skipped.

    Args:
        content: What `benchmarks/results/peers.json` holds.
    """
    results = content["results"]
    budget = results["budget"]
    lines = [
        *_cost(results),
        "",
        f"**Accuracy** on {budget['dataset']}: the same float ResNet-8, then "
        f"every row {budget['epochs']} x {budget['steps']} steps of "
        f"{budget['batch_size']}, SGD with momentum 0.9, cosine from "
        f"{budget['learning_rate']:g}, flips and shifts of up to "
        f"{budget['shift']} pixel.",
        "",
        *markdown.table(
            tables.ACCURACY_COLUMNS,
            [
                tables.accuracy_cells(summary)
                for summary in tables.summaries(results)
            ],
            left=2,
        ),
        "",
        "Run with:",
        "",
        *(
            _ran(name, mode, results["peers"][name][mode])
            for name in run.PEERS
            for mode in _MODES
            if results["peers"].get(name, {}).get(mode, {}).get("environment")
        ),
        *(
            f"- {name}: skipped, {entry['skipped']}"
            for name, entry in results["peers"].items()
            if "skipped" in entry
        ),
    ]
    return "\n".join([*lines, ""])


def _cost(results: dict[str, Any]) -> list[str]:
    rows = tables.cost_rows(results)
    if not rows:
        return [
            "The cost of a step is not among what was measured last; "
            "`MSQ_TF_PEERS=cost` measures it."
        ]
    return [
        "**Cost** of a training step at batch 128 on 28 x 28 images, SGD with "
        "momentum: medians of interleaved steps in one process, beside a float "
        "model in the same Keras. `python -m benchmarks peers`.",
        "",
        *markdown.table(tables.COST_COLUMNS, rows, left=3),
    ]


def _ran(name: str, mode: str, entry: dict[str, Any]) -> str:
    environment = entry["environment"]
    versions = ", ".join(
        f"{package} {version}"
        for package, version in environment["versions"].items()
    )
    rounds = "; ".join(
        f"{model['model']}: {model['rounds']} rounds"
        for model in entry.get("models", [])
    )
    return (
        f"- {name}, {mode}, {environment['date']}, {environment['cores']} "
        f"cores: Python {environment['python']}, {versions}"
        + (f"; {rounds}" if rounds else "")
    )

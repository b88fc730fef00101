"""The section "Workers" of docs/reliability.md, from the benchmark."""

from __future__ import annotations

from typing import Any

from benchmarks.reliability import worker_soak
from benchmarks.reliability import workers
from tools import markdown


def section(content: dict[str, Any]) -> str:
    """Markdown of what came of lost workers, and of long training.

    Args:
        content: What `benchmarks/results/workers.json` holds.
    """
    environment, results = content["environment"], content["results"]
    losses = results["losses"]
    same = [name for name, equal in losses["equal"].items() if equal]
    other = [name for name, equal in losses["equal"].items() if not equal]
    differ = f" Not the same: {', '.join(other)}." if other else ""
    lines = [
        f"{markdown.ran(environment)}: "
        f"{losses['workers']} workers, `--worker_timeout="
        f"{losses['timeout_s']:g}`, {len(losses['losses'])} losses in one run, "
        "all started again after each. *Within* is the time to the end of the "
        "last of the others.",
        "",
        *markdown.table(
            ("what happens", "to", "within", "exit codes", "one line of error"),
            (_loss(loss) for loss in losses["losses"]),
            left=2,
        ),
        "",
        "In the end the same as in a run that lost nobody: "
        f"{', '.join(same) or 'nothing'}.{differ}",
        "",
        "Training of a ResNet-8 with synchronized batch norm, a checkpoint "
        f"every {worker_soak.STEPS} steps; threads and memory of the worker "
        "with the most:",
        "",
        *markdown.table(
            ("workers", "minutes", "threads", "MiB", "ms a step"),
            (row for soak in results["soaks"] for row in workers.rows(soak)),
        ),
        "",
        "Steps in all: "
        + ", ".join(
            f"{soak['steps']:,} with {soak['workers']} workers"
            for soak in results["soaks"]
        )
        + ".",
    ]
    return "\n".join([*lines, ""])


def _loss(loss: dict[str, Any]) -> tuple[str, ...]:
    codes = sorted(set(loss["statuses"]))
    return (
        loss["name"],
        loss["who"],
        f"{max(loss['seconds']):.0f} s",
        ", ".join(str(code) for code in codes),
        f"{sum(loss['told'])} of {len(loss['told'])}",
    )

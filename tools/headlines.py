"""The README's three figures, each a sentence or two with a link to all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_METHODS = {
    "MSQ": ("msq, searching", "msq, frozen"),
    "BSQ": ("bsq",),
    "CSQ": ("csq",),
}


def three(demo: dict[str, Any], cost: dict[str, Any], target: str) -> str:
    """Lines of a list in Markdown.

    Args:
        demo: What `docs/results/demo.json` holds.
        cost: What `benchmarks/results/cost.json` holds.
        target: The sentences on the time to a target.
    """
    return "\n".join(
        (
            f"- **Size.** {_size(demo)} "
            "[All files of that run](docs/targets/README.md#one-run)",
            f"- **A step.** {_step(cost)} "
            "[What training costs](docs/performance.md) · [beside published "
            "packages](docs/peers.md)",
            f"- **Time to a target.** {' '.join(target.split())}",
            "",
        )
    )


def _size(demo: dict[str, Any]) -> str:
    results, run = demo["results"], demo["run"]
    small, whole = results["files"]["min_size"], results["float_file"]
    return (
        f"`make demo`, {run['model']} on {results['dataset']}, "
        f"{demo['environment']['date']}: {results['compression']:.2f}x by "
        f"stored bits, `{small['name']}` "
        f"{whole['bytes'] / small['bytes']:.1f}x smaller than the float file. "
        f"It classifies {small['score']['accuracy']:.2%} of "
        f"{results['test_examples']:,} test images, the float model "
        f"{results['float_accuracy']:.2%}; part of that is longer training."
    )


def _step(cost: dict[str, Any]) -> str:
    environment = cost["environment"]
    networks = list(cost["results"]["networks"].values())
    steps = [
        f"{name} {_range(networks, rows, 'step_ratio')}"
        for name, rows in _METHODS.items()
    ]
    extra = _range(networks, _METHODS["BSQ"], "trainable")
    return (
        f"`{environment['command']}`, {environment['date']}, "
        f"{environment['cores']} cores, {len(networks)} networks, relative to "
        f"the float step: {', '.join(steps)}. BSQ and CSQ train {extra} the "
        "parameters, MSQ trains no more than the float model."
    )


def _range(
    networks: Iterable[dict[str, Any]], rows: Iterable[str], key: str
) -> str:
    """The least and the most over networks, against the float model."""
    found = [
        network["methods"][row][key] / network["methods"]["float"][key]
        for network in networks
        for row in rows
    ]
    return f"{min(found):.2f}x to {max(found):.2f}x"

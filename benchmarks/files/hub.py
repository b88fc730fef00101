"""Every family of KerasHub: from `quantize_model` to files.

Small configurations with random weights; see `hub_models` for the rows and
`hub_run` for what is done with one. Each model has a process of its own. What
is in `results/hub.json` is not run again; remove it, or a model's entry, to
start anew.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from typing import Any

from benchmarks.files import zoo_run
from benchmarks.files.hub_models import ROWS
from benchmarks.harness import processes
from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import ran
from benchmarks.harness.markdown import table

NAME = "hub"
Run = dict[str, Any]


def measure() -> dict[str, Any]:
    """Runs the models that are missing, one after the other.

    Returns:
        The entries of `hub_run`, in the order of the rows; JSON values.
    """
    done = processes.measure(
        NAME, ROWS, "benchmarks.files.hub_run", zoo_run.TARGETS
    )
    return processes.content(ROWS, done)


def share(run: Run) -> float:
    """Share of a model's weights that is quantized."""
    return run["coverage"]["quantized"] / run["coverage"]["elements"]


def markdown(content: dict[str, Any]) -> str:
    """What works of every model, and reasons for what does not."""
    environment = content["environment"]
    models = [m for m in content["results"]["models"] if "coverage" in m]
    facts = ran(
        environment,
        f"Keras {environment['versions']['keras']}",
        f"LiteRT {environment['versions']['ai-edge-litert']}",
    )
    bits = ", ".join(map(str, zoo_run.BITS))
    return page(
        f"{facts}, a process for each model; seconds are processor time. Bits "
        f"{bits} cycle over the weights, batches are open.",
        _summary(models),
        table(
            (
                "family",
                "model",
                "weights",
                "quantized",
                "search in `fit`",
                "save and load",
                *(f"`{name}`" for name in zoo_run.TARGETS),
            ),
            map(_cells, models),
            left=2,
        ),
        "Not quantized by 1% or more:",
        _grouped(_left_out(models)),
        "Not verified:",
        _grouped(_refused(content["results"]["models"])),
        _missing(content["results"]["models"]),
    )


def _summary(models: list[Run]) -> list[str]:
    counts = [
        ("at least 99% of the weights quantized", _count(models, _covered)),
        ("`fit` with a search", _count(models, lambda m: _works(m, "fit"))),
        ("save and load", _count(models, lambda m: _works(m, "saved"))),
        *(
            (f"`{name}`", _count(models, lambda m, n=name: _verified(m, n)))
            for name in zoo_run.TARGETS
        ),
    ]
    return table(("stage", f"of {len(models)} models"), counts)


def _count(models: list[Run], holds: Callable[[Run], bool]) -> str:
    return str(sum(map(holds, models)))


def _covered(run: Run) -> bool:
    return share(run) >= 0.99


def _works(run: Run, step: str) -> bool:
    return run.get(step, {}).get("outcome") == "works"


def _verified(run: Run, target: str) -> bool:
    found = run.get("exports", {}).get(target, {})
    return found.get("outcome") == "verified"


def _cells(run: Run) -> list[str]:
    cells = [
        run["family"],
        run["model"],
        f"{run['coverage']['elements']:,}",
        f"{100 * share(run):.1f}%",
        "yes" if _works(run, "fit") else "no",
        "yes" if _works(run, "saved") else "no",
    ]
    for target in zoo_run.TARGETS:
        found = run.get("exports", {}).get(target, {})
        cells.append(
            f"{found['bytes']:,} in {found['cpu_seconds']:.0f} s"
            if _verified(run, target)
            else found.get("outcome", "not reached")
        )
    return cells


def _left_out(models: list[Run]) -> Iterable[tuple[str, str]]:
    for run in models:
        if not _covered(run):
            for path, reason in run["coverage"]["left_out"].items():
                yield f"`{path.rpartition('/')[2]}`: {reason}", run["name"]


def _refused(models: list[Run]) -> Iterable[tuple[str, str]]:
    for run in models:
        for target, found in run.get("exports", {}).items():
            if found["outcome"] != "verified":
                text = f"`{target}`: {_short(found.get('reason', ''))}"
                yield text, run["name"]
        for step in ("fit", "saved"):
            found = run.get(step, {})
            if found.get("outcome") == "failed":
                yield f"{step}: {_short(found['reason'])}", run["name"]
        if run.get("reason"):
            yield _short(run["reason"]), run["name"]


def _short(reason: str) -> str:
    """A reason in one line, without what only one run has."""
    words = " ".join(reason.split()).replace("|", "\\|")
    # No link of Markdown.
    words = words.replace("](", "] (")
    return words if len(words) <= 300 else words[:297] + "..."


def _grouped(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Reasons, each once, with the models."""
    found: dict[str, dict[str, None]] = {}
    for reason, name in pairs:
        found.setdefault(reason, {})[name] = None
    lines = [
        f"- {', '.join(names)}: {reason}" for reason, names in found.items()
    ]
    return lines or ["- nothing"]


def _missing(models: list[Run]) -> list[str]:
    known = {run["name"] for run in models}
    missing = [row.name for row in ROWS if row.name not in known]
    return [f"- not run yet: {', '.join(missing)}"] if missing else []

"""Accuracy for bytes: MSQ, uniform training and ablations, one budget.

Every row fine-tunes the same float model with the same data, schedule and
number of steps; see `study` for what the rows are. Runs go on where
they were killed: those in `results/accuracy.json` are done, those that were
under way continue from their last epoch in `out/accuracy`.
"""

from __future__ import annotations

import concurrent.futures
import functools
import json
from collections.abc import Callable
from typing import Any

import rich.console

from benchmarks.accuracy import run as accuracy_run
from benchmarks.accuracy.study import STUDIES
from benchmarks.accuracy.study import Row
from benchmarks.accuracy.study import Study
from benchmarks.accuracy.tables import COLUMNS
from benchmarks.accuracy.tables import cells
from benchmarks.accuracy.tables import summarize
from benchmarks.harness import child
from benchmarks.harness import record
from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import table

NAME = "accuracy"
_NETWORKS = {"resnet8": "ResNet-8", "resnet20": "ResNet-20"}


def measure() -> dict[str, Any]:
    """Runs what is missing of all rows, see `measured`."""
    return measured(NAME, *STUDIES.values())


def measured(name: str, *studies: Study) -> dict[str, Any]:
    """Runs what is missing of some studies, a process for each core.

    The results are written after every run, so that a kill loses none.

    Args:
        name: Name of the result file.
        studies: What to run.

    Returns:
        For every study its budget, a summary of its runs, and the reason
        where it could not run here; JSON values.
    """
    results: dict[str, Any] = record.read(name) or {}
    console = rich.console.Console()
    for study in studies:
        reason = accuracy_run.missing(study)
        if reason:
            console.print(f"{study.name} is skipped: {reason}.")
            if study.name not in results:
                results[study.name] = {"skipped": reason, "runs": []}
            continue
        entry = results.get(study.name)
        if entry is None or entry.get("budget") != study.budget():
            entry = {"budget": study.budget(), "runs": []}
            results[study.name] = entry
        write = functools.partial(record.write, name, results)
        _run_study(study, entry["runs"], write, console)
    return results


def _run_study(
    study: Study,
    runs: list[dict[str, Any]],
    write: Callable[[], Any],
    console: rich.console.Console,
) -> None:
    folder = accuracy_run.FOLDER / study.name
    folder.mkdir(parents=True, exist_ok=True)
    done = {(run["row"]["name"], run["seed"]) for run in runs}
    todo = [
        (row, seed)
        for row, seed in study.runs()
        if (row.name, seed) not in done
    ]
    if not todo:
        return
    run_one = functools.partial(child.logged, "benchmarks.accuracy.run")
    run_one(study.name, "base", 0, folder, log=folder / "base.log")
    cores = child.Cores()

    def one(row: Row, seed: int) -> dict[str, Any]:
        name = f"{row.name.replace(' ', '_')}-{seed}"
        path = folder / name
        path.mkdir(exist_ok=True)
        log = folder / f"{name}.log"
        result = path / accuracy_run.RESULT
        with cores.one() as core:
            if not result.exists():
                run_one(study.name, row.name, seed, path, log=log, core=core)
        return json.loads(result.read_text())

    with concurrent.futures.ThreadPoolExecutor(cores.count) as pool:
        waiting = [pool.submit(one, row, seed) for row, seed in todo]
        for future in concurrent.futures.as_completed(waiting):
            run = future.result()
            runs.append(run)
            order = {key: i for i, key in enumerate(_keys(study))}
            runs.sort(key=lambda r: order[r["row"]["name"], r["seed"]])
            write()
            console.print(
                f"{study.name}: {run['row']['name']}, seed {run['seed']}: "
                f"{100 * run['accuracy']:.2f} % at "
                f"{run['compression']:.2f}x ({len(runs)} of "
                f"{len(study.runs())} runs)"
            )


def _keys(study: Study) -> list[tuple[str, int]]:
    return [(row.name, seed) for row in study.rows for seed in study.seeds]


def markdown(content: dict[str, Any]) -> str:
    """A table for every study that was run."""
    environment = content["environment"]
    parts: list[Any] = []
    for name, study in content["results"].items():
        if not study["runs"]:
            continue
        budget = study["budget"]
        fresh = f"a {_NETWORKS[budget.get('model', 'resnet8')]} from scratch"
        start = budget["pretrained"] or fresh
        parts += [
            f"**{name}**: {start}, trained to the float baseline in "
            f"{budget['base_epochs']} epochs (cosine from "
            f"{budget['base_learning_rate']:g}); then every row "
            f"{budget['epochs']} x {budget['steps']} steps of "
            f"{budget['batch_size']}, SGD with momentum 0.9, cosine from "
            f"{budget['learning_rate']:g}, flips and shifts of up to "
            f"{budget['shift']} pixels, weights quantized and activations in "
            f"float. `{environment['command']}`, {environment['date']}.",
            table(COLUMNS, map(cells, summarize(study["runs"]))),
        ]
    return page(*parts)

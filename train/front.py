"""Models of several sizes from one run: kept while it trains, then exported."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping

import rich.console
import rich.table

import msq_tf
from train.context import Context
from train.folder.workspace import FRONT
from train.folder.workspace import FRONT_MODELS
from train.folder.workspace import FRONT_PLOT
from train.results import FileResult
from train.results import FrontModel


def checkpoints(context: Context) -> list[msq_tf.ParetoCheckpoint]:
    """The callback that keeps the models of a run with stages, in a list."""
    if context.settings.stages == 1:
        return []
    folder = context.workspace.path(FRONT_MODELS)
    return [msq_tf.ParetoCheckpoint(folder, "val_accuracy", verbose=0)]


def shares(epochs: int, stages: int) -> tuple[int, ...]:
    """Divides epochs among sizes: whole ones, twice as many for the next size.

    A model is measured at the end of an epoch, and few bits take the most
    training: the last size gets half of all, before the rate is low.

    Args:
        epochs: Of the run, as many as stages at least.
        stages: Number of sizes.

    Returns:
        Epochs of each size, the largest size first; at least one.
    """
    wanted = [epochs * 2**n / (2**stages - 1) for n in range(stages)]
    found = [1] * stages
    for _ in range(epochs - stages):
        missing = [w - f for w, f in zip(wanted, found, strict=True)]
        found[max(range(stages), key=lambda n: (missing[n], n))] += 1
    return tuple(found)


def export(
    context: Context,
    write: Callable[[msq_tf.MSQModel, str], Mapping[str, FileResult]],
) -> tuple[FrontModel, ...]:
    """Writes the files of all kept models, and the picture of them.

    Args:
        context: Of the run.
        write: Writes the files of a model under names that begin with the
            text; gives them by target.

    Returns:
        The models by bytes, the smallest first; none without stages.
    """
    if context.settings.stages == 1:
        return ()
    kept = msq_tf.pareto_front(context.workspace.path(FRONT_MODELS))
    context.workspace.path(FRONT).mkdir(exist_ok=True)
    found = tuple(
        FrontModel(
            epoch=entry.epoch,
            held_out_accuracy=entry.metric,
            compression=entry.compression,
            bits=dict(entry.bits),
            files=dict(write(entry.load(), f"{FRONT}/{entry.packed_bytes}-")),
        )
        for entry in kept
    )
    if kept:
        with context.workspace.replacing(FRONT_PLOT) as path:
            kept.plot(path)
    return found


def print_front(
    console: rich.console.Console, models: tuple[FrontModel, ...]
) -> None:
    """Prints a table of the models, if there are any."""
    if not models:
        return
    table = rich.table.Table(title="Models that no other beats")
    for column in ("file", "bytes", "compression", "test", "held out"):
        table.add_column(
            column, justify="left" if column == "file" else "right"
        )
    for model in models:
        for file in model.files.values():
            table.add_row(
                file.name,
                f"{file.bytes:,}",
                f"{model.compression:.2f}x",
                f"{file.score.accuracy:.2%}",
                f"{model.held_out_accuracy:.2%}",
            )
    console.print(table)

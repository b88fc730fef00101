"""A search for a tolerance beside budgets that a person tries one by one.

For each network one float model; then a `BudgetRule` for every size of a grid,
each with the same number of steps, and one `ToleranceRule` with twice that
number. By hand one takes the smallest size whose model, at the end of its
training, keeps the promise on the held-out examples. Runs go on where they were
killed: what a process before this one did stays in `out/accuracy/tolerance`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import msq_tf
from benchmarks.accuracy import run as accuracy_run
from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import ran
from benchmarks.harness.markdown import table
from examples.recipes import keyword_spotting
from msq_tf import atomic_files
from train.data import datasets
from train.models import builders

NAME = "tolerance"
MAX_DROP = 1.0
SEEDS = (0, 1)
# Compressions that are tried by hand.
GRID = (5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0)
_HELD_OUT = 1000
# Parts of an epoch of a search for a tolerance, which measures after each: it
# has twenty measurements in ten epochs.
_PARTS = 2


@dataclasses.dataclass(frozen=True)
class Arrays:
    """Examples to train on, and those that are held out."""

    x: np.ndarray
    y: np.ndarray
    x_held: np.ndarray
    y_held: np.ndarray


@dataclasses.dataclass(frozen=True)
class Subject:
    """A network with its data and its trainings.

    Attributes:
        name: Key in the results.
        data: Makes the examples.
        network: Makes the float model, for the shape of an example.
        optimizer: A key of `accuracy_run.OPTIMIZERS`.
        base_epochs: Epochs of the float model.
        base_rate: Start of their cosine schedule.
        epochs: Epochs of a search for a budget.
        rate: Start of its cosine schedule, and of that for a tolerance.
        batch_size: Examples in a step.
    """

    name: str
    data: Callable[[], Arrays]
    network: Callable[[tuple[int, ...]], keras.Model]
    optimizer: str
    base_epochs: int
    base_rate: float
    epochs: int
    rate: float
    batch_size: int

    def steps(self, data: Arrays) -> int:
        """Steps of an epoch, with one for the examples that are left over."""
        return -(-len(data.x) // self.batch_size)

    def plan(self) -> dict[str, Any]:
        """What its results depend on, as JSON."""
        fields = dataclasses.asdict(self)
        del fields["data"], fields["network"]
        return fields | {"max_drop": MAX_DROP}


def _fashion() -> Arrays:
    data = datasets.load("fashion_mnist_mini")
    x = data.train.images.astype("float32") / 255.0
    y = data.train.labels
    return Arrays(
        x[:-_HELD_OUT], y[:-_HELD_OUT], x[-_HELD_OUT:], y[-_HELD_OUT:]
    )


def _words() -> Arrays:
    parts = []
    for count, seed in ((1600, 0), (_HELD_OUT, 1)):
        sounds, labels = keyword_spotting.recordings(count, seed)
        parts += [keyword_spotting.spectrograms(sounds), labels]
    return Arrays(*parts)


def _of_images(name: str) -> Callable[[tuple[int, ...]], keras.Model]:
    def make(shape: tuple[int, ...]) -> keras.Model:
        height, width, channels = shape
        return builders.build(name, (height, width, channels), 10)

    return make


SUBJECTS = (
    Subject(
        name="ResNet-8",
        data=_fashion,
        network=_of_images("resnet8"),
        optimizer="SGD",
        base_epochs=8,
        base_rate=0.1,
        epochs=5,
        rate=0.02,
        batch_size=128,
    ),
    Subject(
        name="keyword net",
        data=_words,
        network=keyword_spotting.network,
        optimizer="Adam",
        base_epochs=8,
        base_rate=3e-3,
        epochs=5,
        rate=1e-3,
        batch_size=32,
    ),
    Subject(
        name="ViT micro",
        data=_fashion,
        network=_of_images("vit_micro"),
        optimizer="Adam",
        base_epochs=10,
        base_rate=1e-3,
        epochs=5,
        rate=3e-4,
        batch_size=128,
    ),
)


def folder() -> Path:
    """Where runs keep what they found."""
    made = accuracy_run.FOLDER / NAME
    made.mkdir(parents=True, exist_ok=True)
    return made


def measure() -> dict[str, Any]:
    """Trains what is missing, the first seed of everything first.

    Returns:
        What was planned, and a record of each run; JSON values.
    """
    for seed in SEEDS:
        for subject in SUBJECTS:
            run_subject(subject, seed)
    return found()


def run_subject(subject: Subject, seed: int) -> None:
    """Trains what is missing of a network with a seed."""
    for target in (None, *GRID):
        name = "tolerance" if target is None else f"{target:g}x"
        _kept(
            _path(subject, seed, name),
            functools.partial(_run, subject, target, seed),
        )


def found() -> dict[str, Any]:
    """All runs there are of the plan."""
    runs = []
    for subject in SUBJECTS:
        for seed in SEEDS:
            for name in ("tolerance", *(f"{t:g}x" for t in GRID)):
                path = _path(subject, seed, name)
                if path.exists():
                    runs.append(json.loads(path.read_text()))
    return {
        "subjects": [subject.plan() for subject in SUBJECTS],
        "planned": len(SUBJECTS) * len(SEEDS) * (1 + len(GRID)),
        "runs": [
            run
            for run in runs
            if run["plan"] in [subject.plan() for subject in SUBJECTS]
            and (run["target"] or run.get("parts") == _PARTS)
        ],
    }


def _path(subject: Subject, seed: int, name: str) -> Path:
    return folder() / f"{subject.name.replace(' ', '_')}-{name}-{seed}.json"


def _kept(path: Path, run: Callable[[], dict[str, Any]]) -> None:
    if not path.exists():
        with atomic_files.replacing(path) as partial:
            partial.write_text(json.dumps(run()))


def _float_model(subject: Subject, data: Arrays) -> keras.Model:
    """The float model that all runs start from, trained once."""
    keras.utils.set_random_seed(0)
    model = subject.network(data.x.shape[1:])
    path = folder() / f"{subject.name.replace(' ', '_')}.weights.h5"
    if not path.exists():
        steps = subject.base_epochs * subject.steps(data)
        _compile(subject, model, subject.base_rate, steps)
        _fit(subject, model, data, subject.base_epochs, [])
        with atomic_files.replacing(path) as partial:
            model.save_weights(partial)
    model.load_weights(path)
    return model


def _run(subject: Subject, target: float | None, seed: int) -> dict[str, Any]:
    data = subject.data()
    base = _float_model(subject, data)
    held_out = data.x_held, data.y_held
    model = msq_tf.quantize_model(base)
    steps = subject.epochs * subject.steps(data) * (1 if target else 2)
    _compile(subject, model, subject.rate, steps)
    with model.float_model(compiled=True) as float_model:
        reference = _accuracy(float_model, held_out)
    keras.utils.set_random_seed(seed)
    rule: msq_tf.rules.Rule = msq_tf.ToleranceRule(max_drop=MAX_DROP)
    if target is not None:
        rule = msq_tf.BudgetRule(target_compression=target)
    search = msq_tf.MSQCallback(rule, (data.x[:512], data.y[:512]))
    if target is not None:
        _fit(subject, model, data, subject.epochs, [search])
    else:
        parts = 2 * subject.epochs * _PARTS
        steps = steps // parts * parts
        model.fit(
            _without_end(subject, data),
            epochs=parts,
            steps_per_epoch=steps // parts,
            verbose=2,
            callbacks=[search],
            validation_data=held_out,
        )
    outcome = search.outcome
    return {
        "plan": subject.plan(),
        "subject": subject.name,
        "target": target,
        "seed": seed,
        "steps": steps,
        "parts": 1 if target else _PARTS,
        "reference": reference,
        "accuracy": _accuracy(model, held_out),
        "bytes": msq_tf.precision_report(model).packed_bytes,
        "compression": model.compression,
        "bits": model.bits,
        "kept": None if outcome is None else outcome.kept,
        "trials": [] if outcome is None else outcome.trials,
    }


def _accuracy(model: keras.Model, data: tuple[np.ndarray, np.ndarray]) -> float:
    logs = model.evaluate(*data, batch_size=250, verbose=0, return_dict=True)
    return float(logs["accuracy"])


def _compile(
    subject: Subject,
    model: keras.Model,
    rate: float,
    steps: int,
) -> None:
    model.compile(
        accuracy_run.OPTIMIZERS[subject.optimizer](
            keras.optimizers.schedules.CosineDecay(rate, steps)
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


def _fit(
    subject: Subject,
    model: keras.Model,
    data: Arrays,
    epochs: int,
    callbacks: list[keras.callbacks.Callback],
) -> None:
    model.fit(
        data.x,
        data.y,
        epochs=epochs,
        batch_size=subject.batch_size,
        verbose=2,
        callbacks=callbacks,
    )


def _without_end(subject: Subject, data: Arrays) -> tf.data.Dataset:
    """Batches for epochs that go on where the last one was."""
    examples = tf.data.Dataset.from_tensor_slices((data.x, data.y))
    examples = examples.shuffle(len(data.x), seed=0).repeat()
    return examples.batch(subject.batch_size)


def keeps(run: dict[str, Any]) -> bool:
    """Whether the model of a run keeps the promise."""
    rule = msq_tf.ToleranceRule(max_drop=run["plan"]["max_drop"])
    return rule.keeps(rule.drop(run["accuracy"], run["reference"]))


def rows(runs: list[dict[str, Any]]) -> list[list[str]]:
    """A line for each network and seed that has both kinds of runs."""
    lines = []
    for subject, seed in dict.fromkeys((r["subject"], r["seed"]) for r in runs):
        mine = [r for r in runs if (r["subject"], r["seed"]) == (subject, seed)]
        grid = sorted(
            (r for r in mine if r["target"] is not None),
            key=lambda r: r["target"],
        )
        ours = next((r for r in mine if r["target"] is None), None)
        if ours is None or not grid:
            continue
        by_hand = min(
            filter(keeps, grid), key=lambda r: r["bytes"], default=None
        )
        lost = 100 * (ours["reference"] - ours["accuracy"])
        lines.append(
            [
                subject,
                str(seed),
                f"{100 * ours['reference']:.1f}",
                f"{ours['bytes']:,}",
                f"{lost:.1f}" if keeps(ours) else f"{lost:.1f} (not kept)",
                "none" if by_hand is None else f"{by_hand['bytes']:,}",
                ""
                if by_hand is None
                else f"{ours['bytes'] / by_hand['bytes'] - 1:+.0%}",
                f"{ours['steps']:,}",
                f"{sum(r['steps'] for r in grid):,}",
                ", ".join(f"{r['target']:g}" for r in grid),
            ]
        )
    return lines


def markdown(content: dict[str, Any]) -> str:
    """Bytes of a search for a tolerance and of the best of a grid."""
    results = content["results"]
    promise = results["subjects"][0]["max_drop"]
    facts = ran(
        content["environment"],
        f"{len(results['runs'])} of the {results['planned']} runs of the plan",
    )
    return page(
        f"{facts}. Weights quantized to 8, 4 or 2 bits, activations in float; "
        f"at most {promise:g} point of accuracy lost on {_HELD_OUT:,} held-out "
        "examples. `by hand` is the smallest size of a grid of budgets, each "
        "trained by itself, whose last model keeps that; `tried` are the "
        "compressions of the grid:",
        table(
            (
                *("network", "seed", "float", "bytes", "points lost"),
                *("by hand", "beside it", "steps", "steps by hand", "tried"),
            ),
            rows(results["runs"]),
        ),
    )

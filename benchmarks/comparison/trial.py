"""One trial of the time-to-target benchmark, in this process alone.

    python -m benchmarks.comparison.trial SETTING STEPS SEED RESULT

Time is the processor's, of all threads, from a built float model to a trained
quantized one: tracing, statistics and decisions count, reading data and
start-up do not.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import keras

import msq_tf
from benchmarks.accuracy import run
from benchmarks.baselines.bsq import AdjustPrecision
from benchmarks.baselines.bsq import BSQModel
from benchmarks.baselines.csq import Anneal
from benchmarks.baselines.csq import CSQModel
from benchmarks.baselines.finetune import FixedWidthModel
from benchmarks.comparison import study as study
from benchmarks.comparison.study import Setting
from benchmarks.harness import child
from benchmarks.harness.compiling import compiled
from msq_tf.keras3.search_variables import SearchVariables
from msq_tf.search.controller import Decider
from msq_tf.sensitivity.hessian import BlockHessian
from train.data import batches
from train.data import datasets

_STUDY = study.STUDY
# Shares of a run that authors' epochs make.
_BSQ_SEARCH = 350 / 650
_BSQ_INTERVAL = 100 / 350
_CSQ_WARMUP = 5 / 300
_CSQ_HARD = 250 / 300
# Training examples that a search takes its statistics on, the first ones.
_STATISTICS = 512

Fit = Callable[..., None]


def trial(setting: Setting, steps: int, seed: int) -> dict[str, Any]:
    """Trains once.

    Args:
        setting: The method and its hyperparameters.
        steps: Training steps in all.
        seed: Seed of the order of the data and of its augmentation.

    Returns:
        Accuracy, sizes and seconds; JSON values.
    """
    data = run.load_data(_STUDY)
    base = run.float_model(_STUDY, data)
    base.load_weights(run.FOLDER / _STUDY.name / run.BASE)
    feed = _Feed(data, steps, seed)
    keras.utils.set_random_seed(seed)
    shares = Shares()
    wall, processor = time.perf_counter(), time.process_time()
    with shares:
        model = _METHODS[setting.method](setting, base, feed)
    wall = time.perf_counter() - wall
    processor = time.process_time() - processor
    _, accuracy = model.evaluate(feed.test(), verbose=0)
    found: dict[str, Any] = {"bits": {}, "compression": 1.0}
    if setting.method != study.FLOAT:
        found = {"bits": model.bits, "compression": model.compression}
    if setting.method == study.MSQ:
        found["shares"] = shares.seconds
        found["decisions"] = int(model.search.rule_state.decisions)
    return {
        "setting": setting.name,
        "method": setting.method,
        "steps": steps,
        "seed": seed,
        "accuracy": float(accuracy),
        "processor_s": round(processor, 2),
        "wall_s": round(wall, 2),
        **found,
    }


class _Feed:
    """The batches of one trial, in order."""

    def __init__(self, data: datasets.ImageDataset, steps: int, seed: int):
        self.data = data
        self.steps = steps
        self.seed = seed
        self._held_out = _STUDY.held_out

    def batches(self, skip: int, count: int) -> Any:
        """`count` batches after the first `skip`."""
        train = self.data.train
        fitted = datasets.Examples(
            train.images[: -self._held_out], train.labels[: -self._held_out]
        )
        epoch = batches.steps_per_epoch(fitted, _STUDY.batch_size)
        return (
            batches.training_batches(
                fitted,
                _STUDY.batch_size,
                range(-(-self.steps // epoch)),
                self.seed,
                batches.Augmentation(_STUDY.shift, flip=True),
                _STUDY.pixels,
            )
            .skip(skip)
            .take(count)
        )

    def test(self) -> Any:
        """All test images."""
        return batches.test_batches(self.data.test, 500, _STUDY.pixels)

    def sample(self, part: slice) -> tuple[Any, Any]:
        """Some training images, unchanged, with their labels."""
        train = self.data.train
        return (
            batches.scaled(train.images[part], _STUDY.pixels),
            train.labels[part],
        )

    def fit(
        self,
        model: keras.Model,
        rate: Any,
        weight_decay: float,
        steps: int,
        skip: int = 0,
        callbacks: Any = (),
    ) -> None:
        """Trains a model on the next batches, in units of a few steps."""
        compiled(model, rate, weight_decay).fit(
            self.batches(skip, steps),
            epochs=steps // study.UNIT,
            steps_per_epoch=study.UNIT,
            shuffle=False,
            verbose=0,
            callbacks=list(callbacks),
        )


def _float(setting: Setting, base: keras.Model, feed: _Feed) -> keras.Model:
    rate = keras.optimizers.schedules.CosineDecay(
        setting.learning_rate, feed.steps
    )
    feed.fit(base, rate, setting.weight_decay, feed.steps)
    return base


def _msq(setting: Setting, base: keras.Model, feed: _Feed) -> keras.Model:
    model = msq_tf.quantize_model(base)
    rate = keras.optimizers.schedules.CosineDecay(
        setting.learning_rate, feed.steps
    )
    search = msq_tf.MSQCallback(
        msq_tf.BudgetRule(
            target_compression=study.TARGET, allowed_bits=range(2, 9)
        ),
        data=feed.sample(slice(_STATISTICS)),
        held_out=feed.sample(slice(-_STUDY.held_out, None)),
    )
    feed.fit(model, rate, setting.weight_decay, feed.steps, callbacks=[search])
    return model


def _bsq(setting: Setting, base: keras.Model, feed: _Feed) -> keras.Model:
    units = feed.steps // study.UNIT
    first = max(1, round(units * _BSQ_SEARCH)) * study.UNIT
    last = feed.steps - first
    model = BSQModel(base, setting.strength)
    every = max(1, round(first / study.UNIT * _BSQ_INTERVAL))
    rate = setting.learning_rate
    decay = keras.optimizers.schedules.PiecewiseConstantDecay
    feed.fit(
        model,
        decay([round(first * 250 / 350)], [rate, rate / 10]),
        setting.weight_decay,
        first,
        callbacks=[AdjustPrecision(every)],
    )
    fixed = FixedWidthModel(model)
    feed.fit(
        fixed,
        decay(
            [last // 2, round(last * 250 / 300)],
            [rate / 10, rate / 100, rate / 1000],
        ),
        setting.weight_decay,
        last,
        skip=first,
    )
    return fixed


def _csq(setting: Setting, base: keras.Model, feed: _Feed) -> keras.Model:
    # Three magnitude bits and the sign are four stored bits, 8x.
    model = CSQModel(
        base, target=32.0 / study.TARGET - 1.0, strength=setting.strength
    )
    warmup = round(feed.steps * _CSQ_WARMUP)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        feed.steps - warmup,
        warmup_target=setting.learning_rate,
        warmup_steps=warmup,
    )
    hard = max(1, round(feed.steps / study.UNIT * _CSQ_HARD))
    feed.fit(
        model,
        rate,
        setting.weight_decay,
        feed.steps,
        callbacks=[Anneal(hard)],
    )
    model.harden()
    return model


_METHODS: dict[str, Callable[[Setting, keras.Model, _Feed], Any]] = {
    study.FLOAT: _float,
    study.MSQ: _msq,
    study.BSQ: _bsq,
    study.CSQ: _csq,
}


class Shares:
    """Counts the processor's seconds that parts of a search take.

    Attributes:
        seconds: `"decisions"` all of them, statistics included, of which
            `"hessian"` the traces and `"changes"` new widths.
    """

    _PARTS = {
        "decisions": (Decider, "decide"),
        "hessian": (BlockHessian, "traces"),
        "changes": (SearchVariables, "change"),
    }

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(self._PARTS, 0.0)
        self._kept: dict[str, Any] = {}

    def __enter__(self) -> Shares:
        for name, (owner, method) in self._PARTS.items():
            self._kept[name] = getattr(owner, method)
            setattr(owner, method, self._timed(name, self._kept[name]))
        return self

    def __exit__(self, *exception: object) -> None:
        for name, (owner, method) in self._PARTS.items():
            setattr(owner, method, self._kept[name])

    def _timed(self, name: str, function: Callable[..., Any]) -> Any:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] += time.process_time() - start

        return timed


def main(arguments: list[str]) -> int:
    """Runs what the command line names and writes its result."""
    name, steps, seed, result = arguments
    (setting,) = (s for s in study.SETTINGS if s.name == name)
    found = trial(setting, int(steps), int(seed))
    child.write(result, found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

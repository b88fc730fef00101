"""What the accuracy benchmark trains: its studies and their rows, as data."""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path

from train.front import shares

_SHARED = Path(__file__).resolve().parent.parent.parent.parent / "shared"
# Prepared TFDS folders and pretrained models, where there are any.
DATA = Path(os.environ.get("MSQ_TF_DATA_DIR", _SHARED / "tfds"))
MODELS = Path(os.environ.get("MSQ_TF_MODELS_DIR", _SHARED / "models"))


@dataclasses.dataclass(frozen=True)
class Row:
    """One way to fine-tune the float model.

    Attributes:
        name: Key in tables and results.
        target: Compression by stored bits that a search aims for; `None`
            for no search.
        bits: Fixed stored bits of every weight; `None` for a search, or for
            the float model where `target` is `None` too.
        rule: `"budget"` or `"threshold"`.
        quantizer: `"round_clamp"` or `"dorefa"`.
        scale: `"max"`, `"mse"`, `"held"` or `"learned"`.
        lsb_strength: The regularizer's lambda; today's default is 0.
        hessian: Whether Hessian traces are taken.
        ranking: As `MSQCallback` takes it.
        most: Widths that may go in one decision.
        growth: How often bits may come back.
        stages: Shares of the epochs of the sizes that one search leaves a
            model of; one share for its last one alone.
        alpha: Largest share of nonzero LSBs, for the threshold rule.
        optimizer: A key of `run.OPTIMIZERS`.
        rate: Start of the cosine schedule; `None` for the study's.
        method: What else the training has, a key of `methods.METHODS`; empty
            for nothing.
        seeds: How many of the study's seeds to run; `None` for all.
    """

    name: str
    target: float | None = None
    bits: int | None = None
    rule: str = "budget"
    quantizer: str = "round_clamp"
    scale: str = "max"
    lsb_strength: float = 0.05
    hessian: bool = True
    ranking: str = "auto"
    most: int = 2
    growth: int = 0
    stages: tuple[int, ...] = (1,)
    alpha: float = 0.3
    optimizer: str = "SGD"
    rate: float | None = None
    method: str = ""
    seeds: int | None = None


@dataclasses.dataclass(frozen=True)
class Study:
    """One data set, one float model, one budget of fine-tuning for all rows.

    Attributes:
        name: Key in the results.
        dataset: Name in TFDS.
        pixels: Input range of the model, a key of `train.settings.PIXELS`.
        pretrained: File of a Keras model under `MODELS`; `None` for a fresh
            `model`.
        base_epochs: Passes over the data that make the float baseline.
        base_learning_rate: Start of its cosine schedule.
        epochs: Epochs of fine-tuning, for every row.
        steps: Training steps in each of them.
        learning_rate: Start of the cosine schedule, for every row.
        batch_size: Examples in a step.
        shift: Largest random shift of a training image, in pixels.
        held_out: Training examples left out of fine-tuning, the last ones.
        watched: Test examples looked at after every epoch, the first ones;
            the accuracy that counts is that on all, at the end.
        rows: What to run.
        seeds: Seeds of the order of the data and of its augmentation.
        model: A fresh model's name, as `builders.build` takes it.
    """

    name: str
    dataset: str
    pixels: str
    pretrained: str | None
    base_epochs: int
    base_learning_rate: float
    epochs: int
    steps: int
    learning_rate: float
    batch_size: int
    shift: int
    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    held_out: int = 1000
    watched: int = 2000
    model: str = "resnet8"

    def budget(self) -> dict[str, float | int | str | None]:
        """What all rows share; results with another budget are stale."""
        fields = dataclasses.asdict(self)
        del fields["rows"], fields["seeds"]
        if self.model == "resnet8":  # as in results of before
            del fields["model"]
        return fields

    def runs(self) -> list[tuple[Row, int]]:
        """Rows with seeds, every row's first seed before any second one."""
        return [
            (row, seed)
            for n, seed in enumerate(self.seeds)
            for row in self.rows
            if row.seeds is None or n < row.seeds
        ]


FLOAT = Row("float")


def _ablations(target: float, seeds: int | None) -> tuple[Row, ...]:
    return (
        Row("no Hessian", target, hessian=False, seeds=seeds),
        Row("no LSB regularizer", target, lsb_strength=0.0, seeds=seeds),
        Row("DoReFa", target, quantizer="dorefa", seeds=seeds),
        Row(
            "ThresholdRule",
            target,
            rule="threshold",
            lsb_strength=1.0,
            alpha=0.45,
            seeds=seeds,
        ),
        Row("one bit at a time", target, most=1, seeds=seeds),
        Row("learned scale", target, scale="learned", seeds=seeds),
        Row("Hessian ranking", target, ranking="hessian", seeds=seeds),
        Row("growth", target, growth=4, seeds=seeds),
    )


def _searched_and_uniform() -> tuple[Row, ...]:
    return (
        Row("MSQ 8x", 8.0),
        Row("uniform 4", bits=4),
        Row("MSQ 10.7x", 32 / 3),
        Row("uniform 3", bits=3),
        Row("MSQ 12.8x", 12.8),
        Row("uniform 2", bits=2),
    )


# Rates over two decades.
RATES = {
    "SGD": (0.1, 0.02, 0.002),
    "Adam": (0.01, 0.001, 0.0001),
    "AdamW": (0.01, 0.001, 0.0001),
    "Lion": (0.001, 0.0001, 0.00001),
}
_SCALES = ("max", "mse", "held", "learned")


# How many of an optimizer's rates, highest first, a width is tried with: from
# five bits on all scales are the same but for the learned ones, and the wider
# a grid the less its scale matters.
_WIDTHS = {2: 3, 3: 3, 4: 2, 8: 1}


def _scales() -> tuple[Row, ...]:
    """Every scale with every optimizer; the narrowest width with all seeds."""
    floats = tuple(
        Row(f"float {name} {rate:g}", optimizer=name, rate=rate, seeds=1)
        for name, rates in RATES.items()
        for rate in rates
    )
    return floats + tuple(
        Row(
            f"{scale} {bits} {optimizer} {rate:g}",
            bits=bits,
            scale=scale,
            optimizer=optimizer,
            rate=rate,
            seeds=None if bits == min(_WIDTHS) else 1,
        )
        for bits, count in _WIDTHS.items()
        for optimizer, rates in RATES.items()
        for rate in rates[:count]
        for scale in _SCALES
    )


# Rates at which the float model learns well.
_USUAL_RATES = {"SGD": 0.02, "Adam": 0.001}


def _of_today() -> tuple[Row, ...]:
    """What today's default has, changed one by one, with two optimizers.

    What a search does is tried where there is one; what makes training hold
    at two bits, where all weights have two.
    """
    searched = functools.partial(Row, target=12.8, scale="held", lsb_strength=0)
    uniform = functools.partial(Row, bits=2, scale="held")
    return tuple(
        dataclasses.replace(
            row,
            name=f"{row.name}, {optimizer}",
            optimizer=optimizer,
            rate=rate,
        )
        for optimizer, rate in _USUAL_RATES.items()
        for row in (
            FLOAT,
            searched("MSQ 12.8x"),
            uniform("uniform 2"),
            uniform("uniform 2, distillation", method="distillation"),
            uniform("uniform 2, freezing", method="freezing"),
            uniform("uniform 2, dampening", method="dampening"),
            uniform("uniform 2, transition rate", method="transition rate"),
            searched("MSQ 12.8x, scaled gradients", method="scaled gradients"),
            searched("MSQ 12.8x, distillation", method="distillation"),
            searched("MSQ 12.8x, learned scale", scale="learned"),
            searched("MSQ 12.8x, LSB penalty 0.05", lsb_strength=0.05),
            searched("MSQ 12.8x, LSB penalty 0.5", lsb_strength=0.5),
            searched("MSQ 12.8x, no Hessian", hessian=False),
            searched("MSQ 12.8x, Hessian ranking", ranking="hessian"),
            searched(
                "ThresholdRule", rule="threshold", lsb_strength=1.0, alpha=0.45
            ),
        )
        # A factor of the gradient is none of Adam's step.
        if (row.method, optimizer) != ("scaled gradients", "Adam")
    )


STUDIES = {
    study.name: study
    for study in (
        Study(
            name="cifar10",
            dataset="cifar10",
            pixels="raw",
            pretrained="mlperf_tiny_resnet8_cifar10.h5",
            base_epochs=8,
            base_learning_rate=0.02,
            epochs=8,
            steps=150,
            learning_rate=0.01,
            batch_size=128,
            shift=4,
            rows=(
                FLOAT,
                *_searched_and_uniform(),
                Row("MSQ 12x", 12.0),
                *_ablations(32 / 3, 1),
            ),
            seeds=(0, 1, 2),
        ),
        Study(
            name="fashion_mnist_mini",
            dataset="fashion_mnist_mini",
            pixels="unit",
            pretrained=None,
            base_epochs=8,
            base_learning_rate=0.1,
            epochs=4,
            steps=70,
            learning_rate=0.02,
            batch_size=128,
            shift=1,
            rows=(
                FLOAT,
                Row("MSQ 12.8x", 12.8),
                Row("uniform 3", bits=3),
                Row("uniform 2", bits=2),
                *_ablations(12.8, None),
            ),
            seeds=(0, 1, 2, 3, 4),
        ),
    )
}

# The second study with other optimizers: which scale holds with which.
SCALES = dataclasses.replace(
    STUDIES["fashion_mnist_mini"],
    name="scales",
    rows=_scales(),
    seeds=(0, 1),
)
# The same with today's defaults: what each part is worth, and each method.
ABLATIONS = dataclasses.replace(
    STUDIES["fashion_mnist_mini"],
    name="ablations",
    rows=_of_today(),
)
# All sizes by one search of 2.5 times the epochs, against one search for each.
_STAGES = 5
_FRONT_EPOCHS = 10
_of_adam = functools.partial(
    Row, scale="held", lsb_strength=0.0, optimizer="Adam", rate=0.001
)
FRONT = dataclasses.replace(
    STUDIES["fashion_mnist_mini"],
    name="front",
    epochs=_FRONT_EPOCHS,
    rows=(_of_adam("front", 16.0, stages=shares(_FRONT_EPOCHS, _STAGES)),),
    seeds=(0, 1, 2),
)
SIZES = dataclasses.replace(
    FRONT,
    name="sizes",
    epochs=4,
    rows=tuple(
        _of_adam(f"size {stage}", 4.0 * 4.0 ** (stage / _STAGES))
        for stage in range(1, _STAGES + 1)
    ),
)
# The paper's network, trained well before; days of processor time.
RESNET20 = dataclasses.replace(
    STUDIES["cifar10"],
    name="resnet20",
    pixels="unit",
    pretrained=None,
    model="resnet20",
    base_epochs=60,
    base_learning_rate=0.1,
    epochs=40,
    steps=382,
    rows=(
        FLOAT,
        *(
            Row(f"MSQ {target:g}x", target, scale="held", lsb_strength=0.0)
            for target in (8.0, 12.4, 16.0)
        ),
        *(
            Row(f"uniform {bits}", bits=bits, scale="held")
            for bits in (4, 3, 2)
        ),
    ),
)
EXTRA = (SCALES, ABLATIONS, FRONT, SIZES, RESNET20)

"""The settings of one run: the command line as data."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from tflite_export.data.dataset_samples import PIXELS as PIXELS
from train.recipes import Recipe

# As msq_tf.rules.course.LEAST_EPOCHS, whose package imports TensorFlow.
LEAST_EPOCHS = 3

RULES = ("budget", "threshold")
DISTRIBUTIONS = ("none", "mirrored", "multi_worker")
# Where a run reads, computes and writes, which does not change what it
# computes.
_PLACES = (
    "output_dir",
    "data_dir",
    "resume",
    "overwrite",
    "distribution",
    "devices",
    "worker_timeout",
    "verify_on",
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of a run.

    Attributes:
        output_dir: Folder of the results.
        model: Name of a model, as `train.models.builders.build` takes it.
        dataset: Name of a data set, as `train.data.datasets.load` takes it.
        recipe: How to train.
        data_dir: Folder of prepared data sets.
        start_from: A saved Keras model, or a `.tflite` file, to use instead of
            float training.
        seed: Seed of everything random.
        target_compression: Compression over 32-bit weights to reach; None for
            any, where there are budgets on a device.
        target_latency_ms: Milliseconds of an inference on `target_device`.
        target_ram: Bytes of RAM there.
        target_device: What predicts them, as `msq_tf.BudgetRule` takes it.
        max_drop: Points of accuracy, on training examples that are held out,
            that the smallest model may lose; None to go for
            `target_compression` instead.
        stages: Sizes on the way to `target_compression` that the run
            fine-tunes at and writes files of; 1 for the last one alone.
        allowed_bits: Widths that a layer may end with; None for all.
        min_bits: Least bits of a layer.
        activation_bits: Bits of activations in MSQ training; None for float.
        rule: One of `RULES`.
        targets: Targets of `tflite_export` to write files for.
        verify_on: Where to run the files besides, as `export` takes it.
        pixels: Input range of the model: 0..1, -1..1 or 0..255.
        image_size: Size to which images are resized.
        train_examples: Training examples to use; None for all.
        test_examples: Test examples to use; None for all.
        width_multiplier: Width of `mobilenet_v2`.
        mixed_precision: Whether to train with float16 activations.
        max_accuracy_drop: Points of test accuracy that MSQ may cost
            before the run counts as failed; None for any.
        resume: Whether to go on with the run in `output_dir`.
        overwrite: Whether to replace the run in `output_dir`.
        distribution: One of `DISTRIBUTIONS`: on one device, on all of this
            machine, or on those of several machines.
        devices: Devices to use with `mirrored`, such as `"GPU:0"`; None for
            all GPUs.
        worker_timeout: Seconds to wait for other workers.
        sync_batch_norm: Whether batch norm takes its statistics over the
            batches of all devices.
    """

    output_dir: str
    model: str
    dataset: str
    recipe: Recipe
    data_dir: str | None = None
    start_from: str | None = None
    seed: int = 0
    target_compression: float | None = 8.0
    target_latency_ms: float | None = None
    target_ram: int | None = None
    target_device: str | None = None
    max_drop: float | None = None
    stages: int = 1
    allowed_bits: tuple[int, ...] | None = None
    min_bits: int = 2
    activation_bits: int | None = None
    rule: str = "budget"
    targets: tuple[str, ...] = ("cpu_float", "min_size")
    verify_on: tuple[str, ...] = ()
    pixels: str = "unit"
    image_size: int | None = None
    train_examples: int | None = None
    test_examples: int | None = None
    width_multiplier: float = 1.0
    mixed_precision: bool = False
    max_accuracy_drop: float | None = None
    resume: bool = False
    overwrite: bool = False
    distribution: str = "none"
    devices: tuple[str, ...] | None = None
    worker_timeout: float = 600.0
    sync_batch_norm: bool = True

    def __post_init__(self) -> None:
        """Refuses settings that contradict each other."""
        for name, choices in (
            ("pixels", PIXELS),
            ("rule", RULES),
            ("distribution", DISTRIBUTIONS),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"There is no such {name}. Expected one of "
                    f"{', '.join(choices)}. Received: "
                    f"{name}={getattr(self, name)}"
                )
        if self.resume and self.overwrite:
            raise ValueError(
                "A run cannot be resumed and overwritten. Expected at most "
                "one of them. Received: resume=True, overwrite=True"
            )
        if self.rule == "threshold" and self.allowed_bits is not None:
            raise ValueError(
                "The threshold rule takes one or two bits at a time. Expected "
                "no allowed_bits with rule=threshold. Received: "
                f"allowed_bits={self.allowed_bits}"
            )
        self._check_budgets()
        self._check_target()
        self._check_tolerance()
        self._check_stages()
        self._check_distribution()
        if not 0 <= self.seed < 2**31:
            raise ValueError(
                "The seed is out of range. Expected 0 <= seed < 2**31. "
                f"Received: seed={self.seed}"
            )
        self._check_numbers()

    def _check_numbers(self) -> None:
        """Refuses numbers that mean nothing."""
        for name in ("image_size", "train_examples", "test_examples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(
                    f"`{name}` is too small. Expected at least 1. "
                    f"Received: {name}={value}"
                )
        width = self.width_multiplier
        if not 0 < width < math.inf:
            raise ValueError(
                "`width_multiplier` is no width. Expected more than 0. "
                f"Received: width_multiplier={width:g}"
            )
        if width != 1 and (self.model != "mobilenet_v2" or self.start_from):
            raise ValueError(
                "`width_multiplier` is for model=mobilenet_v2. Expected no "
                f"width_multiplier. Received: width_multiplier={width:g}, "
                f"model={self.model}, start_from={self.start_from}"
            )
        drop = self.max_accuracy_drop
        if drop is not None and not math.isfinite(drop):
            raise ValueError(
                "`max_accuracy_drop` is no number of points. Expected one "
                f"such as 1.5. Received: max_accuracy_drop={drop}"
            )

    def _check_target(self) -> None:
        """Refuses now what would be refused after float training."""
        widths = [w for w in self.allowed_bits or () if w >= self.min_bits]
        if self.allowed_bits is not None and not widths:
            raise ValueError(
                "No width is left. Expected allowed_bits of at least min_bits. "
                f"Received: allowed_bits={self.allowed_bits}, "
                f"min_bits={self.min_bits}"
            )
        if self.target_compression is None:
            return
        most = 32 / max(1, min(widths, default=self.min_bits))
        if self.target_compression > most:
            raise ValueError(
                "The target cannot be reached with these widths. Expected "
                f"target_compression of at most {most:g}. Received: "
                f"target_compression={self.target_compression:g}, "
                f"min_bits={self.min_bits}, allowed_bits={self.allowed_bits}"
            )

    @property
    def on_device(self) -> bool:
        """Whether there are budgets on a device."""
        return self.target_latency_ms is not None or self.target_ram is not None

    def _check_budgets(self) -> None:
        if self.on_device and (
            self.rule != "budget" or self.max_drop is not None
        ):
            raise ValueError(
                "Budgets on a device are of the budget rule. Expected "
                "rule=budget, and no max_drop. Received: "
                f"rule={self.rule}, max_drop={self.max_drop}"
            )
        if self.on_device == (self.target_device is None):
            raise ValueError(
                "Budgets and the device that they are of belong together. "
                "Expected target_device with target_latency_ms or target_ram. "
                f"Received: target_device={self.target_device}, "
                f"target_latency_ms={self.target_latency_ms}, "
                f"target_ram={self.target_ram}"
            )
        if not self.on_device and self.target_compression is None:
            raise ValueError(
                "There is no target. Expected target_compression, or a budget "
                "on a device. Received: none"
            )

    def _check_tolerance(self) -> None:
        if self.max_drop is None:
            return
        if not 0 <= self.max_drop < math.inf:
            raise ValueError(
                "`max_drop` is no number of points. Expected at least 0, such "
                f"as 1. Received: max_drop={self.max_drop}"
            )
        if self.rule != "budget":
            raise ValueError(
                "A tolerance is a rule of its own. Expected no rule with "
                f"max_drop. Received: rule={self.rule}, "
                f"max_drop={self.max_drop:g}"
            )
        if self.recipe.epochs < LEAST_EPOCHS:
            raise ValueError(
                "A tolerance takes an epoch for every size that is tried. "
                f"Expected epochs of at least {LEAST_EPOCHS}. Received: "
                f"epochs={self.recipe.epochs}"
            )

    @property
    def holds_out(self) -> bool:
        """Whether training examples are held out, to choose models by."""
        return self.max_drop is not None or self.stages > 1

    def _check_stages(self) -> None:
        if self.stages == 1:
            return
        if not 1 <= self.stages <= self.recipe.epochs:
            raise ValueError(
                "The number of stages is out of range. Expected one from 1 to "
                "the number of epochs, as a stage takes an epoch at the least. "
                f"Received: stages={self.stages}, epochs={self.recipe.epochs}"
            )
        if (
            self.rule != "budget"
            or self.max_drop is not None
            or self.target_compression is None
        ):
            raise ValueError(
                "Stages are sizes on the way to a target_compression. Expected "
                "one, rule=budget, and no max_drop. Received: "
                f"stages={self.stages}, rule={self.rule}, "
                f"max_drop={self.max_drop}, "
                f"target_compression={self.target_compression}"
            )
        if self.distribution != "none":
            raise ValueError(
                "Models of all sizes are chosen by the accuracy after every "
                "epoch, which is measured on one device. Expected "
                "distribution=none with stages. Received: "
                f"stages={self.stages}, distribution={self.distribution}"
            )

    def _check_distribution(self) -> None:
        if self.devices is not None and self.distribution != "mirrored":
            raise ValueError(
                "Devices can be chosen on one machine only. Expected no "
                "devices, or distribution=mirrored. Received: "
                f"distribution={self.distribution}, "
                f"devices={','.join(self.devices)}"
            )
        if not self.worker_timeout > 0:
            raise ValueError(
                "`worker_timeout` is too small. Expected more than 0 seconds. "
                f"Received: worker_timeout={self.worker_timeout:g}"
            )

    def identity(self) -> dict[str, Any]:
        """Returns, as JSON, all that decides what the run computes."""
        values = dataclasses.asdict(self)
        values |= values.pop("recipe")
        for name in _PLACES:
            del values[name]
        # As before there were any.
        if values["stages"] == 1:
            del values["stages"]
        for name in ("target_latency_ms", "target_ram", "target_device"):
            if values[name] is None:
                del values[name]
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }

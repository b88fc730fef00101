"""How long, how fast and on which images to train, by data set."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

OPTIMIZERS = ("sgd", "adam", "adamw")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything about training but the model and the data.

    Attributes:
        float_epochs: Epochs of float training.
        epochs: Epochs of fine-tuning with MSQ.
        batch_size: Examples in a step.
        optimizer: One of `OPTIMIZERS`, for both phases.
        float_learning_rate: Peak of float training's schedule, a cosine
            after one epoch of warm-up.
        learning_rate: Start of the fine-tuning's schedule, a cosine.
        weight_decay: Decoupled weight decay of kernels (`sgd`, `adamw`).
        shift: Largest random shift of a training image, in pixels.
        flip: Whether half of the training images are mirrored.
    """

    float_epochs: int
    epochs: int
    batch_size: int = 128
    optimizer: str = "sgd"
    float_learning_rate: float = 0.1
    learning_rate: float = 0.02
    weight_decay: float = 5e-4
    shift: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        """Refuses values that cannot train."""
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(
                "There is no such optimizer. Expected one of "
                f"{', '.join(OPTIMIZERS)}. Received: "
                f"optimizer={self.optimizer}"
            )
        for name in ("float_epochs", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"`{name}` is too small. Expected at least 1. "
                    f"Received: {name}={getattr(self, name)}"
                )
        for name in ("float_learning_rate", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(
                    f"`{name}` is no learning rate. Expected more than 0. "
                    f"Received: {name}={getattr(self, name)}"
                )
        for name in ("weight_decay", "shift"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"`{name}` is out of range. Expected at least 0. "
                    f"Received: {name}={getattr(self, name)}"
                )


# Photographs and clothes may be mirrored, so these recipes flip.
RECIPES = {
    # A minute and a half on two cores, with a ResNet-8.
    "fashion_mnist_mini": Recipe(
        float_epochs=8, epochs=6, batch_size=64, shift=1, flip=True
    ),
    "fashion_mnist": Recipe(float_epochs=30, epochs=30, shift=2, flip=True),
    "cifar10": Recipe(float_epochs=60, epochs=40, shift=4, flip=True),
    "cifar100": Recipe(float_epochs=60, epochs=40, shift=4, flip=True),
}
DEFAULT = Recipe(float_epochs=30, epochs=30)


def for_dataset(name: str, **overrides: Any) -> Recipe:
    """Returns the recipe of a data set, with some fields replaced.

    `DEFAULT` is that of a data set without one. What TFDS takes after the name
    (`:version`, `/config`) does not matter here; `None` replaces nothing.

    Raises:
        ValueError: If a field has a value that cannot train.
    """
    base = RECIPES.get(name.partition(":")[0].partition("/")[0], DEFAULT)
    given = {k: value for k, value in overrides.items() if value is not None}
    return dataclasses.replace(base, **given)

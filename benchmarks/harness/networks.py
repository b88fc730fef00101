"""The networks whose cost is measured, and how they are compiled."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.harness import peer_network as residual
from train.models import builders


@dataclasses.dataclass(frozen=True)
class Network:
    """A network and the batch it is stepped with.

    Attributes:
        name: Name.
        shape: Height, width and channels of an image.
        batch_size: Images in a step.
        classes: Number of classes.
        alpha: Width multiplier, where the network has one.
        model: As `train.models.builders.build` takes it, where that is not
            `name` and there are no `blocks`.
        blocks: Blocks a stage of a ResNet for small images; 0 for any other
            network.
        width: Factor of that ResNet's filters.
    """

    name: str
    shape: tuple[int, int, int]
    batch_size: int
    classes: int = 10
    alpha: float = 1.0
    model: str = ""
    blocks: int = 0
    width: int = 1

    def build(self) -> keras.Model:
        """The float model, with the same weights at every call."""
        keras.utils.set_random_seed(0)
        if self.blocks:
            return residual.resnet(
                residual.PlainLayers(keras),
                self.shape,
                self.classes,
                self.blocks,
                self.width,
            )
        return builders.build(
            self.model or self.name, self.shape, self.classes, self.alpha
        )

    def batch(self) -> tuple[tf.Tensor, tf.Tensor]:
        """A batch of random images and labels, the same at every call."""
        rng = np.random.default_rng(0)
        x = rng.normal(size=(self.batch_size, *self.shape))
        y = rng.integers(0, self.classes, self.batch_size)
        return tf.constant(x, tf.float32), tf.constant(y)


NETWORKS = {
    network.name: network
    for network in (
        Network("resnet8", (28, 28, 1), 128),
        Network("resnet20", (32, 32, 3), 64),
        Network("mobilenet_v2", (96, 96, 3), 32, alpha=0.35),
        Network("deit_tiny", (224, 224, 3), 32),
        # What MSQ adds to a step does not depend on the batch.
        Network("deit_tiny, small batch", (224, 224, 3), 4, model="deit_tiny"),
    )
}
# For how cost grows: one block a stage ever wider, and ever more blocks.
WIDTHS = (1, 2, 4, 8)
DEPTHS = (1, 2, 4, 8)


def _scaled(width: int, blocks: int) -> Network:
    name = f"resnet{6 * blocks + 2}_x{width}"
    return Network(name, (16, 16, 3), 32, blocks=blocks, width=width)


WIDER = {width: _scaled(width, 1) for width in WIDTHS}
DEEPER = {blocks: _scaled(1, blocks) for blocks in DEPTHS}
ALL = NETWORKS | {
    network.name: network for network in (*WIDER.values(), *DEEPER.values())
}


def compiled(
    model: Any,
    rate: Any = 0.01,
    weight_decay: float = 0.0,
    from_logits: bool = True,
) -> Any:
    """Compiles a model with SGD with momentum 0.9: one slot a variable.

    Args:
        model: A classifier, float or quantized.
        rate: Learning rate or schedule.
        weight_decay: Of the optimizer.
        from_logits: Whether the model's outputs are logits, and not shares.

    Returns:
        `model`.
    """
    model.compile(
        keras.optimizers.SGD(
            rate, momentum=0.9, weight_decay=weight_decay or None
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits),
        metrics=["accuracy"],
    )
    return model

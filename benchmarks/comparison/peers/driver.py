"""What all peers' drivers share: the two modes, and what they measure.

A driver runs in a process and an environment of its own:

    python -m benchmarks.comparison.peers.NAME cost RESULT MODEL=ROUNDS...
    python -m benchmarks.comparison.peers.NAME accuracy RESULT FOLDER SEED ROW

`cost` builds a network in float and in the peer's quantized forms in one
process and times training steps in turn, so that their ratios hold while
other work slows the machine. `accuracy` fine-tunes the float weights that
`benchmarks.comparison.peers.prepare` left in a folder, with its batches.

Only numpy, the standard library and files that need no more are imported
here: `msq_tf` is not installed where peers are.
"""

from __future__ import annotations

import abc
import dataclasses
import datetime
import functools
import importlib.metadata
import json
import math
import os
import platform
import sys
import time
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from typing import NamedTuple

import numpy as np

from benchmarks.harness import peer_network
from benchmarks.harness import timing

FLOAT = "float"
MODELS = {
    "resnet8": functools.partial(peer_network.resnet, blocks=1),
    "resnet20": functools.partial(peer_network.resnet, blocks=3),
}
_BATCH = 128
_SHAPE = (28, 28, 1)
_CLASSES = 10
_COST_RATE = 0.01
_MOMENTUM = 0.9


class Stored(NamedTuple):
    """One weight as a file has to hold it.

    Attributes:
        name: Name of its layer.
        elements: Number of elements.
        bits: Stored bits of all of them together, signs included.
        widest: Stored bits of the widest element.
        widths: Bits that it takes at least to say which element has which
            width, their entropy; 0 where all have one.
    """

    name: str
    elements: int
    bits: int
    widest: int
    widths: float = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """What `benchmarks.comparison.peers.prepare` wrote for one seed.

    Attributes:
        budget: Epochs, steps, learning rate and more, as
            `Study.budget` names them, and the `pixel_scale`.
        arrays: `images` (step, example, height, width, channel) uint8 and
            `labels` of the training batches in order, augmented; likewise
            `test_`, `statistics_` and `held_out_`, without batches.
        weights: Float weights by name.
    """

    budget: dict[str, Any]
    arrays: Mapping[str, np.ndarray]
    weights: Mapping[str, np.ndarray]

    def pixels(self, name: str) -> np.ndarray:
        """float32 images as the networks take them."""
        scale = np.float32(self.budget["pixel_scale"])
        return self.arrays[f"{name}_images"].astype(np.float32) * scale


def read(folder: Path, seed: int) -> Data:
    """Reads a folder of `benchmarks.comparison.peers.prepare`."""

    def arrays(name: str) -> dict[str, np.ndarray]:
        with np.load(folder / name) as file:
            return dict(file)

    return Data(
        json.loads((folder / "budget.json").read_text()),
        arrays("data.npz") | arrays(f"batches-{seed}.npz"),
        arrays("base.npz"),
    )


class Driver(abc.ABC):
    """How one peer makes a model and what it has to store.

    Attributes:
        packages: Distributions whose versions are recorded.
        keras: The module of Keras that the peer works with.
        cost_rows: Quantized forms that `cost` times.
    """

    packages: tuple[str, ...]
    keras: Any
    cost_rows: tuple[str, ...]

    @abc.abstractmethod
    def quantized(
        self,
        row: str,
        build: peer_network.Network,
        weights: Mapping[str, np.ndarray] | None,
    ) -> Any:
        """Makes the peer's form of a network.

        Args:
            row: Which form; what rows there are is the peer's affair.
            build: The network.
            weights: Float weights to start from; `None` for fresh ones.

        Returns:
            A model that has not been compiled.
        """

    @abc.abstractmethod
    def stored(self, model: Any) -> list[Stored]:
        """What the weights of all convolutions and dense layers take."""

    @abc.abstractmethod
    def values(self, model: Any) -> dict[str, np.ndarray]:
        """Their quantized values by layer, as the model computes with them."""

    def optimizer(self, row: str, rate: Any) -> Any:
        """SGD with momentum, for every peer and row."""
        return self.keras.optimizers.SGD(rate, momentum=_MOMENTUM)

    def callbacks(self, row: str, data: Data) -> list[Any]:
        """Callbacks of a fine-tuning run."""
        return []

    def model(
        self,
        row: str,
        build: peer_network.Network,
        weights: Mapping[str, np.ndarray] | None = None,
    ) -> Any:
        """The model of a row, float or quantized, not compiled."""
        self.keras.utils.set_random_seed(0)
        if row != FLOAT:
            return self.quantized(row, build, weights)
        return self.float_model(build, weights)

    def float_model(
        self,
        build: peer_network.Network,
        weights: Mapping[str, np.ndarray] | None,
    ) -> Any:
        """A plain model, with given weights or fresh ones."""
        return peer_network.built(
            build, peer_network.PlainLayers(self.keras), weights
        )

    def compile(self, model: Any, row: str, rate: Any) -> None:
        """Compiles as all peers' models are compiled."""
        model.compile(
            self.optimizer(row, rate),
            self.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )


def cost(driver: Driver, name: str, rounds: int) -> dict[str, Any]:
    """Times training steps of one network, float and quantized, in turn.

    Args:
        driver: The peer.
        name: A key of `MODELS`.
        rounds: Timed steps of each form.

    Returns:
        For every row the median step and its ratio to the float step, and
        elements of trainable variables and of optimizer slots; JSON values.
    """
    import tensorflow as tf

    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(_BATCH, *_SHAPE)), tf.float32)
    y = tf.constant(rng.integers(0, _CLASSES, _BATCH))
    models = {}
    for row in (FLOAT, *driver.cost_rows):
        models[row] = driver.model(row, MODELS[name])
        driver.compile(models[row], row, _COST_RATE)
    steps = {
        row: functools.partial(model.train_on_batch, x, y)
        for row, model in models.items()
    }
    seconds = timing.interleaved(steps, rounds)
    return {
        "model": name,
        "batch_size": _BATCH,
        "input_shape": list(_SHAPE),
        "rounds": rounds,
        "rows": {
            row: {
                "step_ms": timing.milliseconds(seconds[row]),
                "step_ratio": timing.ratio(seconds, row, FLOAT),
                "trainable": elements(model.trainable_variables),
                "slots": slots(model.optimizer),
            }
            for row, model in models.items()
        },
    }


def elements(variables: Sequence[Any]) -> int:
    """Number of elements of variables."""
    return sum(math.prod(variable.shape) for variable in variables)


def slots(optimizer: Any) -> int:
    """Elements that an optimizer keeps for the variables it trains."""
    return elements(
        [
            variable
            for variable in optimizer.variables
            if not any(
                word in variable.name for word in ("iteration", "learning_rate")
            )
        ]
    )


def accuracy(driver: Driver, row: str, data: Data, seed: int) -> dict[str, Any]:
    """Fine-tunes the float weights as one row.

    Args:
        driver: The peer.
        row: Which form of its models.
        data: Weights, batches, budget.
        seed: What seed the batches have; recorded.

    Returns:
        Test accuracy from 0 to 1, and sizes by stored bits; JSON values.
    """
    import tensorflow as tf

    budget = data.budget
    model = driver.model(row, MODELS["resnet8"], data.weights)
    steps = budget["epochs"] * budget["steps"]
    driver.compile(
        model,
        row,
        driver.keras.optimizers.schedules.CosineDecay(
            budget["learning_rate"], steps
        ),
    )
    driver.keras.utils.set_random_seed(seed)
    scale = tf.constant(budget["pixel_scale"], tf.float32)
    batches = tf.data.Dataset.from_tensor_slices(
        (data.arrays["images"], data.arrays["labels"])
    ).map(lambda x, y: (tf.cast(x, tf.float32) * scale, y))
    start = time.perf_counter()
    model.fit(
        batches.prefetch(2),
        epochs=budget["epochs"],
        steps_per_epoch=budget["steps"],
        shuffle=False,
        verbose=2,
        callbacks=driver.callbacks(row, data),
    )
    seconds = time.perf_counter() - start
    logits = model.predict(data.pixels("test"), batch_size=500, verbose=0)
    labels = data.arrays["test_labels"]
    return {
        "row": row,
        "seed": seed,
        "accuracy": float((logits.argmax(-1) == labels).mean()),
        "loss": cross_entropy(logits, labels),
        "seconds": round(seconds, 1),
        "date": datetime.date.today().isoformat(),
        **sizes(
            driver.stored(model) if row != FLOAT else float_stored(data.weights)
        ),
    }


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross entropy in nats."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(-1, keepdims=True)
    right = np.take_along_axis(shifted, labels[:, None].astype(int), -1)[:, 0]
    return float((np.log(np.exp(shifted).sum(-1)) - right).mean())


def entropy(values: np.ndarray) -> float:
    """Bits that an array takes at least, by how often each value occurs."""
    counts = np.unique(values, return_counts=True)[1]
    return float(-(counts * np.log2(counts / values.size)).sum()) + 0.0


def float_stored(weights: Mapping[str, np.ndarray]) -> list[Stored]:
    """Kernels of a float model, 32 bits each."""
    return [
        Stored(name.split("/")[0], w.size, 32 * w.size, 32)
        for name, w in weights.items()
        if name.endswith("/kernel")
    ]


def sizes(stored: Sequence[Stored]) -> dict[str, Any]:
    """Totals over weights.

    Returns:
        `stored_bytes` by stored bits alone, `told_bytes` with the widths of
        elements told, `uniform_bytes` where a layer has the width of its
        widest element; the average stored bits and the compression of 32-bit
        weights that the first of these mean; and the layers.
    """
    count = sum(weight.elements for weight in stored)
    bits = sum(weight.bits for weight in stored)
    return {
        "weights": count,
        "stored_bytes": bits / 8,
        "told_bytes": (bits + sum(weight.widths for weight in stored)) / 8,
        "uniform_bytes": sum(w.elements * w.widest for w in stored) / 8,
        "average_bits": bits / count,
        "compression": 32 * count / bits,
        "layers": [weight._asdict() for weight in stored],
    }


def environment(packages: Sequence[str]) -> dict[str, Any]:
    """Versions and date of this process."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "date": datetime.date.today().isoformat(),
        "versions": {
            package: importlib.metadata.version(package)
            for package in ("tensorflow", *packages)
        },
    }


def main(driver: Driver, arguments: Sequence[str]) -> int:
    """Runs a driver's command line, see above; results are JSON."""
    mode, result, *rest = arguments
    content: dict[str, Any] = {"environment": environment(driver.packages)}
    if mode == "cost":
        content["models"] = [
            cost(driver, name, int(rounds))
            for name, rounds in (word.split("=") for word in rest)
        ]
    elif mode == "accuracy":
        folder, seed, row = rest
        data = read(Path(folder), int(seed))
        content["run"] = accuracy(driver, row, data, int(seed))
    else:
        print(
            "There is no such mode. Expected cost or accuracy. Received: "
            f"{mode}",
            file=sys.stderr,
        )
        return 2
    Path(result).write_text(json.dumps(content, indent=2) + "\n")
    return 0

"""What a whole search's statistics take, beside the steps of its run.

Each network is a process of its own. `statistics_run` says how it is measured.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.files import large_run
from benchmarks.harness import child
from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import ran
from benchmarks.harness.markdown import table
from benchmarks.harness.networks import NETWORKS
from benchmarks.training_cost import statistics_run

COLUMNS = (
    "network",
    "a step, s",
    "peak of training, MiB",
    "of statistics, MiB",
    "peak / training",
    "both without tracing",
    "first decision",
    "decisions",
    "all statistics / 1,000 steps",
)


# Networks that an interrupted run has measured.
_NETWORKS = Path("out/statistics")


@dataclasses.dataclass(frozen=True)
class _Application:
    """A network of `keras.applications` at its own size."""

    name: str
    size: int
    batch_size: int

    def build(self) -> keras.Model:
        keras.utils.set_random_seed(0)
        return getattr(keras.applications, self.name)(
            weights=None, classifier_activation=None
        )

    def batch(self) -> tuple[tf.Tensor, tf.Tensor]:
        return _random((self.batch_size, self.size, self.size, 3), 1000)


@dataclasses.dataclass(frozen=True)
class _Transformer:
    """A vision transformer of many weights on few patches."""

    width: int
    depth: int
    batch_size: int

    def build(self) -> keras.Model:
        return large_run.network(self.width, self.depth)

    def batch(self) -> tuple[tf.Tensor, tf.Tensor]:
        shape = (self.batch_size, *large_run.SHAPE)
        return _random(shape, large_run.CLASSES)


def _random(
    shape: tuple[int, ...], classes: int
) -> tuple[tf.Tensor, tf.Tensor]:
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=shape), tf.float32)
    return x, tf.constant(rng.integers(0, classes, shape[0]))


ALL: dict[str, Any] = {
    f"{name.partition(',')[0]}, batch {network.batch_size}": network
    for name, network in NETWORKS.items()
} | {
    "EfficientNetB0, 224 px, batch 16": _Application("EfficientNetB0", 224, 16),
    "transformer, 99 million, batch 32": _Transformer(768, 14, 32),
}


def measure() -> dict[str, Any]:
    """Measures every network; an interrupted run goes on where it was.

    Returns:
        What `statistics_run.measure` returns, by network.
    """
    found = {
        name: child.measured_once(
            _NETWORKS, "benchmarks.training_cost.statistics", name
        )
        for name in ALL
    }
    child.finished(_NETWORKS)
    return found


def rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """Memory and time of all statistics of a run, as text."""
    found = []
    for name, taken in results.items():
        peak = max(taken["first_mib"], taken["later_mib"])
        training = max(taken["training_mib"], taken["step_mib"])
        run = taken["steps"] * taken["step_seconds"]
        found.append(
            (
                name,
                f"{taken['step_seconds']:.2f}",
                f"{training:,.0f}",
                f"{peak:,.0f}",
                f"{peak / training:.2f}x",
                f"{taken['later_mib'] / taken['step_mib']:.2f}x",
                f"{taken['first_seconds'] / taken['step_seconds']:.0f} steps",
                str(taken["decisions"]),
                f"{taken['statistics_seconds'] / run:.1%}",
            )
        )
    return found


def markdown(content: dict[str, Any]) -> str:
    """One line a network."""
    return page(
        f"{ran(content['environment'], 'a process a network')}:",
        table(COLUMNS, rows(content["results"])),
    )


def main(arguments: list[str]) -> int:
    """Measures one network, and writes what was found."""
    name, result = arguments
    child.write(result, statistics_run.measure(ALL[name]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

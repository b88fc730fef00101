"""What training costs by each method, against the plain float step.

Steps are timed in turn in one process. Memory is measured in a process for
each pair of network and method, and counted besides: what a peak holds beyond
variables, gradients and slots are activations, the same for all methods.
"""

from __future__ import annotations

import time
from typing import Any

import keras
import tensorflow as tf

import msq_tf
from benchmarks.harness import child
from benchmarks.harness import timing
from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import ran
from benchmarks.harness.markdown import table
from benchmarks.harness.networks import NETWORKS
from benchmarks.harness.networks import Network
from benchmarks.training_cost import methods
from msq_tf.sensitivity.hessian import BlockHessian

_CHANGES = 20
# Batches of a prediction.
_PREDICTED = 4
_NAMES = {
    methods.FLOAT: "float",
    methods.AGAIN: "float, a second model",
    methods.SEARCHING: "MSQ, searching",
    methods.FROZEN: "MSQ, bits frozen",
    methods.BSQ: "BSQ",
    methods.CSQ: "CSQ",
}


def measure(rounds: int = 21) -> dict[str, Any]:
    """Measures every network.

    Args:
        rounds: Timed steps of each method.

    Returns:
        For every network the counts, step times and memory of each method,
        what a Hessian probe and a change of precision cost; JSON values.
    """
    return {
        "rounds": rounds,
        "seed": 0,
        "optimizer": "SGD, momentum 0.9",
        "networks": {
            name: _measure(network, rounds)
            for name, network in NETWORKS.items()
        },
    }


def _measure(network: Network, rounds: int) -> dict[str, Any]:
    keras.backend.clear_session()
    x, y = network.batch()
    models = {
        method: methods.build(method, network.build())
        for method in methods.METHODS
    }
    seconds = timing.interleaved(
        {
            method: lambda model=model: model.train_on_batch(x, y)  # type: ignore[misc]
            for method, model in models.items()
        },
        rounds,
    )
    many = tf.concat([x] * _PREDICTED, 0)
    predictions = timing.interleaved(
        {
            method: lambda model=model: model.predict(  # type: ignore[misc]
                many, network.batch_size, verbose=0
            )
            for method, model in models.items()
        },
        max(rounds // 3, 1),
        warmup=1,
    )
    frozen = models[methods.FROZEN]
    return {
        "input_shape": list(network.shape),
        "batch_size": network.batch_size,
        "alpha": network.alpha,
        "layers": len(frozen.paths),
        "methods": {
            method: {
                "step_ms": timing.milliseconds(seconds[method]),
                "step_ratio": timing.ratio(seconds, method, methods.FLOAT),
                "prediction_ratio": timing.ratio(
                    predictions, method, methods.FLOAT
                ),
                **methods.counts(model),
                **memory(network.name, method),
            }
            for method, model in models.items()
        },
        "change": _change(network, timing.milliseconds(seconds[methods.FLOAT])),
        "hessian": _hessian(frozen, (x, y, None), max(rounds // 3, 5)),
    }


def memory(network: str, method: str) -> dict[str, Any]:
    """What a method's step takes, measured in a process of its own.

    Args:
        network: Name of a network of `networks.ALL`.
        method: A key of `methods.METHODS`.

    Returns:
        `start_mib`, `traced_mib` and `step_mib`, see `memory_run`.
    """
    return child.measured(
        "benchmarks.training_cost.memory_run", network, method
    )


class _CountingLoss(keras.losses.SparseCategoricalCrossentropy):
    """Counts how often it is traced."""

    def __init__(self) -> None:
        super().__init__(from_logits=True)
        self.traces = 0

    def call(self, y_true: Any, y_pred: Any) -> Any:
        self.traces += 1
        return super().call(y_true, y_pred)


def _change(network: Network, step_ms: float) -> dict[str, Any]:
    """Seconds that a change of all widths takes, and what it retraces."""
    qmodel = msq_tf.quantize_model(network.build())
    loss = _CountingLoss()
    qmodel.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
    x, y = network.batch()
    qmodel.train_on_batch(x, y)
    traced = loss.traces
    seconds = []
    for turn in range(_CHANGES):
        start = time.perf_counter()
        qmodel.set_bits(dict.fromkeys(qmodel.paths, 2 + turn % 7))
        seconds.append(time.perf_counter() - start)
        if turn < 2:
            qmodel.train_on_batch(x, y)
    milliseconds = timing.milliseconds(seconds)
    return {
        "ms": milliseconds,
        "in_steps": milliseconds / step_ms,
        "retraces": loss.traces - traced,
    }


def _hessian(
    qmodel: msq_tf.MSQModel, batch: Any, rounds: int
) -> dict[str, Any]:
    values = qmodel.quantized_values()
    hessian = BlockHessian(qmodel.loss_at)

    @tf.function(autograph=False)
    def gradient(values: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(values)
            loss = qmodel.loss_at(values, batch)
        return tape.gradient(loss, values)

    seconds = timing.interleaved(
        {
            "gradient": lambda: [g.numpy() for g in gradient(values)],
            "probe": lambda: hessian.traces(
                values, [batch], max_probes=1, min_probes=1
            ),
        },
        rounds,
    )
    return {
        "gradient_ms": timing.milliseconds(seconds["gradient"]),
        "probe_ms": timing.milliseconds(seconds["probe"]),
        "probe_in_gradients": timing.ratio(seconds, "probe", "gradient"),
    }


def search_rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """Network, weights, and what a search adds to a run, as text."""
    found = []
    for name, network in results["networks"].items():
        hessian, change = network["hessian"], network["change"]
        found.append(
            (
                name,
                str(network["layers"]),
                f"{of_a_run(network):.2f}x",
                f"{hessian['probe_in_gradients']:.2f} gradients",
                f"{change['ms']:.2f} ms, {change['in_steps']:.3f} steps",
                str(change["retraces"]),
            )
        )
    return found


def cells(network: dict[str, Any], row: dict[str, Any]) -> tuple[str, ...]:
    """One method of one network as text: ratios to the float step."""
    plain = network["methods"][methods.FLOAT]
    trainable, slots, memory = (
        row[key] / plain[key] for key in ("trainable", "slots", "step_mib")
    )
    return (
        f"{trainable:.2f}x",
        f"{slots:.2f}x",
        f"{row['step_ratio']:.2f}x",
        f"{row['prediction_ratio']:.2f}x",
        f"{row['step_mib']:,.0f}",
        f"{memory:.2f}x",
        f"{row['traced_mib']:,.0f}",
    )


def of_a_run(network: dict[str, Any]) -> float:
    """Ratio of a default run's steps to those of float, the mean.

    Args:
        network: What `measure` returns of one. All of its weights are pulled
            while a search lasts.
    """
    share = msq_tf.BudgetRule(target_compression=8.0).end
    searching, frozen = (
        network["methods"][method]["step_ratio"]
        for method in (methods.SEARCHING, methods.FROZEN)
    )
    return share * searching + (1.0 - share) * frozen


def markdown(content: dict[str, Any]) -> str:
    """A table of the methods, and one of what a search adds."""
    results = content["results"]
    methods_of = (
        "network",
        "method",
        "trainable",
        "optimizer slots",
        "step",
        "prediction",
        "peak of a step, MiB",
        "of float",
        "peak with tracing, MiB",
    )
    search = (
        "network",
        "weights",
        "step of a default run, mean",
        "Hessian probe, all of them",
        "change of all widths",
        "retraces",
    )
    facts = ran(
        content["environment"],
        f"medians of {results['rounds']} interleaved rounds in one process",
        results["optimizer"],
        "random weights and inputs",
    )
    return page(
        f"{facts}; memory is resident, of a process for each row:",
        table(methods_of, method_rows(results), left=2),
        table(search, search_rows(results)),
    )


def method_rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """Every method of every network as text."""
    found = []
    for name, network in results["networks"].items():
        height, width, channels = network["input_shape"]
        size = f"{network['batch_size']} x {height}x{width}x{channels}"
        label = f"{_title(name)}, {size}"
        found += [
            (label, _NAMES[method], *cells(network, row))
            for method, row in network["methods"].items()
        ]
    return found


def _title(name: str) -> str:
    """A network's name without what tells it from the same at another batch."""
    return name.partition(",")[0]

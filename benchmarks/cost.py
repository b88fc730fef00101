"""What MSQ costs: a training step, and a Hessian probe for all layers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import rich.table
import tensorflow as tf

import msq_tf
from benchmarks import timing
from msq_tf.hessian import BlockHessian
from train import models

_BATCH = 128
_SHAPE = (28, 28, 1)
_CLASSES = 10


def measure(rounds: int = 60) -> dict[str, Any]:
    """Times steps of ResNet-8 at batch 128, float against MSQ.

    Args:
        rounds: Timed calls of each variant.

    Returns:
        Ratios and medians, JSON values.
    """
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(_BATCH, *_SHAPE)), tf.float32)
    y = tf.constant(rng.integers(0, _CLASSES, _BATCH))

    plain = _compiled(_build())
    search = _compiled(msq_tf.quantize_model(_build()))
    frozen = _compiled(msq_tf.quantize_model(_build()))
    # As in the middle of a search: every layer is pulled.
    search.search.lsb.assign([4] * len(search.paths))
    search.search.strength.assign(0.05)
    seconds = timing.interleaved(
        {
            "float": lambda: plain.train_on_batch(x, y),
            "search": lambda: search.train_on_batch(x, y),
            "frozen": lambda: frozen.train_on_batch(x, y),
        },
        rounds,
    )
    hessian = _hessian_seconds(search, (x, y, None), max(rounds // 3, 5))
    return {
        "model": "resnet8",
        "batch_size": _BATCH,
        "input_shape": list(_SHAPE),
        "seed": 0,
        "rounds": rounds,
        "trainable_parameters": {
            "float": plain.count_params() - _untrained(plain),
            "msq": search.count_params() - _untrained(search),
        },
        "step_ms": {
            name: timing.milliseconds(values)
            for name, values in seconds.items()
        },
        "step_ratio": {
            name: timing.ratio(seconds, name, "float")
            for name in ("search", "frozen")
        },
        "hessian_ms": {
            name: timing.milliseconds(values)
            for name, values in hessian.items()
        },
        "probe_in_gradients": timing.ratio(hessian, "probe", "gradient"),
        "layers_per_probe": len(search.paths),
    }


def _build() -> keras.Model:
    return models.build("resnet8", _SHAPE, _CLASSES)


def _compiled(model: Any) -> Any:
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def _untrained(model: Any) -> int:
    return sum(int(np.prod(v.shape)) for v in model.non_trainable_variables)


def _hessian_seconds(
    qmodel: msq_tf.MSQModel, batch: Any, rounds: int
) -> dict[str, list[float]]:
    values = qmodel.quantized_values()
    hessian = BlockHessian(qmodel.loss_at)

    @tf.function(autograph=False)
    def gradient(values: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(values)
            loss = qmodel.loss_at(values, batch)
        return tape.gradient(loss, values)

    return timing.interleaved(
        {
            "gradient": lambda: [g.numpy() for g in gradient(values)],
            "probe": lambda: hessian.traces(
                values, [batch], max_probes=1, min_probes=1
            ),
        },
        rounds,
    )


def table(results: dict[str, Any]) -> rich.table.Table:
    """The figures as a table."""
    view = rich.table.Table(
        title=f"Cost on {results['model']}, batch {results['batch_size']}"
    )
    view.add_column("what")
    view.add_column("median ms", justify="right")
    view.add_column("ratio", justify="right")
    ms, ratios = results["step_ms"], results["step_ratio"]
    view.add_row("float step", f"{ms['float']:.1f}", "1.00")
    view.add_row(
        "MSQ step, searching (all layers pulled)",
        f"{ms['search']:.1f}",
        f"{ratios['search']:.2f}",
    )
    view.add_row(
        "MSQ step, bits frozen",
        f"{ms['frozen']:.1f}",
        f"{ratios['frozen']:.2f}",
    )
    ms = results["hessian_ms"]
    view.add_row("gradient", f"{ms['gradient']:.1f}", "1.00")
    view.add_row(
        f"Hessian probe, all {results['layers_per_probe']} layers",
        f"{ms['probe']:.1f}",
        f"{results['probe_in_gradients']:.2f}",
    )
    counts = results["trainable_parameters"]
    view.add_row(
        "trainable parameters, MSQ against float",
        "",
        f"{counts['msq'] / counts['float']:.2f}",
    )
    return view

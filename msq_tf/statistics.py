"""Gathers what a rule wants to know from a model and a few batches."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from msq_tf import round_clamp
from msq_tf.batches import Batch
from msq_tf.hessian import BlockHessian
from msq_tf.hessian import TraceEstimate
from msq_tf.model import MSQModel
from msq_tf.overlay import read_float32
from msq_tf.search import LayerStats
from msq_tf.search import Rule

MEASURED = "measured"
HESSIAN = "hessian"
RANKINGS = (MEASURED, HESSIAN)


def layer_outlines(model: MSQModel) -> tuple[LayerStats, ...]:
    """What is known of the quantized weights without looking at data."""
    bits = model.bits
    return tuple(
        LayerStats(
            path=entry.path,
            size=size,
            bits=bits[entry.path],
            min_bits=entry.min_bits,
            kind=kind,
            channels=channels,
        )
        for (entry, kind, channels), size in zip(
            model.outlines, model.sizes, strict=True
        )
    )


class StatisticsGatherer:
    """Sensitivities, LSB shares and costs of the layers of one model.

    Everything is taken at the quantized weights, on fixed batches, in
    inference mode (batch norm by its moving statistics, no dropout), with
    the loss the model was compiled with. Compiled functions are kept, so
    that later calls trace nothing.

    Args:
        model: A compiled `MSQModel`.
        batches: `(x, y, sample_weight)` tuples of tensors, of one size.
        ranking: How the cost of a width is predicted. `"measured"` takes the
            loss with that one weight changed, a forward pass each.
            `"hessian"` takes the second-order estimate
            `Tr(H) / (2 N) * ||change||**2`.
    """

    def __init__(
        self,
        model: MSQModel,
        batches: Sequence[Batch],
        ranking: str = MEASURED,
    ):
        if ranking not in RANKINGS:
            raise ValueError(
                f"`ranking` is unknown. Expected one of {RANKINGS}. "
                f"Received: ranking={ranking!r}"
            )
        self.model = model
        self.batches = list(batches)
        self.ranking = ranking
        self._hessian = BlockHessian(model.loss_at)
        self._loss = tf.function(model.loss_at, autograph=False)

    def traces(self, **options: Any) -> TraceEstimate:
        """Hessian traces at the current quantized weights.

        Args:
            **options: As `BlockHessian.traces` takes them.

        Raises:
            ValueError: If an operation has no second derivative.
        """
        values = self.model.quantized_values()
        with _metrics_kept(self.model):
            try:
                return self._hessian.traces(values, self.batches, **options)
            except LookupError as error:
                raise ValueError(
                    "The loss has no second derivative in TensorFlow. Expected "
                    "a model and loss that are twice differentiable, or "
                    f"`MSQCallback(hessian=False)`. Received: {error}"
                ) from error

    def layers(
        self,
        rule: Rule,
        trace: np.ndarray,
        trace_error: np.ndarray,
        *,
        with_cost: bool,
    ) -> tuple[LayerStats, ...]:
        """Statistics of every quantized weight, in the model's order.

        Args:
            rule: Says which widths are candidates.
            trace: float array of shape (weights,), from `traces`. Negative
                entries, noise or a saddle, count as zero.
            trace_error: Its standard error, in the same shape.
            with_cost: Whether to predict the cost of candidates too.
        """
        with _metrics_kept(self.model):
            return self._layers(rule, trace, trace_error, with_cost)

    def _layers(
        self,
        rule: Rule,
        trace: np.ndarray,
        trace_error: np.ndarray,
        with_cost: bool,
    ) -> tuple[LayerStats, ...]:
        model = self.model
        current = list(model.quantized_values())
        scales = model.scales()
        records = []
        for i, outline in enumerate(layer_outlines(model)):
            w = read_float32(model.kernels[i])
            bits = outline.bits
            widths = rule.widths(outline)
            quantized = {
                width: round_clamp.quantize(
                    w, scales[i], width, 0, model.quantizer
                ).value
                for width in widths
            }
            # A layer that cannot go lower is described one bit down.
            nearest = widths[0] if widths else max(bits - 1, 2)
            rounded = round_clamp.quantize(
                w, scales[i], nearest, 0, model.quantizer
            ).value
            distance = float(tf.reduce_sum((rounded - w) ** 2))
            curvature = max(float(trace[i]), 0.0) / model.sizes[i]
            records.append(
                (
                    dataclasses.replace(
                        outline,
                        sensitivity=curvature * distance,
                        sensitivity_error=float(trace_error[i])
                        / model.sizes[i]
                        * distance,
                        lsb_nonzero={
                            bits - width: self._share(
                                w, scales[i], bits, bits - width
                            )
                            for width in widths
                        },
                    ),
                    quantized,
                    curvature,
                )
            )
        if not with_cost:
            return tuple(stats for stats, _, _ in records)
        return tuple(self._with_costs(records, current))

    def _share(
        self, w: tf.Tensor, scale: tf.Tensor, bits: int, k: int
    ) -> float:
        lsb = round_clamp.quantize(w, scale, bits, k, self.model.quantizer).lsb
        return float(tf.math.count_nonzero(lsb)) / float(tf.size(lsb))

    def _with_costs(
        self,
        records: Sequence[tuple[LayerStats, dict[int, tf.Tensor], float]],
        current: list[tf.Tensor],
    ) -> Iterator[LayerStats]:
        measured = self.ranking == MEASURED
        before = self._mean_loss(current) if measured else 0.0
        mean = np.mean([stats.sensitivity for stats, _, _ in records])
        for i, (stats, quantized, curvature) in enumerate(records):
            cost = {}
            for n, (width, value) in enumerate(quantized.items()):
                # Only layers below the mean may take two widths at once.
                if measured and n and stats.sensitivity > mean:
                    break
                if measured:
                    changed = [*current[:i], value, *current[i + 1 :]]
                    cost[width] = self._mean_loss(changed) - before
                else:
                    moved = float(tf.reduce_sum((value - current[i]) ** 2))
                    cost[width] = 0.5 * curvature * moved
            yield dataclasses.replace(stats, cost=cost)

    def _mean_loss(self, values: list[tf.Tensor]) -> float:
        losses = [self._loss(values, batch) for batch in self.batches]
        return float(np.mean([loss.numpy() for loss in losses]))


@contextlib.contextmanager
def _metrics_kept(model: MSQModel) -> Iterator[None]:
    """Undoes what computing losses does to the running metrics of `fit`."""
    variables = model.metrics_variables
    values = [variable.numpy() for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)

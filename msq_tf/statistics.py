"""Gathers what a rule wants to know from a model and a few batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from msq_tf import replicas
from msq_tf import round_clamp
from msq_tf.batches import Batch
from msq_tf.divergence import output_divergence
from msq_tf.hessian import BlockHessian
from msq_tf.hessian import TraceEstimate
from msq_tf.network import QuantizedNetwork
from msq_tf.round_clamp import MAX_BITS
from msq_tf.round_clamp import MIN_BITS
from msq_tf.search import LayerStats
from msq_tf.search import Rule

AUTO = "auto"
DIVERGENCE = "divergence"
MEASURED = "measured"
HESSIAN = "hessian"
RANKINGS = (AUTO, DIVERGENCE, MEASURED, HESSIAN)

# Damage at these widths is taken from forward passes; that at others follows
# from the nearest of them by the squared distance, which is exact enough at
# high precision, where a forward pass sees little but rounding noise.
_PROBED = (4, 3, 2)


def layer_outlines(model: QuantizedNetwork) -> tuple[LayerStats, ...]:
    """What is known of the quantized weights without looking at data."""
    bits = model.bits
    grown = model.search.grown.numpy()
    return tuple(
        LayerStats(
            path=entry.path,
            size=size,
            bits=bits[entry.path],
            min_bits=entry.min_bits,
            kind=kind,
            channels=channels,
            start_bits=entry.start_bits,
            grown=int(count),
        )
        for (entry, kind, channels), size, count in zip(
            model.outlines, model.sizes, grown, strict=True
        )
    )


class StatisticsGatherer:
    """Sensitivities, LSB shares and costs of the layers of one model.

    Everything is taken at the quantized weights, on fixed batches, in
    inference mode (batch norm by its moving statistics, no dropout), with
    the loss the model was compiled with. Compiled functions are kept, so
    that later calls trace nothing.

    Under a `tf.distribute` strategy the traces are spread over its replicas,
    so all workers take them together; the rest is taken once, on the first
    replica of the worker that asks.

    Args:
        model: A compiled model.
        batches: `(x, y, sample_weight)` tuples of tensors, of one size.
        ranking: How the cost of a width is predicted. `"divergence"` takes
            how far the outputs move with that one weight changed, see
            `divergence`; `"measured"` takes the increase of the loss, both
            a forward pass each; `"hessian"` takes the second-order estimate
            `Tr(H) / (2 N) * ||change||**2`. `"auto"` is the divergence, or
            the measured loss where the loss is the user's own function.
        held_out: Batches for the gains of wider widths; none for no gains.

    Raises:
        ValueError: If `ranking` is unknown, or the compiled loss has no
            divergence.
    """

    def __init__(
        self,
        model: QuantizedNetwork,
        batches: Sequence[Batch],
        ranking: str = AUTO,
        held_out: Sequence[Batch] = (),
    ):
        if ranking not in RANKINGS:
            raise ValueError(
                f"`ranking` is unknown. Expected one of {RANKINGS}. "
                f"Received: ranking={ranking!r}"
            )
        self.model = model
        self.batches = list(batches)
        self.held_out = list(held_out)
        divergence = None
        if ranking in (AUTO, DIVERGENCE):
            compiled = model.compiled_losses()
            divergence = output_divergence(compiled)
            if divergence is None and ranking == DIVERGENCE:
                raise ValueError(
                    "The compiled loss has no divergence. Expected losses of "
                    "`keras.losses` for cross entropy or regression, or "
                    f"`ranking='measured'`. Received: loss={compiled.loss!r}"
                )
        if ranking == AUTO:
            ranking = DIVERGENCE if divergence else MEASURED
        self.ranking = ranking
        self._divergence = divergence
        self._hessian = BlockHessian(
            model.loss_at, model.paths, model.distribute_strategy
        )
        self._loss = tf.function(model.loss_at, autograph=False)
        self._outputs = tf.function(model.outputs_at, autograph=False)

    def traces(self, **options: Any) -> TraceEstimate:
        """Hessian traces at the current quantized weights.

        Args:
            **options: As `BlockHessian.traces` takes them.

        Raises:
            ValueError: If an operation has no second derivative.
        """
        replicas.align(
            self.model.distribute_strategy, self.model.state_variables
        )
        values = self.model.quantized_values()
        with self.model.metrics_kept():
            try:
                return self._hessian.traces(values, self.batches, **options)
            except LookupError as error:
                raise ValueError(
                    "The loss has no second derivative in TensorFlow. Expected "
                    "a model and loss that are twice differentiable, or "
                    f"`MSQCallback(hessian=False)`. Received: {error}"
                ) from error

    def loss(self) -> float:
        """Mean loss at the current quantized weights."""
        with self.model.metrics_kept():
            return self._mean_loss(self.model.quantized_values(), self.batches)

    def layers(
        self,
        rule: Rule,
        trace: np.ndarray,
        trace_error: np.ndarray,
        costs: np.ndarray,
    ) -> tuple[LayerStats, ...]:
        """Statistics of every quantized weight, in the model's order.

        Args:
            rule: Says which widths are candidates.
            trace: float array of shape (weights,), from `traces`. Negative
                entries, noise or a saddle, count as zero.
            trace_error: Its standard error, in the same shape.
            costs: float array of shape (weights, MAX_BITS + 1), from `costs`
                or zeros.
        """
        model = self.model
        latent, scales = model.latent_weights(), model.scales()
        gains = self._gains(rule)
        layers = []
        for i, outline in enumerate(layer_outlines(model)):
            w = latent[i]
            bits = outline.bits
            # A layer that cannot go lower is described one bit down.
            nearest = self._quantized(w, scales[i], max(bits - 1, MIN_BITS))
            distance = _squared(nearest - w)
            curvature = max(float(trace[i]), 0.0) / model.sizes[i]
            layers.append(
                dataclasses.replace(
                    outline,
                    sensitivity=curvature * distance,
                    # One probe has an infinite error, also where nothing moves.
                    sensitivity_error=distance
                    and float(trace_error[i]) / model.sizes[i] * distance,
                    lsb_nonzero={
                        bits - width: self._share(
                            w, scales[i], bits, bits - width
                        )
                        for width in rule.widths(outline)[:2]
                    },
                    cost={
                        width: float(costs[i, width])
                        for width in range(MIN_BITS, bits + 1)
                    },
                    gain=float(gains[i]),
                )
            )
        return tuple(layers)

    def costs(self, rule: Rule, trace: np.ndarray) -> np.ndarray:
        """Predicted increase of the loss at every width below a layer's own.

        Args:
            rule: Says which widths are candidates.
            trace: float array of shape (weights,), from `traces`; only
                `ranking="hessian"` looks at it.

        Returns:
            float64 array of shape (weights, MAX_BITS + 1): entry (i, b) is
            the cost of weight i coming to b bits alone; 0 at its own width
            and at widths that are no candidates.
        """
        model = self.model
        current = list(model.quantized_values())
        latent, scales = model.latent_weights(), model.scales()
        damage = self._damage(current)
        costs = np.zeros((len(current), MAX_BITS + 1))
        for i, outline in enumerate(layer_outlines(model)):
            widths = rule.widths(outline)
            values = {
                b: self._quantized(latent[i], scales[i], b) for b in widths
            }
            moved = {b: _squared(values[b] - current[i]) for b in widths}
            if damage is None:
                curvature = max(float(trace[i]), 0.0) / model.sizes[i]
                for width in widths:
                    costs[i, width] = 0.5 * curvature * moved[width]
                continue
            probed = [b for b in widths if b in _PROBED] or widths[-1:]
            for width in probed:
                changed = [*current[:i], values[width], *current[i + 1 :]]
                costs[i, width] = damage(changed)
            for width in widths:
                nearest = min(probed, key=lambda b: abs(b - width))
                if width not in probed and moved[nearest] > 0.0:
                    ratio = moved[width] / moved[nearest]
                    costs[i, width] = max(costs[i, nearest], 0.0) * ratio
        return costs

    def _gains(self, rule: Rule) -> np.ndarray:
        """Decrease of the held-out loss by each weight's next wider width."""
        model = self.model
        gains = np.zeros(len(model.paths))
        if not self.held_out:
            return gains
        current = list(model.quantized_values())
        latent, scales = model.latent_weights(), model.scales()
        with model.metrics_kept():
            before = self._mean_loss(current, self.held_out)
            for i, outline in enumerate(layer_outlines(model)):
                width = rule.wider(outline)
                if width is None:
                    continue
                value = self._quantized(latent[i], scales[i], width)
                changed = [*current[:i], value, *current[i + 1 :]]
                gains[i] = before - self._mean_loss(changed, self.held_out)
        return gains

    def _quantized(self, w: tf.Tensor, scale: tf.Tensor, bits: int) -> Any:
        quantizer = self.model.quantizer
        return round_clamp.quantize(w, scale, bits, 0, quantizer).value

    def _share(
        self, w: tf.Tensor, scale: tf.Tensor, bits: int, k: int
    ) -> float:
        lsb = round_clamp.quantize(w, scale, bits, k, self.model.quantizer).lsb
        return float(tf.math.count_nonzero(lsb)) / float(tf.size(lsb))

    def _damage(
        self, current: list[tf.Tensor]
    ) -> Callable[[list[tf.Tensor]], float] | None:
        """What changed values do to the model; `None` for the Hessian's."""
        batches = self.batches
        divergence = self._divergence
        if self.ranking == DIVERGENCE and divergence is not None:
            before = [self._outputs(current, x) for x, _, _ in batches]

            def diverged(values: list[tf.Tensor]) -> float:
                return float(
                    np.mean(
                        [
                            divergence(old, self._outputs(values, x)).numpy()
                            for old, (x, _, _) in zip(
                                before, batches, strict=True
                            )
                        ]
                    )
                )

            return diverged
        if self.ranking == HESSIAN:
            return None
        with self.model.metrics_kept():
            loss = self._mean_loss(current, batches)

        def increased(values: list[tf.Tensor]) -> float:
            with self.model.metrics_kept():
                return self._mean_loss(values, batches) - loss

        return increased

    def _mean_loss(
        self, values: list[tf.Tensor], batches: Sequence[Batch]
    ) -> float:
        losses = [self._loss(values, batch) for batch in batches]
        return float(np.mean([loss.numpy() for loss in losses]))


def _squared(x: tf.Tensor) -> float:
    return float(tf.reduce_sum(x**2))

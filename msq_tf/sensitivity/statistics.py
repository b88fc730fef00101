"""Gathers the statistics of a rule from a model and a few batches."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from msq_tf import distribute
from msq_tf.bit_widths import MAX_BITS
from msq_tf.bit_widths import MIN_BITS
from msq_tf.core.batches import Batch
from msq_tf.core.quantized_network import QuantizedNetwork
from msq_tf.quantizers import uniform
from msq_tf.rules.records import LayerStats
from msq_tf.rules.rule import Rule
from msq_tf.sensitivity.divergence import output_divergence
from msq_tf.sensitivity.hessian import BlockHessian
from msq_tf.sensitivity.hessian import TraceEstimate
from msq_tf.sensitivity.hessian import groups

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
    """Statistics of the quantized weights, as far as they need no data."""
    bits = model.bits
    grown = model.search.grown.numpy()
    containers = model.search.file_facts.containers or ((),) * len(grown)
    return tuple(
        LayerStats(
            path=weight.path,
            size=weight.size,
            bits=bits[weight.path],
            min_bits=weight.plan.min_bits,
            kind=weight.kind,
            channels=weight.channels,
            inputs=weight.size // weight.channels,
            one_scale=weight.scale_axes is None,
            start_bits=weight.plan.start_bits,
            grown=int(count),
            containers=stored,
        )
        for weight, count, stored in zip(
            model.planned_weights, grown, containers, strict=True
        )
    )


# Of an operation without a gradient; the other is told while a graph with a
# loop runs.
_NO_GRADIENT = (LookupError, tf.errors.NotFoundError)


class NoSecondDerivativeError(ValueError):
    """TensorFlow has no second derivative of an operation in the loss."""


class StatisticsGatherer:
    """Sensitivities, LSB shares and costs of the layers of one model.

    Everything is taken at the quantized weights, on fixed batches, in
    inference mode (batch norm by its moving statistics, no dropout), with
    the loss the model was compiled with. Compiled functions are kept, so
    that later calls trace nothing. One batch and one candidate's value are
    at hand at a time.

    Under a `tf.distribute` strategy the traces are spread over its replicas,
    so all workers take them together; the rest is taken once, on the first
    replica of the worker that asks.

    Args:
        model: A compiled model.
        batches: `(x, y, sample_weight)` tuples of tensors, of one size, to
            use where a call is given none.
        ranking: How the cost of a width is predicted. `"divergence"` takes
            how far the outputs move with that one weight changed, see
            `divergence`; `"measured"` takes the increase of the loss, both
            a forward pass each; `"hessian"` takes the second-order estimate
            `Tr(H) / (2 N) * ||change||**2`. `"auto"` is the divergence, or
            the measured loss where the loss is the user's own function.
        held_out: Batches for the gains of wider widths, in the same way;
            none for no gains.

    Raises:
        ValueError: If `ranking` is unknown, or the compiled loss has no
            divergence.
    """

    def __init__(
        self,
        model: QuantizedNetwork,
        batches: Sequence[Batch] = (),
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

    @property
    def products(self) -> int:
        """Products with the Hessian that a probe takes."""
        return len(groups(self.model.sizes))

    def traces(
        self, batches: Sequence[Batch] | None = None, **options: Any
    ) -> TraceEstimate:
        """Hessian traces at the current quantized weights.

        Args:
            batches: Where to take them, if not on those of the gatherer.
            **options: As `BlockHessian.traces` takes them.

        Raises:
            NoSecondDerivativeError: If an operation has none.
        """
        distribute.align(
            self.model.distribute_strategy, self.model.state_variables
        )
        values = self.model.quantized_values()
        with self.model.metrics_kept():
            try:
                return self._hessian.traces(
                    values, self._or_own(batches), **options
                )
            except _NO_GRADIENT as error:
                raise NoSecondDerivativeError(
                    "The loss has no second derivative in TensorFlow. Expected "
                    "a model and loss that are twice differentiable, or "
                    f"`MSQCallback(hessian=False)`. Received: {error}"
                ) from error

    def _or_own(self, batches: Sequence[Batch] | None) -> Sequence[Batch]:
        return self.batches if batches is None else batches

    def loss(self, batches: Sequence[Batch] | None = None) -> float:
        """Mean loss at the current quantized weights."""
        with self.model.metrics_kept():
            return self._mean_loss(
                self.model.quantized_values(), self._or_own(batches)
            )

    def seconds(self, batch: Batch) -> float:
        """Time of one forward pass of a batch, traced before."""
        with self.model.metrics_kept():
            values = self.model.quantized_values()
            self._mean_loss(values, [batch])
            begun = time.perf_counter()
            self._mean_loss(values, [batch])
            return time.perf_counter() - begun

    def layers(
        self,
        rule: Rule,
        trace: np.ndarray,
        trace_error: np.ndarray,
        costs: np.ndarray,
        held_out: Sequence[Batch] | None = None,
    ) -> tuple[LayerStats, ...]:
        """Statistics of every quantized weight, in the model's order.

        Args:
            rule: Says which widths are candidates.
            trace: Of each weight, from `traces`. Negative entries, noise or a
                saddle, count as zero.
            trace_error: Its standard error.
            costs: Of shape (weights, MAX_BITS + 1), from `costs` or zeros.
            held_out: Batches for gains, if not those of the gatherer.
        """
        model = self.model
        latent, scale = model.latent_weights(), model.scales_at_widths()
        gains = self._gains(
            rule, self.held_out if held_out is None else held_out
        )
        layers = []
        for i, outline in enumerate(layer_outlines(model)):
            w = latent[i]
            bits = outline.bits
            # A layer that cannot go lower is described one bit down.
            lower = max(bits - 1, MIN_BITS)
            nearest = self._quantized(w, scale(i, lower), lower)
            distance = _squared(nearest - w)
            curvature = max(float(trace[i]), 0.0) / outline.size
            widest = outline.start_bits if rule.costs_once else bits
            layers.append(
                dataclasses.replace(
                    outline,
                    sensitivity=curvature * distance,
                    # One probe has an infinite error, also where nothing moves.
                    sensitivity_error=distance
                    and float(trace_error[i]) / outline.size * distance,
                    lsb_nonzero={
                        bits - width: self._share(
                            w, scale(i, bits), bits, bits - width
                        )
                        for width in rule.widths(outline)[:2]
                    },
                    cost={
                        width: float(costs[i, width])
                        for width in range(MIN_BITS, widest + 1)
                    },
                    gain=float(gains[i]),
                )
            )
        return tuple(layers)

    def candidates(self, rule: Rule) -> list[tuple[int, int]]:
        """The pairs of a weight's index and a width that are measured."""
        return [
            (i, width)
            for i, outline in enumerate(layer_outlines(self.model))
            for width in _probed(rule.widths(outline))
            if self.ranking != HESSIAN
        ]

    def costs(
        self,
        rule: Rule,
        trace: np.ndarray,
        batches: Sequence[Batch] | None = None,
    ) -> np.ndarray:
        """Predicted increase of the loss at every width below a layer's own.

        Args:
            rule: Says which widths are candidates.
            trace: Of each weight, from `traces`; only `ranking="hessian"` looks
                at it.
            batches: Where to take them, if not on those of the gatherer.

        Returns:
            float64 array of shape (weights, MAX_BITS + 1): entry (i, b) is
            the cost of weight i coming to b bits alone; 0 at its own width
            and at widths that are no candidates.
        """
        model = self.model
        current = list(model.quantized_values())
        latent, scale = model.latent_weights(), model.scales_at_widths()
        costs = np.zeros((len(current), MAX_BITS + 1))
        measured = self.candidates(rule)
        batches = self._or_own(batches)
        # Batch by batch, so that one batch's outputs are kept at a time; the
        # value of a candidate is soon computed anew.
        for batch in batches if measured else ():
            damage = self._damage(current, batch)
            for i, width in measured:
                value = self._quantized(latent[i], scale(i, width), width)
                changed = [*current[:i], value, *current[i + 1 :]]
                costs[i, width] += damage(changed) / len(batches)
        for i, outline in enumerate(layer_outlines(model)):
            widths = rule.widths(outline)
            moved = {
                b: _squared(
                    self._quantized(latent[i], scale(i, b), b) - current[i]
                )
                for b in widths
            }
            if self.ranking == HESSIAN:
                curvature = max(float(trace[i]), 0.0) / outline.size
                for width in widths:
                    costs[i, width] = 0.5 * curvature * moved[width]
                continue
            probed = _probed(widths)
            for width in widths:
                nearest = min(probed, key=lambda b: abs(b - width))
                if width not in probed and moved[nearest] > 0.0:
                    ratio = moved[width] / moved[nearest]
                    costs[i, width] = max(costs[i, nearest], 0.0) * ratio
        # Of what overflows it is known that nothing is worse.
        return np.where(np.isposinf(costs), np.finfo(np.float32).max, costs)

    def damages(
        self,
        changes: Sequence[Callable[[list[tf.Tensor]], list[tf.Tensor]]],
        batches: Sequence[Batch] | None = None,
    ) -> np.ndarray:
        """Predicted increase of the loss by changes of values.

        In the unit of `costs`: the divergence of the outputs, or else the
        increase of the loss itself.

        Args:
            changes: Functions of the quantized values of all weights that
                return what to compute with instead.
            batches: Where to take it, if not on those of the gatherer.

        Returns:
            float64 array of shape (changes,).
        """
        current = list(self.model.quantized_values())
        batches = self._or_own(batches)
        found = np.zeros(len(changes))
        for batch in batches if changes else ():
            damage = self._damage(current, batch)
            for i, change in enumerate(changes):
                found[i] += damage(change(current)) / len(batches)
        return np.where(np.isposinf(found), np.finfo(np.float32).max, found)

    def _gains(self, rule: Rule, held_out: Sequence[Batch]) -> np.ndarray:
        """Decrease of the held-out loss by each weight's next wider width."""
        model = self.model
        gains = np.zeros(len(model.paths))
        if not held_out:
            return gains
        current = list(model.quantized_values())
        latent, scale = model.latent_weights(), model.scales_at_widths()
        with model.metrics_kept():
            before = self._mean_loss(current, held_out)
            for i, outline in enumerate(layer_outlines(model)):
                width = rule.wider(outline)
                if width is None:
                    continue
                value = self._quantized(latent[i], scale(i, width), width)
                changed = [*current[:i], value, *current[i + 1 :]]
                gains[i] = before - self._mean_loss(changed, held_out)
        return gains

    def _quantized(self, w: tf.Tensor, scale: tf.Tensor, bits: int) -> Any:
        quantizer = self.model.quantizer
        return uniform.quantize(w, scale, bits, 0, quantizer).value

    def _share(
        self, w: tf.Tensor, scale: tf.Tensor, bits: int, k: int
    ) -> float:
        lsb = uniform.quantize(w, scale, bits, k, self.model.quantizer).lsb
        return float(tf.math.count_nonzero(lsb)) / float(tf.size(lsb))

    def _damage(
        self, current: list[tf.Tensor], batch: Batch
    ) -> Callable[[list[tf.Tensor]], float]:
        """What changed values do to the model, on one batch."""
        divergence = self._divergence
        if self.ranking == DIVERGENCE and divergence is not None:
            before = self._outputs(current, batch[0])
            return lambda values: float(
                divergence(before, self._outputs(values, batch[0])).numpy()
            )
        with self.model.metrics_kept():
            loss = self._mean_loss(current, [batch])

        def increased(values: list[tf.Tensor]) -> float:
            with self.model.metrics_kept():
                return self._mean_loss(values, [batch]) - loss

        return increased

    def _mean_loss(
        self, values: list[tf.Tensor], batches: Sequence[Batch]
    ) -> float:
        losses = [self._loss(values, batch) for batch in batches]
        return float(np.mean([loss.numpy() for loss in losses]))


def _probed(widths: Sequence[int]) -> Sequence[int]:
    """The widths that are measured, of those that a weight may come to."""
    return [b for b in widths if b in _PROBED] or widths[-1:]


def _squared(x: tf.Tensor) -> float:
    return float(tf.reduce_sum(x**2))

"""Hessian traces of all layers from one Hessian-vector product per probe.

Hutchinson: for `v` with independent entries +1 or -1 (Rademacher),
`E[v' H v] = Tr(H)`. The block sums of one product with the whole Hessian,

    v_l . (H v)_l = v_l' H_ll v_l + sum over m != l of v_l' H_lm v_m,

are unbiased for the trace of each layer's block: the cross terms have zero
mean. So one product, about two gradients, serves every layer. Reverse over
reverse: `H v = d/dw (g . v)`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from msq_tf.distribute import ReplicaMap
from msq_tf.sensitivity.finite import ADVICE

# Elements of all blocks from which a probe goes through a part of them at a
# time, and how many parts that are. Each part is a graph of its own, which
# outweighs the vectors of fewer elements.
_GROUPED = 1 << 24
_GROUPS = 3


class TraceEstimate(NamedTuple):
    """Hutchinson's estimate of the trace of every layer.

    Attributes:
        trace: float64 array of shape (layers,): `Tr(H_l)`. It is negative where
            the loss curves downwards, away from a minimum, or by noise if it is
            small compared with `error`.
        error: float64 array of shape (layers,): standard error over probes;
            infinite after a single probe.
        probes: Number of probes spent.
        converged: Whether the tolerance was met before the probes ran out.
    """

    trace: np.ndarray
    error: np.ndarray
    probes: int
    converged: bool


class BlockHessian:
    """Estimates the Hessian traces of a loss with respect to weight blocks.

    Besides the weights, a probe holds at most three vectors of their size (the
    probe, the gradient and the product) and the activations of both passes,
    with their adjoints, for one batch. Only one number for each block remains
    after it. If there are many weights, a probe covers a third at a time, see
    `groups`; for comparison, a training step holds one such vector, its
    gradient.

    Under a strategy with several replicas, probes and batches are spread over
    them, one product on each at a time. The estimate equals that of one device,
    bit for bit, if the devices compute alike.

    Args:
        loss: Function of `(values, batch)` that returns a float32 scalar,
            where `values` is a list of tensors, one per block. It has to be
            free of randomness: inference mode.
        names: Names of the blocks, for messages. Defaults to their numbers.
        strategy: The strategy to run under; `None` for none. All of its workers
            have to take traces together.

    Examples:
        >>> a = tf.constant([1.0, 2.0, 3.0])
        >>> hessian = BlockHessian(lambda values, batch: tf.reduce_sum(
        ...     a * values[0] ** 2))
        >>> hessian.traces([tf.ones(3)], [()], max_probes=2).trace
        array([12.])
    """

    def __init__(
        self,
        loss: Callable[[Sequence[tf.Tensor], Any], tf.Tensor],
        names: Sequence[str] | None = None,
        strategy: tf.distribute.Strategy | None = None,
    ):
        self._loss = loss
        self._names = names
        self._strategy: tf.distribute.Strategy | None = None
        if strategy is not None and strategy.num_replicas_in_sync > 1:
            self._strategy = strategy
        self._products: dict[range, Callable[..., Any]] = {}

    def _block_products(
        self,
        group: range,
        values: Sequence[tf.Tensor],
        batch: Any,
        seed: tf.Tensor,
    ) -> tf.Tensor:
        """`v_l . (H v)_l` of a group's blocks, and the loss, for one batch.

        The probe, which `seed` (int32 of shape (2,)) makes, is zero in all
        other blocks.
        """
        seeds = tf.unstack(tf.random.split(seed, len(values)))
        watched = [values[i] for i in group]
        # One of each: it is its many operations that make a graph large.
        zero, two = tf.constant(0), tf.constant(2)
        ones = {v.dtype: tf.ones((), v.dtype) for v in watched}
        probes = []
        for i, value in zip(group, watched, strict=True):
            draws = tf.cast(
                tf.random.stateless_uniform(
                    value.shape, seeds[i], zero, two, dtype=tf.int32
                ),
                value.dtype,
            )
            probes.append(draws + draws - ones[value.dtype])
        with tf.GradientTape() as outer:
            outer.watch(watched)
            with tf.GradientTape() as inner:
                inner.watch(watched)
                loss = self._loss(values, batch)
            gradients = inner.gradient(
                loss,
                watched,
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )
            # Of a table that is looked up the gradient is a few rows.
            gradients = [tf.convert_to_tensor(g) for g in gradients]
        # The gradient of `sum(g . v)`. A weight whose gradient does not depend
        # on any weight has no row.
        products = outer.gradient(
            gradients,
            watched,
            output_gradients=probes,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        sums = [
            tf.reduce_sum(h * v) for h, v in zip(products, probes, strict=True)
        ]
        return tf.stack([*sums, loss])

    def traces(
        self,
        values: Sequence[tf.Tensor],
        batches: Sequence[Any],
        *,
        max_probes: int = 16,
        min_probes: int = 2,
        tolerance: float = 0.1,
        seed: int = 0,
    ) -> TraceEstimate:
        """Estimates all traces of the mean loss over `batches`.

        Every probe goes through all batches with the same vector. Probing stops
        when the standard errors, summed over blocks, are at most `tolerance` of
        the summed magnitudes of the traces, or when `max_probes` are spent. So
        all blocks count, not only the largest, and a trace near zero need not
        be known to `tolerance` of itself. Traces that are all exactly zero have
        converged.

        Args:
            values: Tensors at which to take the Hessian, one per block.
            batches: Batches of equal size; each is passed to the loss.
            max_probes: Largest number of probes.
            min_probes: Smallest number of probes, at least 2 for a standard
                error.
            tolerance: Relative standard error to stop at.
            seed: Makes the probes, and so the result, reproducible.

        Returns:
            A `TraceEstimate`.

        Raises:
            ValueError: If an argument is out of range, there is no batch, or
                the loss or its second derivative is not finite.
        """
        if not batches:
            raise ValueError(
                "Hessian traces need data. Expected at least one batch. "
                "Received: none"
            )
        if not 1 <= min_probes <= max_probes:
            raise ValueError(
                "Expected 1 <= min_probes <= max_probes. Received: "
                f"min_probes={min_probes}, max_probes={max_probes}"
            )
        if not tolerance >= 0:
            raise ValueError(
                "`tolerance` cannot be negative. Received: "
                f"tolerance={tolerance}"
            )
        samples: list[np.ndarray] = []
        error = np.full(len(values), np.inf)
        converged = False
        for sample in self._samples(list(values), batches, max_probes, seed):
            samples.append(sample)
            count = len(samples)
            if count > 1:
                error = np.std(samples, axis=0, ddof=1) / np.sqrt(count)
            size = np.abs(np.mean(samples, axis=0)).sum()
            # Sums of both: in quadrature, the noise of many blocks would
            # look small beside their magnitudes, which are noise too.
            converged = bool(error.sum() <= tolerance * size)
            if converged and count >= min_probes:
                break
        return TraceEstimate(
            np.mean(samples, axis=0), error, len(samples), converged
        )

    def _samples(
        self,
        values: list[tf.Tensor],
        batches: Sequence[Any],
        max_probes: int,
        seed: int,
    ) -> Iterator[np.ndarray]:
        """Mean products over the batches, float64 (layers,), probe by probe."""
        count = len(batches)
        parts = groups([int(tf.size(value)) for value in values])
        # What replicas have no batch for they take a later probe, needed or
        # not.
        together = 1
        if self._strategy is not None:
            together = max(1, self._strategy.num_replicas_in_sync // count)
        for first in range(0, max_probes, together):
            calls = [
                (batch, tf.constant([seed, probe], tf.int32))
                for probe in range(first, min(first + together, max_probes))
                for batch in batches
            ]
            found = [self._run(group, values, calls) for group in parts]
            rows = np.concatenate([rows[:, :-1] for rows in found], axis=1)
            losses = found[0][:, -1]
            for start in range(0, len(calls), count):
                total = np.zeros(rows.shape[1])
                for i in range(start, start + count):
                    self._check(rows[i], float(losses[i]))
                    total += rows[i]
                yield total / count

    def _run(
        self, group: range, values: list[tf.Tensor], calls: Sequence[Any]
    ) -> np.ndarray:
        """Products of one group, a row for each call."""
        if group not in self._products:
            function = functools.partial(self._block_products, group)
            self._products[group] = (
                tf.function(function, autograph=False)
                if self._strategy is None
                else ReplicaMap(function, self._strategy)
            )
        product = self._products[group]
        if self._strategy is not None:
            return product(values, calls)
        return np.stack([product(values, *call).numpy() for call in calls])

    def _check(self, sums: np.ndarray, loss: float) -> None:
        """Raises a ValueError unless a product and its loss are finite."""
        if not np.isfinite(loss):
            raise ValueError(
                "The loss is not finite on the data that Hessian traces are "
                f"taken on. {ADVICE} Received: loss={loss}"
            )
        wrong = np.flatnonzero(~np.isfinite(sums)).tolist()
        if wrong:
            names = self._names or [str(i) for i in range(len(sums))]
            raise ValueError(
                "The loss is finite, but its second derivative is not. "
                f"{ADVICE} Some losses have none at some points, such as a "
                "root at zero: use `MSQCallback(hessian=False)` with them. "
                "Received: "
                + ", ".join(f"{names[i]}: {sums[i]}" for i in wrong)
            )


def groups(sizes: Sequence[int]) -> list[range]:
    """The blocks of these sizes that a probe goes through at a time.

    All of them where there are few weights; else parts in their order, of a
    third of the weights or a single block.
    """
    total = sum(sizes)
    most = total if total < _GROUPED else total / _GROUPS
    starts, taken = [0], 0
    for i, size in enumerate(sizes):
        if taken and taken + size > most:
            starts.append(i)
            taken = 0
        taken += size
    ends = [*starts[1:], len(sizes)]
    return [range(*pair) for pair in zip(starts, ends, strict=True)]

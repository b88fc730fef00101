"""The samples that the statistics of a search are taken on."""

from __future__ import annotations

from typing import Any

from msq_tf.core.batches import BATCH_SIZE
from msq_tf.core.batches import Samples
from msq_tf.core.batches import take_samples
from msq_tf.core.quantized_network import QuantizedNetwork
from msq_tf.rules.rule import Rule
from msq_tf.sensitivity.effort import Effort
from msq_tf.sensitivity.effort import Run
from msq_tf.sensitivity.finite import warn_of_data
from msq_tf.sensitivity.fit_inputs import FitInputs
from msq_tf.sensitivity.fit_inputs import weigh_classes
from msq_tf.sensitivity.portions import Portions
from msq_tf.sensitivity.portions import Sizes
from msq_tf.sensitivity.statistics import MEASURED


class TakesSamples:
    """The part of a callback that knows its data. A mixin for it."""

    # Of the callback.
    batch_size: int | None
    data: Any
    held_out: Any
    ranking: str
    rule: Rule
    samples: int
    _held_out: Samples | None = None
    _qmodel: QuantizedNetwork
    _samples: Samples
    _sizes: Sizes

    def fit_inputs(self) -> FitInputs:
        """The data of `fit`, where it is known."""
        return FitInputs()

    def portions(self, steps: int, decisions: int) -> Portions:
        """Samples for the statistics of a run of so many decisions."""
        run = Run(steps, self._sizes.training, decisions)
        return Portions(
            Effort(run, self.rule.uses_growth),
            self._sizes,
            self._samples,
            self._held_out,
        )

    def _check_loss(self) -> None:
        """Raises a ValueError for statistics of a loss that is not known."""
        needed = {
            "`ranking='measured'`": self.ranking == MEASURED,
            "a rule with `growth`": self.rule.uses_growth,
        }
        asked = [what for what, is_asked in needed.items() if is_asked]
        if asked and not self._qmodel.has_loss:
            raise ValueError(
                "The loss is known to the model's own `train_step` alone. "
                "Expected `ranking='auto'` and a rule without `growth`, or a "
                "model with `compute_loss`, or `compile(loss=...)`. Received: "
                f"{' and '.join(asked)}"
            )

    def _take_samples(self) -> None:
        """Takes the samples, in batches of the size of those of training."""
        inputs = self.fit_inputs()
        data = inputs.data
        if self.data is not None:
            data = self._qmodel.prepared_data(self.data)
        fixed = self._qmodel.fixed_batch_size
        known = fixed or inputs.trained_batch_size
        least = fixed or self.batch_size or known or 1
        weights = inputs.class_weight if self.data is None else None
        samples = self._samples_of(data, least, fixed, weights)
        warn_of_data(self.data, samples)
        trained = known or samples.batch_size or self.batch_size or BATCH_SIZE
        size = fixed or self.batch_size or trained
        mixed = self._qmodel.mixes_samples(samples.parts[0])
        self._sizes = Sizes(trained, size, mixed or fixed is not None)
        self._samples = samples
        self._qmodel.look_at_columns(samples.parts[0])
        grows = self.rule.uses_growth
        self._held_out = self._held_out_samples() if grows else None

    def _samples_of(
        self,
        data: Any,
        least: int,
        fixed: int | None,
        class_weight: Any = None,
    ) -> Samples:
        taken = take_samples(data, max(self.samples, fixed or 1), least)
        if fixed and len(taken) < fixed:
            raise ValueError(
                f"The model takes batches of {fixed} samples only. Expected "
                "at least as many for statistics, from `fit` or "
                f"`MSQCallback(data=...)`. Received: {len(taken)}"
            )
        if taken.parts[1] is None and self._qmodel.needs_targets:
            raise ValueError(
                "Statistics need what the compiled loss compares with. "
                "Expected `MSQCallback(data=(x, y))` or batches of `(x, y)`, "
                "or a teacher from `msq_tf.distill`. Received: inputs alone"
            )
        return taken.prepared(
            lambda batch: self._qmodel.statistics_batch(
                weigh_classes([batch], class_weight)[0]
            )
        )

    def _held_out_samples(self) -> Samples:
        data = self.fit_inputs().validation_data
        if self.held_out is not None:
            data = self._qmodel.prepared_data(self.held_out)
        if data is None:
            raise ValueError(
                "A rule with `growth` measures on held-out data. Expected "
                "`fit(validation_data=...)` or `MSQCallback(held_out=...)`. "
                "Received: neither"
            )
        sizes = self._sizes
        size = sizes.statistics
        return self._samples_of(data, size, size if sizes.fixed else None)

"""The precision search as a callback, for either Keras."""

from __future__ import annotations

import warnings
from typing import Any

from msq_tf import distribute
from msq_tf.arguments import check_flag
from msq_tf.arguments import check_integer
from msq_tf.arguments import check_number
from msq_tf.arguments import check_path
from msq_tf.core.batches import BATCH_SIZE
from msq_tf.core.batches import Samples
from msq_tf.core.batches import take_samples
from msq_tf.core.bit_history import BitChange
from msq_tf.core.config import check_choice
from msq_tf.core.quantized_network import QuantizedNetwork
from msq_tf.reports import bit_changes
from msq_tf.reports.progress import ProgressPrinter
from msq_tf.reports.progress import SummaryWriter
from msq_tf.rules.rule import Rule
from msq_tf.search import one_search
from msq_tf.search.controller import Decider
from msq_tf.search.controller import Probing
from msq_tf.search.controller import search_stats
from msq_tf.sensitivity.effort import Effort
from msq_tf.sensitivity.effort import Run
from msq_tf.sensitivity.finite import warn_of_data
from msq_tf.sensitivity.fit_inputs import FitInputs
from msq_tf.sensitivity.fit_inputs import weigh_classes
from msq_tf.sensitivity.portions import Portions
from msq_tf.sensitivity.portions import Sizes
from msq_tf.sensitivity.statistics import AUTO
from msq_tf.sensitivity.statistics import MEASURED
from msq_tf.sensitivity.statistics import RANKINGS
from msq_tf.sensitivity.statistics import StatisticsGatherer

# Decisions in the search phase when no interval is given.
_DECISIONS = 10
_UNBEGUN = (
    "MSQCallback was not told that training began. Expected `on_train_begin` "
    "and `on_epoch_begin`, as `fit` calls them. Received: what comes after them"
)


class SearchCallback:
    """Finds a bit width for every layer while the model trains.

    At every interval of the rule's phase, the callback gathers statistics on a
    few fixed batches, asks the rule, and applies the decision to the model's
    variables; nothing is recompiled. Between decisions, an LSB penalty may
    move the low bits that go next to zero. Once the target is reached, training
    continues as plain fine-tuning at the frozen bits.

    All decisions come at ends of training batches, and all state is in the
    model. So `keras.callbacks.BackupAndRestore` may stand anywhere in the list,
    and a resumed search decides as the uninterrupted one would. Put this
    callback first, so that later callbacks see its logs: `msq_bits` (average
    stored bits), `msq_compression`, `msq_lsb_nonzero` and `msq_penalty` (the
    mean of the LSB penalty over the epoch, which is not part of `loss`).

    Under a `tf.distribute` strategy of several workers, give every worker this
    callback, with the same arguments and `data`. The chief decides, prints and
    writes; the others follow.

    Args:
        rule: A `BudgetRule`, a `ThresholdRule` or a `rules.Rule` of your own.
        data: Data for statistics: `(x, y)` or `(x, y, sample_weight)` of
            arrays, or a `tf.data.Dataset` or `keras.utils.PyDataset` of
            batches. Arrays give evenly spaced samples, data sets their first
            ones. Defaults to the data of `fit`. It is needed if that is a
            generator, and with tf_keras. Give it also if a data set is shuffled
            anew and a resumed run has to repeat an interrupted one exactly.
        samples: Largest number of samples of `data` to use. A short run uses
            fewer, so that statistics take at most a tenth of its work.
        batch_size: Largest number of samples per batch of statistics. Defaults
            to the batch size of `fit` or of the data set, else to 32. In a loop
            of your own, and with tf_keras, give that of the training. A model
            with a fixed size, as with `Input(batch_size=16)`, keeps it.
        interval: Training steps between decisions. Defaults to a tenth of
            the rule's phase.
        lsb_strength: Lambda of the LSB penalty, see `LSBRegularizer`. Defaults
            to the rule's: 0 with `BudgetRule`, which gains nothing, else 0.05.
        ranking: The prediction of a candidate's cost. `"divergence"`: how far
            the outputs move if this one weight changes. `"measured"`: the
            increase of the loss. `"hessian"`: the trace times the squared
            change. `"auto"`: the divergence, or `"measured"` for a loss of your
            own.
        hessian: Whether to take Hessian traces. Without them, and with a
            warning if TensorFlow has no second derivative of the loss, all
            layers count as equally sensitive.
        hessian_every: Decisions between two estimates of the traces.
        held_out: Data, as for `data`, on which a rule with `growth` measures
            what bits were worth. Defaults to the `validation_data` of `fit`, or
            the share of `validation_split`.
        max_probes: Largest number of Hutchinson probes per estimate.
        tolerance: Relative standard error at which probing stops.
        seed: Seed of the probes.
        log_dir: Folder for TensorBoard summaries per layer, if any.
        verbose: 0 for silence, 1 for a line per epoch with decisions, `"auto"`
            to follow `fit`.

    Raises:
        ValueError: If an argument is out of its range; in `fit`, before the
            first step, if the model is no `MSQModel`, is not compiled, has
            another search, or cannot reach the target; at a decision, if a
            weight, the loss or a statistic is not finite.

    Example:
    ```python
    qmodel.fit(
        train,
        epochs=10,
        callbacks=[
            msq_tf.MSQCallback(msq_tf.BudgetRule(target_compression=8.0))
        ],
    )
    ```
    """

    # Set by Keras.
    params: Any
    model: Any

    def __init__(
        self,
        rule: Rule,
        data: Any = None,
        *,
        samples: int = 256,
        batch_size: int | None = None,
        interval: int | None = None,
        lsb_strength: float | None = None,
        ranking: str = AUTO,
        hessian: bool = True,
        hessian_every: int = 4,
        held_out: Any = None,
        max_probes: int = 4,
        tolerance: float = 0.1,
        seed: int = 0,
        log_dir: str | None = None,
        verbose: int | str = "auto",
    ):
        super().__init__()
        if not isinstance(rule, Rule):
            raise ValueError(
                "`rule` must be a Rule, such as "
                "`msq_tf.BudgetRule(target_compression=8)`. Received: "
                f"rule={rule!r}"
            )
        check_integer("samples", samples, 1)
        check_integer("batch_size", batch_size, 1, optional=True)
        check_integer("interval", interval, 1, optional=True)
        check_number("lsb_strength", lsb_strength, 0, optional=True)
        check_choice("ranking", ranking, RANKINGS)
        check_flag("hessian", hessian)
        check_integer("hessian_every", hessian_every, 1)
        check_integer("max_probes", max_probes, 1)
        check_number("tolerance", tolerance, 0)
        check_integer("seed", seed)
        check_path("log_dir", log_dir, optional=True)
        check_choice("verbose", verbose, ("auto", 0, 1, 2))
        self.rule = rule
        self.data = data
        self.samples = samples
        self.batch_size = batch_size
        self.interval = interval
        own = rule.lsb_strength
        self.lsb_strength = float(own if lsb_strength is None else lsb_strength)
        self.ranking = ranking
        self.hessian = hessian
        self.hessian_every = hessian_every
        self.held_out = held_out
        self.max_probes = max_probes
        self.tolerance = tolerance
        self.seed = seed
        self.log_dir = log_dir
        self.verbose = verbose
        self._decider: Decider | None = None
        self._sizes: Sizes
        self._samples: Samples
        self._held_out: Samples | None = None
        self._qmodel: Any = None
        self._epoch = 0
        self._steps = 0
        self._seen = 0
        self._printer = ProgressPrinter(enabled=False)
        self._writer: SummaryWriter | None = None

    def network(self) -> QuantizedNetwork:
        """The model that is trained, checked."""
        raise NotImplementedError

    def fit_inputs(self) -> FitInputs:
        """The data of `fit`, where it is known."""
        return FitInputs()

    def on_train_begin(self, logs: Any = None) -> None:
        self._qmodel = self.network()
        if not self._qmodel.compiled or "epochs" not in (self.params or {}):
            raise ValueError(
                "MSQCallback needs a compiled model, whose loss its statistics "
                "take, and the number of epochs. Expected `fit`, or in a loop "
                "of your own `keras.callbacks.CallbackList(callbacks, "
                "model=qmodel, epochs=..., steps=...)`. Received: "
                f"compiled={self._qmodel.compiled}, params={self.params}"
            )
        self._check_loss()
        self._take_samples()
        one_search.begin(self.model, self)
        self._decider = Decider(
            StatisticsGatherer(self._qmodel, ranking=self.ranking),
            self.rule,
            Probing(
                self.hessian,
                self.hessian_every,
                self.max_probes,
                self.tolerance,
                self.seed,
            ),
            self.lsb_strength,
            lambda line: self._printer.say(line),
        )
        self._steps = int(self.params.get("steps") or 0)
        verbose = self.verbose
        if verbose == "auto":
            verbose = self.params.get("verbose", 1)
        chief = distribute.is_chief(self._qmodel.distribute_strategy)
        self._printer = ProgressPrinter(enabled=bool(verbose) and chief)
        if self.log_dir is not None and chief:
            self._writer = SummaryWriter(self.log_dir)

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

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self._decider is None:
            raise ValueError(_UNBEGUN)
        one_search.check(self.model, self)
        self._epoch = epoch
        self._qmodel.penalty.reset()
        self._printer.flush()
        # BackupAndRestore may load its state after on_train_begin.
        self._qmodel.hold_scales()
        search = self._qmodel.search
        state = search.rule_state
        fresh = self.rule.start(search_stats(self._qmodel))
        if not state.started or not state.same_target(fresh):
            search.rule_state = fresh
        if epoch and not self._steps:
            # Resumed: how long an epoch is was known when it was backed up,
            # and the decision at its end may have come after that.
            self._steps = int(search.steps.numpy())
            if self._steps:
                self._search(epoch * self._steps, float(epoch))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._seen = batch + 1
        if self._steps:
            step = self._epoch * self._steps + self._seen
            self._search(step, self._epoch + self._seen / self._steps)
        else:
            # Already here, for a backup that comes first at the epoch's end.
            self._qmodel.search.steps.assign(self._seen)
        self._add_logs(logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if not self._steps:
            # The length of an epoch was unknown; from here on it is not.
            self._steps = self._seen
            self._search((epoch + 1) * self._steps, epoch + 1.0)
        self._qmodel.search.epoch.assign(float(epoch + 1))
        self._add_logs(logs)
        self._printer.note(self._qmodel, epoch)
        if self._writer is not None:
            self._writer.write(self._qmodel, epoch, logs)

    def on_train_end(self, logs: Any = None) -> None:
        self._printer.flush()
        state = self._qmodel.search.rule_state
        if state.started and not state.done:
            warnings.warn(
                f"The search ended at {self._qmodel.average_bits:.3f} average "
                f"bits, above its target of {state.target_bits:.3f}.",
                stacklevel=2,
            )
        if self._writer is not None:
            self._writer.close()
        self._decider = None

    def _search(self, step: int, epoch: float) -> None:
        """Takes the decisions that are due after a training step."""
        search = self._qmodel.search
        if search.rule_state.done:
            return
        if self._decider is None or not search.rule_state.started:
            raise ValueError(_UNBEGUN)
        rule = self.rule
        epochs = self.params.get("epochs") or 1
        progress = min(epoch / epochs, 1.0)
        phase = (rule.end - rule.begin) * epochs * self._steps
        interval = self.interval or max(1, int(phase / _DECISIONS))
        over = progress >= rule.end
        state = search.rule_state
        if state.decisions and step < state.last_step + interval and not over:
            return
        sizes = self._sizes
        run = Run(
            epochs * self._steps, sizes.training, 1 + int(phase / interval)
        )
        portions = Portions(
            Effort(run, rule.uses_growth), sizes, self._samples, self._held_out
        )
        while rule.due(progress, self._decider.average(), search.rule_state):
            with self._qmodel.state_kept():
                changes = self._decider.decide(progress, step, epoch, portions)
            self._tell(changes)
            # At the phase's end the rest of the way is gone at once.
            if not (over and changes):
                break

    def _tell(self, changes: list[BitChange]) -> None:
        if not distribute.is_chief(self._qmodel.distribute_strategy):
            return
        bit_changes.log(changes)
        self._printer.add(changes)
        if self._writer is not None:
            self._writer.add(changes)

    def _add_logs(self, logs: Any) -> None:
        if logs is not None:
            logs.update(self._qmodel.search_logs())

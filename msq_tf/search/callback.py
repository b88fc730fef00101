"""The precision search as a callback, for either Keras."""

from __future__ import annotations

import warnings
from typing import Any

from msq_tf import distribute
from msq_tf.arguments import check_flag
from msq_tf.arguments import check_integer
from msq_tf.arguments import check_number
from msq_tf.arguments import check_path
from msq_tf.core.bit_history import BitChange
from msq_tf.core.config import check_choice
from msq_tf.core.quantized_network import QuantizedNetwork
from msq_tf.reports import bit_changes
from msq_tf.reports.progress import ProgressPrinter
from msq_tf.reports.progress import SummaryWriter
from msq_tf.rules.rule import Rule
from msq_tf.rules.tolerance import ToleranceRule
from msq_tf.search import device_costs
from msq_tf.search import one_search
from msq_tf.search.controller import Choose
from msq_tf.search.controller import Decider
from msq_tf.search.controller import Probing
from msq_tf.search.controller import TrainedAt
from msq_tf.search.controller import begin
from msq_tf.search.controller import search_stats
from msq_tf.search.fit_samples import TakesSamples
from msq_tf.search.held_out import HeldOutMetric
from msq_tf.search.kept_states import KeptStates
from msq_tf.search.tolerance_outcome import ToleranceOutcome
from msq_tf.search.tolerance_search import ToleranceSearch
from msq_tf.sensitivity.portions import Portions
from msq_tf.sensitivity.statistics import AUTO
from msq_tf.sensitivity.statistics import RANKINGS
from msq_tf.sensitivity.statistics import StatisticsGatherer

# Decisions in the search phase when no interval is given.
_DECISIONS = 10
# Those of a search for a tolerance: three for each size that it tries.
_TOLERANCE_DECISIONS = 24
# Steps of an epoch for statistics that are taken before its length is known.
_STEPS = 100
_UNBEGUN = (
    "MSQCallback was not told that training began. Expected `on_train_begin` "
    "and `on_epoch_begin`, as `fit` calls them. Received: what comes after them"
)


class SearchCallback(TakesSamples):
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
        rule: A `BudgetRule`, a `ToleranceRule`, a `ThresholdRule` or a
            `rules.Rule` of your own.
        data: Data for statistics: `(x, y)` or `(x, y, sample_weight)` of
            arrays, an array of inputs alone where a teacher or the model
            itself gives the loss, or a `tf.data.Dataset` or
            `keras.utils.PyDataset` of batches. Arrays give evenly spaced
            samples, data sets their first ones. Defaults to the data of
            `fit`. It is needed if that is a generator, with tf_keras, and if a
            data set is shuffled anew and a resumed run has to repeat an
            interrupted one exactly.
        samples: Largest number of samples of `data` to use. A short run uses
            fewer, so that statistics take at most a tenth of its work.
        batch_size: Largest number of samples per batch of statistics. Defaults
            to the batch size of `fit` or of the data set, else to 32. In a loop
            of your own, and with tf_keras, give that of the training. A model
            with a fixed size, as with `Input(batch_size=16)`, keeps it.
        interval: Steps between decisions; by default a tenth of the phase.
        lsb_strength: Lambda of the LSB penalty, see `LSBRegularizer`. Defaults
            to the rule's: 0 with `BudgetRule`, which gains nothing, else 0.05.
        ranking: What predicts a candidate's cost. `"divergence"`: how far the
            outputs move if this one weight changes. `"measured"`: the increase
            of the loss. `"hessian"`: the trace times the squared change.
            `"auto"`: the divergence, or `"measured"` for a loss of your own.
        hessian: Whether to take Hessian traces. Without them, and with a
            warning if TensorFlow has no second derivative of the loss, all
            layers count as equally sensitive.
        hessian_every: Decisions between two estimates of the traces.
        held_out: Data, as for `data`, on which a rule with `growth` measures
            what bits were worth, and a `ToleranceRule` its metric. Defaults to
            the `validation_data` of `fit`, or the share of `validation_split`.
        directory: Folder where a `ToleranceRule` keeps what it measured and
            weights to go back to; else they are in memory, and the search
            cannot be resumed. Give each run its own.
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
        directory: str | None = None,
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
        check_path("directory", directory, optional=True)
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
        self.directory = directory
        self.verbose = verbose
        self._decider: Decider | None = None
        self._tolerance: ToleranceSearch | None = None
        self._qmodel: Any = None
        self._epoch = 0
        self._steps = 0
        self._seen = 0
        self._printer = ProgressPrinter(enabled=False)
        self._writer: SummaryWriter | None = None

    def network(self) -> QuantizedNetwork:
        """The model that is trained, checked."""
        raise NotImplementedError

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
        self._seen = 0
        verbose = self.verbose
        if verbose == "auto":
            verbose = self.params.get("verbose", 1)
        chief = distribute.is_chief(self._qmodel.distribute_strategy)
        self._printer = ProgressPrinter(enabled=bool(verbose) and chief)
        if self.log_dir is not None and chief:
            self._writer = SummaryWriter(self.log_dir)
        if isinstance(self.rule, ToleranceRule):
            self._tolerance = ToleranceSearch(
                self.rule,
                self._qmodel,
                HeldOutMetric(
                    self.rule,
                    self.model,
                    self._qmodel,
                    self.fit_inputs(),
                    self.held_out,
                ),
                KeptStates(self.directory, chief),
                int(self.params.get("epochs") or 0),
                self._decide_after,
                self._say,
            )

    @property
    def outcome(self) -> ToleranceOutcome | None:
        """How the search of a `ToleranceRule` ended; `None` before its end."""
        return None if self._tolerance is None else self._tolerance.outcome

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self._decider is None:
            raise ValueError(_UNBEGUN)
        one_search.check(self.model, self)
        self._epoch = epoch
        self._qmodel.penalty.reset()
        self._printer.flush()
        self._take_up()
        search = self._qmodel.search
        if self._tolerance is not None:
            self._steps = self._steps or int(search.steps.numpy())
            self._tolerance.begin_epoch(epoch)
            return
        if said := begin(self._qmodel, self.rule, resumes=epoch > 0):
            self._say(f"MSQ: {said}")
        self._search_late(epoch)

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
        if self._tolerance is not None:
            self._tolerance.end_epoch(epoch + 1, logs or {})
        self._qmodel.search.epoch.assign(float(epoch + 1))
        self._add_logs(logs)
        words = self.rule.words(search_stats(self._qmodel))
        self._printer.note(self._qmodel, epoch, words)
        if self._writer is not None:
            self._writer.write(self._qmodel, epoch, logs)

    def on_train_end(self, logs: Any = None) -> None:
        self._printer.flush()
        search = self._qmodel.search
        if search.rule_state.started and not self._seen:
            # A run that was killed behind its last epoch begins none again.
            epochs = int(self.params.get("epochs") or 0)
            self._take_up()
            self._search_late(epochs)
            search.epoch.assign(float(epochs))
        if self._tolerance is not None:
            self._tolerance.end()
        state = search.rule_state
        if state.started and not state.done:
            missed = self.rule.missed(search_stats(self._qmodel), state)
            warnings.warn(f"The search ended at {missed}.", stacklevel=2)
        if self._writer is not None:
            self._writer.close()
        self._decider = None

    def _take_up(self) -> None:
        """Completes a state, which a backup may bring after on_train_begin."""
        self._qmodel.hold_scales()
        inputs, _, _ = self._samples.parts
        device_costs.find(self.rule, self._qmodel, inputs)

    def _search_late(self, epochs: int) -> None:
        """Takes the decision after an epoch's end, if a backup came before."""
        if epochs and not self._steps:
            self._steps = int(self._qmodel.search.steps.numpy())
            if self._steps:
                self._search(epochs * self._steps, float(epochs))

    def _search(self, step: int, epoch: float) -> None:
        """Takes the decisions that are due after a training step."""
        search = self._qmodel.search
        if self._tolerance is not None:
            self._tolerance.within_epoch(epoch, step, self._steps)
            return
        if search.rule_state.done:
            return
        if self._decider is None or not search.rule_state.started:
            raise ValueError(_UNBEGUN)
        epochs = self.params.get("epochs") or 1
        progress = min(epoch / epochs, 1.0)
        share, end = self.rule.span()
        phase = share * epochs * self._steps
        interval = self.interval or max(1, int(phase / _DECISIONS))
        over = progress >= end
        state = search.rule_state
        if state.decisions and step < state.last_step + interval and not over:
            return
        portions = self._portions(1 + int(phase / interval))
        while self._decider.due(progress, step):
            with self._qmodel.state_kept():
                changes = self._decider.decide(progress, step, epoch, portions)
            self._tell(changes)
            # At the phase's end the rest of the way is gone at once.
            if not (over and changes):
                break

    def _portions(self, decisions: int) -> Portions:
        steps = (self.params.get("epochs") or 1) * (self._steps or _STEPS)
        return self.portions(steps, decisions)

    def _decide_after(
        self, epoch: float, choose: Choose, trained_at: TrainedAt
    ) -> list[BitChange]:
        """Takes a decision of another's choice after so many epochs."""
        if self._decider is None:
            raise ValueError(_UNBEGUN)
        with self._qmodel.state_kept():
            changes = self._decider.decide(
                min(epoch / (self.params.get("epochs") or 1), 1.0),
                round(epoch * self._steps),
                float(epoch),
                self._portions(_TOLERANCE_DECISIONS),
                choose,
                trained_at,
            )
        self._tell(changes)
        return changes

    def _say(self, lines: str) -> None:
        """Shows lines to the user, and writes them to the log."""
        if distribute.is_chief(self._qmodel.distribute_strategy):
            bit_changes.log_text(lines)
            self._printer.say(lines)

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

"""One decision of a search: statistics, the rule's answer, and what follows.

Under `MultiWorkerMirroredStrategy` every worker has a `Decider` and calls it at
the same step. All take part in the Hessian traces; the chief alone asks the
rule. Then all get the chief's search state, bit for bit, and check that they
have it. Costs are single forward passes. Their last bits may differ on unlike
machines, and so could decisions that each worker takes by itself.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from collections.abc import Sequence

import numpy as np

from msq_tf import distribute
from msq_tf.core import bit_history
from msq_tf.core.batches import samples_in
from msq_tf.core.bit_history import BitChange
from msq_tf.core.quantized_network import QuantizedNetwork
from msq_tf.core.search_state import PER_WEIGHT
from msq_tf.core.search_state import SHARED
from msq_tf.rules.decision_check import check_decision
from msq_tf.rules.records import Decision
from msq_tf.rules.records import LayerStats
from msq_tf.rules.records import RuleState
from msq_tf.rules.records import SearchStats
from msq_tf.rules.rule import Rule
from msq_tf.sensitivity.effort import STEP
from msq_tf.sensitivity.finite import check_layers
from msq_tf.sensitivity.finite import check_loss
from msq_tf.sensitivity.finite import check_weights
from msq_tf.sensitivity.portions import Portions
from msq_tf.sensitivity.statistics import HESSIAN
from msq_tf.sensitivity.statistics import NoSecondDerivativeError
from msq_tf.sensitivity.statistics import StatisticsGatherer
from msq_tf.sensitivity.statistics import layer_outlines

# Share of the loss that has to be gone before costs are measured anew.
_FALLEN = 0.5
# Statistics that take longer than this are told of before they begin.
_LONG_SECONDS = 60.0
# Bytes by which what was counted in two files of a model may differ.
_FILLED = 64
# Column of the costs, of a width that no weight has: forward passes of one
# sample that all costs of the search took.
_SPENT = 0


# Answers as `Rule.decide`.
Choose = Callable[[SearchStats, RuleState], tuple[Decision, RuleState]]
# The bits that each weight was trained at; `None` where that does not matter.
TrainedAt = Sequence[int] | None


@dataclasses.dataclass(frozen=True)
class Probing:
    """How Hessian traces are taken, see `SearchCallback`."""

    hessian: bool
    every: int
    max_probes: int
    tolerance: float
    seed: int


def search_stats(
    qmodel: QuantizedNetwork,
    layers: Sequence[LayerStats] | None = None,
    progress: float = 0.0,
    step: int = 0,
) -> SearchStats:
    """Statistics for a rule; without `layers` none that need data."""
    stats = SearchStats(
        layers=layer_outlines(qmodel) if layers is None else layers,
        progress=progress,
        step=step,
        float_size=qmodel.float_size,
        file_overhead=qmodel.search.file_facts.overhead,
    )
    costs = qmodel.search.device_costs
    return stats if costs is None else costs.of(stats)


def begin(qmodel: QuantizedNetwork, rule: Rule, resumes: bool) -> str:
    """Begins a search, unless the model is in one for the same target.

    Args:
        qmodel: The model.
        rule: What decides.
        resumes: Whether epochs came before.

    Returns:
        What a search that begins expects; empty if that is not known.
    """
    search, stats = qmodel.search, search_stats(qmodel)
    state, fresh = search.rule_state, rule.start(stats)
    slack = 0.0
    # tf_keras saves no facts of files: they are counted again, in files of
    # trained weights, which may differ in what fills gaps.
    if resumes and search.reasons is None and stats.file_overhead is not None:
        slack = 8 * _FILLED / sum(layer.size for layer in stats.layers)
    if state.started and fresh.goes_on(state, slack):
        return ""
    search.rule_state = fresh
    return rule.forecast(stats)


class Decider:
    """Takes the decisions of a search, and applies them to the model.

    `tell` shows a line to the user, for statistics that take long.
    """

    def __init__(
        self,
        gatherer: StatisticsGatherer,
        rule: Rule,
        probing: Probing,
        lsb_strength: float,
        tell: Callable[[str], None] = lambda line: None,
    ):
        self._qmodel = gatherer.model
        self._gatherer = gatherer
        self._rule = rule
        self._probing = probing
        self._lsb_strength = lsb_strength
        self._tell = tell
        self._told = False

    def due(self, progress: float, step: int) -> bool:
        """Whether the rule wants to decide now."""
        stats = search_stats(self._qmodel, None, progress, step)
        return self._rule.due_now(stats, self._qmodel.search.rule_state)

    def decide(
        self,
        progress: float,
        step: int,
        epoch: float,
        portions: Portions,
        choose: Choose | None = None,
        trained_at: TrainedAt = None,
    ) -> list[BitChange]:
        """Takes one decision, or follows that of the chief.

        Args:
            progress: Share of the training that is over.
            step: Training steps taken.
            epoch: Epochs trained, a fraction in the middle of one.
            portions: Samples for its statistics.
            choose: What to ask in the place of the rule's `decide`.
            trained_at: The bits that weights were trained at. Those that get
                more begin at the values they had, where it is given.

        Returns:
            What was changed.

        Raises:
            ValueError: If workers do not hold the same bits, the statistics
                cannot be taken, or a weight, the loss or a statistic is not
                finite.
        """
        strategy = self._qmodel.distribute_strategy
        search = self._qmodel.search
        before = search.logged()
        state = search.rule_state
        # At the end of its phase a search may decide again and again.
        moved = not state.decisions or int(state.last_step) != step
        changes: list[BitChange] = []
        if distribute.is_chief(strategy):
            self._announce(portions)
        if moved:
            # By all workers alike, before one of them waits for another.
            check_weights(self._qmodel.paths, self._qmodel.latent_weights())
            self._take_traces(state, portions)
        if distribute.is_chief(strategy):
            if moved:
                loss = self._gatherer.loss(portions.losses())
                check_loss(loss)
                if self._rule.uses_cost:
                    self._measure_costs(state, portions, loss)
            layers = self._layers(portions)
            decision, after = (choose or self._rule.decide)(
                search_stats(self._qmodel, layers, progress, step), state
            )
            check_decision(self._rule, decision, layers)
            changes = self._apply(decision, step, epoch, layers)
            search.rule_state = after
        if distribute.workers(strategy) > 1:
            distribute.align(
                strategy, [getattr(search, n) for n in (*PER_WEIGHT, *SHARED)]
            )
            self._check_bits()
            if not distribute.is_chief(strategy):
                # All that reaches those that did not decide.
                paths = self._qmodel.paths
                rows = bit_history.newer(before, search.logged())
                changes = [bit_history.from_row(row, paths) for row in rows]
        if trained_at is not None:
            self._qmodel.keep_values(trained_at)
        self._qmodel.hold_scales()
        return changes

    def _announce(self, portions: Portions) -> None:
        """Says once what the statistics will take, where that is long."""
        if self._told:
            return
        self._told = True
        probing, run = self._probing, portions.effort.run
        every = self._every(portions) if probing.hessian else 0
        work = portions.work(
            self._candidates(),
            self._growing(),
            every,
            self._products(),
            costs=self._rule.uses_cost,
        )
        (batch, *_) = portions.losses()
        seconds = self._gatherer.seconds(batch) / samples_in(batch) * work
        if seconds > _LONG_SECONDS:
            self._tell(
                f"MSQ: the search's statistics take about {seconds / 60:.0f} "
                f"min in all, the work of {work / STEP / run.batch_size:,.0f} "
                f"steps beside the {run.steps:,} of the training"
            )

    def _candidates(self) -> int:
        return len(self._gatherer.candidates(self._rule))

    def _every(self, portions: Portions) -> int:
        return portions.effort.every(self._probing.every, self._products())

    def _products(self) -> int:
        return self._probing.max_probes * self._gatherer.products

    def _growing(self) -> int:
        return len(self._qmodel.paths) if self._rule.uses_growth else 0

    def _take_traces(self, state: RuleState, portions: Portions) -> None:
        probing, search = self._probing, self._qmodel.search
        every = self._every(portions)
        if not probing.hessian or int(state.decisions) % every:
            return
        try:
            estimate = self._gatherer.traces(
                portions.traces(every, self._products()),
                max_probes=probing.max_probes,
                min_probes=min(2, probing.max_probes),
                tolerance=probing.tolerance,
                seed=probing.seed + int(state.decisions),
            )
        except NoSecondDerivativeError as error:
            if self._gatherer.ranking == HESSIAN:
                raise
            self._do_without(error)
            return
        search.trace.assign(estimate.trace)
        search.trace_error.assign(estimate.error)

    def _do_without(self, error: NoSecondDerivativeError) -> None:
        """Goes on as without traces; all workers have the same operations."""
        self._probing = dataclasses.replace(self._probing, hessian=False)
        if distribute.is_chief(self._qmodel.distribute_strategy):
            warnings.warn(
                "The search takes no Hessian traces, so that all weights count "
                "as equally sensitive: TensorFlow has no second derivative of "
                "this loss. `MSQCallback(hessian=False)` says the same without "
                f"a warning. Received: {_first_line(error.__cause__)}",
                stacklevel=2,
            )

    def _layers(self, portions: Portions) -> tuple[LayerStats, ...]:
        """Fresh statistics of every weight, noted in the model too."""
        search = self._qmodel.search
        layers = self._gatherer.layers(
            self._rule,
            search.trace.numpy(),
            search.trace_error.numpy(),
            search.cost.numpy(),
            portions.gains(self._growing()),
        )
        check_layers(layers)
        search.sensitivity.assign([s.sensitivity for s in layers])
        search.sensitivity_error.assign([s.sensitivity_error for s in layers])
        search.lsb_nonzero.assign(
            [next(iter(s.lsb_nonzero.values()), 0.0) for s in layers]
        )
        return layers

    def _measure_costs(
        self, state: RuleState, portions: Portions, loss: float
    ) -> None:
        """Predicts costs at the first decision, and when the loss has fallen.

        A trained model is measured once, where it has converged: while bits
        fall its weights are in motion, and a plan from there is worse. A
        model that is still learning is measured anew whenever its loss has
        halved, since its first costs say little of what it becomes.
        """
        search = self._qmodel.search
        before = float(search.measured_loss.numpy())
        fallen = before - loss > _FALLEN * abs(before)
        if state.decisions and (self._rule.costs_once or not fallen):
            return
        candidates = self._candidates()
        spent = float(search.cost.numpy()[:, _SPENT].sum())
        batches = portions.costs(candidates, spent)
        if not batches:
            return
        search.measured_loss.assign(loss)
        costs = self._gatherer.costs(self._rule, search.trace.numpy(), batches)
        costs[0, _SPENT] = spent + portions.work_of_costs(candidates, batches)
        search.cost.assign(costs)

    def _apply(
        self,
        decision: Decision,
        step: int,
        epoch: float,
        layers: Sequence[LayerStats],
    ) -> list[BitChange]:
        """Sets what was decided; returns the changes as they are kept."""
        paths = self._qmodel.paths
        search = self._qmodel.search
        known = {layer.path: layer for layer in layers}
        changes = [
            BitChange.of(change, step, epoch, known[change.path])
            for change in decision.changes
        ]
        for change in changes:
            search.change(change, paths)
        search.lsb.assign([decision.lsb.get(path, 0) for path in paths])
        search.strength.assign(self._lsb_strength if decision.lsb else 0.0)
        return changes

    def _check_bits(self) -> None:
        """Raises a ValueError unless all workers hold the same bits."""
        held = distribute.of_all_workers(
            self._qmodel.distribute_strategy,
            np.asarray(self._qmodel.search.bits.numpy()),
        )
        if (held != held[0]).any():
            raise ValueError(
                "The workers hold different bits. Expected those of the chief "
                f"everywhere. Received, a row for each worker: {held.tolist()}"
            )


def _first_line(error: BaseException | None) -> str:
    """What is said first; TensorFlow goes on with stacks."""
    return next(iter(str(error).strip().splitlines()), "")

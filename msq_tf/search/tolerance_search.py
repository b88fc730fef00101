"""The search of a `ToleranceRule`, from epoch to epoch.

`rules.course` says what follows from what was measured. Here it is measured,
weights are stored and brought back, and a journal tells a resumed run what the
interrupted one knew. Under several workers all do the same: what the chief
measured counts, and the weights that go back are the chief's.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import numpy as np

from msq_tf import distribute
from msq_tf.core.bit_history import BitChange
from msq_tf.core.quantized_network import QuantizedNetwork
from msq_tf.rules import course
from msq_tf.rules.course import Course
from msq_tf.rules.records import Decision
from msq_tf.rules.records import RuleState
from msq_tf.rules.records import SearchStats
from msq_tf.rules.tolerance import ToleranceRule
from msq_tf.search import tolerance_journal as journals
from msq_tf.search.controller import Choose
from msq_tf.search.controller import TrainedAt
from msq_tf.search.controller import search_stats
from msq_tf.search.held_out import HeldOutMetric
from msq_tf.search.kept_states import KeptStates
from msq_tf.search.kept_states import give_back
from msq_tf.search.tolerance_before import measure_untrained
from msq_tf.search.tolerance_before import stats_with_costs
from msq_tf.search.tolerance_journal import Journal
from msq_tf.search.tolerance_journal import Record
from msq_tf.search.tolerance_outcome import ToleranceOutcome
from msq_tf.search.tolerance_outcome import outcome_of
from msq_tf.search.tolerance_words import Words
from msq_tf.sensitivity.statistics import layer_outlines

# The way to a smaller size: decisions in an epoch, and the share of it after
# which the rest goes at once.
_DECISIONS = 12
_WAY = 0.5

# Part of an epoch that is over when it begins: what changes then is no part of
# the epoch before, whose metric is known.
_BEGUN = 1e-6

# Takes a decision after some epochs, of another's choice.
Decide = Callable[[float, Choose, TrainedAt], list[BitChange]]


class ToleranceSearch:
    """One search for a tolerance.

    Args:
        rule: What is promised.
        network: The model.
        metric: Measures it.
        states: Where weights are kept.
        epochs: Epochs of the training.
        decide: Takes a decision of the search.
        tell: Shows lines to the user.
    """

    def __init__(
        self,
        rule: ToleranceRule,
        network: QuantizedNetwork,
        metric: HeldOutMetric,
        states: KeptStates,
        epochs: int,
        decide: Decide,
        tell: Callable[[str], None],
    ):
        self._rule = rule
        self._network = network
        self._metric = metric
        self._states = states
        self._epochs = epochs
        self._decide = decide
        self._tell = tell
        self._journal: Journal | None = None
        self._rung = 0
        # Whether the widths may not be those of the size yet.
        self._travels = True
        self.outcome: ToleranceOutcome | None = None

    @property
    def _known(self) -> Journal:
        if self._journal is None:
            raise ValueError(
                "The search for a tolerance has not begun. Expected "
                "`on_epoch_begin`, as `fit` calls it. Received: what comes "
                "after it"
            )
        return self._journal

    def begin_epoch(self, epoch: int) -> None:
        """Begins a search, goes on with one, or moves to another size.

        A size changes here and not at an epoch's end, so that whatever saves
        the model then saves what was measured.

        Args:
            epoch: Epochs of `fit` before.
        """
        if self._journal is None:
            self._begin_or_resume(epoch)
        records = self._known.records
        taken = int(self._network.search.rule_state.decisions)
        if not records or records[-1].decisions <= taken:
            return
        last = records[-1]
        known = self._known.course(self._rule)
        move = known.next_move()
        # The chief's: sums differ in their last digits.
        move = move._replace(rung=int(self._of_chief(move.rung)))
        drop = known.measured[-1].drop
        why = self._words(known).moved(last.epoch, last.value, drop, move)
        self._tell(why)
        trained = last.epoch
        if move.back_to is not None:
            trained = move.back_to
            self._go_back(trained)
        trained_at = self._bits_of(trained)
        self._move(last.epoch + _BEGUN, move.rung, why, trained_at)

    def _begin_or_resume(self, epoch: int) -> None:
        state = self._network.search.rule_state
        if not state.started or state.done:
            self._begin(epoch, self._rule.reference)
            return
        found = journals.from_chief(
            self._network.distribute_strategy, self._states.read_journal()
        )
        if found is not None and (epoch or not found.get("records")):
            self._resume(epoch, found)
            return
        if epoch:
            raise ValueError(
                "A search for a tolerance was broken off, and what it had "
                "measured and stored is gone. Expected the folder that the "
                "interrupted run was given, `MSQCallback(rule, "
                "directory=...)`, or a training from its first epoch. "
                f"Received: epoch {epoch + 1} and no journal"
            )
        reference = self._rule.reference
        if reference is None and found is not None:
            reference = Journal.from_json(found).reference
        if reference is None:
            warnings.warn(
                "A search for a tolerance was broken off and begins anew. The "
                "weights were trained in the meantime, and what is measured as "
                "the float model now is another one. Expected "
                "`ToleranceRule(reference=...)`, or a model as it was before. "
                "Received: reference=None",
                stacklevel=2,
            )
        self._begin(epoch, reference)

    def within_epoch(self, epoch: float, step: int, steps: int) -> None:
        """Goes on to the size of a round, where that takes several decisions.

        Args:
            epoch: Epochs of `fit` that are over, a fraction in one.
            step: Training steps taken.
            steps: Those of an epoch.
        """
        rule, state = self._rule, self._network.search.rule_state
        if self._journal is None or state.done:
            return
        # What is measured at the epoch's end shall have been trained before.
        late = step % steps >= steps * _WAY
        if not late and step < state.last_step + max(1, steps // _DECISIONS):
            return
        if self._travels and self._is_on_its_way():
            how = rule.decide_at_once if late else rule.decide
            self._decide(epoch, how, list(self._network.bits.values()))
            self._travels = self._is_on_its_way()

    def _is_on_its_way(self) -> bool:
        stats = search_stats(self._network)
        state = self._network.search.rule_state
        return self._rule.due(0.0, self._rule.average(stats), state)

    def end_epoch(self, epoch: int, logs: Mapping[str, Any]) -> None:
        """Measures an epoch.

        Args:
            epoch: Epochs of `fit` that are over.
            logs: Those of `fit` for the epoch.
        """
        self._note(
            epoch - self._known.first,
            self._of_chief(self._metric.of_epoch(logs)),
        )

    def end(self) -> None:
        """Hands the smallest model that kept the promise."""
        state = self._network.search.rule_state
        if self._journal is None and state.started and not state.done:
            # Broken off between the last epoch and this.
            self._begin_or_resume(self._epochs)
        if self._journal is None or not self._journal.records:
            return
        rule, journal = self._rule, self._journal
        known = journal.course(rule)
        last = known.measured[-1]
        best = known.best() or known.nearest() or last
        words = self._words(known)
        value = journal.value(best.epoch, best.rung)
        # What averages weights, or brings others back, may do so after the last
        # epoch was measured.
        same = self._states.holds(best.epoch, self._arrays())
        if not self._of_chief(same) or best.rung != self._rung:
            self._go_back(best.epoch)
            self._move(
                last.epoch,
                best.rung,
                words.back_to(best.epoch),
                self._bits_of(best.epoch),
                self._rule.decide_at_once,
            )
            if self._metric.can_measure:
                value = self._of_chief(self._metric.now())
        self.outcome = outcome_of(
            rule, journal, known, best, value, words.bytes_of
        )
        drop = self.outcome.drop
        search = self._network.search
        search.rule_state = search.rule_state._replace(done=1.0)
        # A backup may be from before the last epoch was counted.
        search.epoch.assign(float(last.epoch + journal.first))
        if self.outcome.kept:
            self._tell(words.handed(best, value, drop))
            drops = [m.drop for m in (*known.untrained, *known.measured)]
            if len(set(drops)) == 1 and best.rung:
                warnings.warn(words.constant(value), stacklevel=2)
        else:
            said = rule.keeps(best.drop)
            warnings.warn(words.broken(best, value, drop, said), stacklevel=2)

    def _begin(self, epoch: int, reference: float | None) -> None:
        rule, network = self._rule, self._network
        epochs = self._epochs - epoch
        if epochs < course.LEAST_EPOCHS:
            raise ValueError(
                "A ToleranceRule tries a size for at least an epoch, and needs "
                f"{course.LEAST_EPOCHS} at the least; with 10 or more it comes "
                "close. Expected more epochs, which may be shorter ones "
                f"(`fit(steps_per_epoch=...)`). Received: epochs={epochs}"
            )
        if reference is None:
            reference = self._of_chief(self._metric.of_float())
        if not math.isfinite(reference):
            raise ValueError(
                "Nothing can be promised against a float model whose metric "
                "is no number. Expected a finite one. Received: "
                f"{rule.name}={reference} of the float model"
            )
        rule.unit_for(reference)
        self._states.clear()
        widest = {s.path: s.start_bits for s in layer_outlines(network)}
        if network.bits != widest:
            self._tell(
                "MSQ: a search for a tolerance begins at the widest sizes; "
                "the bits that the model has are given up"
            )
            network.set_bits(widest)
        network.search.rule_state = rule.start(search_stats(network))
        # Measures the costs, which make the ladder.
        self._decide(epoch, rule.decide, None)
        ladder = rule.ladder(stats_with_costs(network))
        self._journal = Journal(
            settings=journals.settings_of(rule, self._epochs),
            first=epoch,
            reference=float(reference),
            ladder=ladder,
            untrained=measure_untrained(
                rule, network, self._metric, ladder, self._of_chief
            ),
        )
        self._states.save(0, self._arrays())
        self._states.write_journal(self._known.to_json())
        words = self._words(self._known.course(rule))
        self._tell("\n".join(words.expected()))
        if len(ladder) == 1:
            layers = layer_outlines(network)
            warnings.warn(words.one_size(layers), stacklevel=2)

    def _note(self, epoch: int, value: float) -> None:
        """Takes what was measured after an epoch of the search."""
        rule, search = self._rule, self._network.search
        before = self._known.course(rule)
        ends = course.round_ends(self._known.epochs)
        moves = epoch in ends and epoch != ends[-1]
        decisions = int(search.rule_state.decisions) + 1 if moves else 0
        bits = tuple(self._network.bits.values())
        self._journal = self._known.with_record(
            Record(epoch, self._rung, value, decisions, bits)
        )
        known = self._journal.course(rule)
        if epoch in known.stored:
            self._states.save(epoch, self._arrays())
        self._states.write_journal(self._journal.to_json())
        # A backup may be of one epoch before.
        self._states.keep_only({*before.stored, *known.stored})

    def _move(
        self,
        epoch: float,
        rung: int,
        why: str,
        trained_at: TrainedAt,
        how: Choose | None = None,
    ) -> None:
        """Gives the model the widths of another size, or begins to."""
        how = how or self._rule.decide
        search, known = self._network.search, self._known
        search.rule_state = search.rule_state._replace(
            target_bits=known.ladder[rung].budget
        )

        def choose(
            stats: SearchStats, state: RuleState
        ) -> tuple[Decision, RuleState]:
            decision, after = how(stats, state)
            changes = tuple(
                dataclasses.replace(change, reason=f"{why}; {change.reason}")
                for change in decision.changes
            )
            return dataclasses.replace(decision, changes=changes), after

        self._decide(epoch + known.first, choose, trained_at)
        self._rung = rung
        self._travels = self._is_on_its_way()

    def _arrays(self) -> list[np.ndarray]:
        return [v.numpy() for v in self._network.training_state()]

    def _bits_of(self, epoch: int) -> TrainedAt:
        """The bits that the weights of an epoch were trained at, if known."""
        if not epoch:
            return [s.start_bits for s in layer_outlines(self._network)]
        return self._known.bits_of(epoch) or None

    def _go_back(self, epoch: int) -> None:
        """Brings back the weights of an epoch."""
        variables = self._network.training_state()
        now = [variable.numpy() for variable in variables]
        arrays = self._states.load(epoch, now)
        arrays = distribute.from_chief(
            self._network.distribute_strategy, now if arrays is None else arrays
        )
        give_back(variables, arrays, self._network.second_moments())

    def _of_chief(self, value: float) -> float:
        strategy = self._network.distribute_strategy
        (sent,) = distribute.from_chief(strategy, [np.array(value, np.float64)])
        return float(sent)

    def _words(self, known: Course) -> Words:
        journal = self._known
        return Words(
            self._rule,
            known,
            journal.reference,
            lambda average: self._rule.bytes_at(
                search_stats(self._network), average
            ),
            journal.first,
        )

    def _resume(self, epoch: int, found: Mapping[str, Any]) -> None:
        """Comes to where the run was that a backup is of."""
        journal = journals.of_same_search(found, self._rule, self._epochs)
        epoch -= journal.first
        state = self._network.search.rule_state
        records = tuple(r for r in journal.records if r.epoch <= epoch)
        self._journal = dataclasses.replace(journal, records=records)
        if records:
            last = records[-1]
            moved = 0 < last.decisions <= int(state.decisions)
            at = journal.rung_at(state.target_bits)
            self._rung = at if moved else last.rung
        if epoch > (records[-1].epoch if records else 0):
            if not self._metric.can_measure:
                raise ValueError(
                    "An epoch ended that the search did not see, and its "
                    "metric cannot be measured again. Expected MSQCallback "
                    "before BackupAndRestore in `callbacks`, or held-out data "
                    f"to measure on. Received: epoch {epoch}"
                )
            self._note(epoch, self._of_chief(self._metric.now()))

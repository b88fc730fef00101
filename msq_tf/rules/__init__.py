"""Decides which weight loses bits, from names, counts and floats.

A rule of one's own is a `Rule`; `docs/rules.md` has one.
"""

from msq_tf.rules.budget import BudgetRule as BudgetRule
from msq_tf.rules.rule import Candidate as Candidate
from msq_tf.rules.rule import Change as Change
from msq_tf.rules.rule import Decision as Decision
from msq_tf.rules.rule import LayerStats as LayerStats
from msq_tf.rules.rule import Rule as Rule
from msq_tf.rules.rule import RuleState as RuleState
from msq_tf.rules.rule import SearchStats as SearchStats
from msq_tf.rules.threshold import ThresholdRule as ThresholdRule

__all__ = [
    "BudgetRule",
    "Candidate",
    "Change",
    "Decision",
    "LayerStats",
    "Rule",
    "RuleState",
    "SearchStats",
    "ThresholdRule",
]

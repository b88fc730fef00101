"""Decides which weight loses bits, from names, counts and floats.

Your own rule is a subclass of `Rule`; `docs/rules.md` has an example.
"""

from msq_tf.rules.budget import BudgetRule as BudgetRule
from msq_tf.rules.device_costs import DeviceCosts as DeviceCosts
from msq_tf.rules.records import Candidate as Candidate
from msq_tf.rules.records import Change as Change
from msq_tf.rules.records import Decision as Decision
from msq_tf.rules.records import LayerStats as LayerStats
from msq_tf.rules.records import RuleState as RuleState
from msq_tf.rules.records import SearchStats as SearchStats
from msq_tf.rules.rule import Rule as Rule
from msq_tf.rules.threshold import ThresholdRule as ThresholdRule
from msq_tf.rules.tolerance import ToleranceRule as ToleranceRule

__all__ = [
    "BudgetRule",
    "Candidate",
    "Change",
    "Decision",
    "DeviceCosts",
    "LayerStats",
    "Rule",
    "RuleState",
    "SearchStats",
    "ThresholdRule",
    "ToleranceRule",
]

"""The paper's rule."""

import msq_tf
from tests.msq_tf.rule_samples import layer
from tests.msq_tf.rule_samples import stats


class TestThresholdRule:
    rule = msq_tf.ThresholdRule(target_bits=4, alpha=0.3)

    def test_two_bits_below_the_mean_sensitivity_and_one_above(self):
        shares = {1: 0.2, 2: 0.2}
        now = stats(
            layer("flat", sensitivity=1.0, shares=shares),
            layer("steep", sensitivity=9.0, shares=shares),
        )
        decision, after = self.rule.decide(now, self.rule.start(now))
        new = {change.path: change.new for change in decision.changes}
        assert new == {"flat": 6, "steep": 7}
        assert decision.lsb == {"flat": 2, "steep": 1}
        assert not after.done
        assert after.decisions == 1
        assert after.last_step == 10

    def test_waits_while_lsbs_are_not_zero(self):
        now = stats(
            layer("a", sensitivity=1.0, shares={1: 0.1, 2: 0.31}),
            layer("b", sensitivity=2.0, shares={1: 0.31, 2: 0.1}),
        )
        decision, after = self.rule.decide(now, self.rule.start(now))
        assert not decision.changes
        assert decision.lsb == {"a": 2, "b": 1}
        assert not after.done

    def test_stops_at_the_target(self):
        rule = msq_tf.ThresholdRule(target_bits=7, alpha=1.0)
        now = stats(
            layer("a", sensitivity=1.0),
            layer("b", sensitivity=2.0),
            layer("c", sensitivity=1.5, size=10),
        )
        decision, after = rule.decide(now, rule.start(now))
        assert [c.path for c in decision.changes] == ["a", "c"]
        assert after.done
        assert decision.lsb == {}

    def test_respects_min_bits(self):
        rule = msq_tf.ThresholdRule(target_bits=4, alpha=1.0)
        now = stats(
            layer("a", bits=4, min_bits=3),
            layer("b", size=9000),
        )
        decision, _ = rule.decide(now, rule.start(now))
        new = {change.path: change.new for change in decision.changes}
        assert new["a"] == 3
        assert "a" not in decision.lsb

    def test_is_due_within_its_phase(self):
        rule = msq_tf.ThresholdRule(target_bits=4, begin=0.2, end=0.6)
        state = rule.start(stats(layer("a")))
        assert [rule.due(p, 8.0, state) for p in (0.1, 0.2, 0.6, 0.7)] == [
            False,
            True,
            True,
            False,
        ]

"""Bits that come back."""

import msq_tf
from tests.msq_tf.rule_samples import any_width
from tests.msq_tf.rule_samples import layer
from tests.msq_tf.rule_samples import stats


class TestGrowth:
    def dropped(self, **kwargs):
        """A layer that lost four bits, and one that could lose more."""
        return stats(
            layer("dropped", bits=4, **kwargs),
            layer("other", bits=6, size=3000, cost=0.1),
        )

    def decide(self, rule, now):
        state = rule.start(now)._replace(start_bits=8.0, done=0.0)
        return rule.decide(now, state)

    def test_bits_come_back_where_that_is_worth_more_than_it_costs(self):
        rule = any_width(target_bits=5.5, growth=1)
        decision, after = self.decide(rule, self.dropped(gain=0.5))
        (grown,) = [c for c in decision.changes if c.new > c.old]
        assert (grown.path, grown.old, grown.new) == ("dropped", 4, 5)
        assert grown.cost == -0.5
        assert "come back" in grown.reason
        assert after.grown == 1
        assert after.done  # the other layer paid
        new = {c.path: c.new for c in decision.changes}
        assert new["other"] < 6

    def test_not_where_the_others_pay_more(self):
        rule = any_width(target_bits=5.5, growth=1)
        decision, after = self.decide(rule, self.dropped(gain=1e-9))
        assert all(c.new < c.old for c in decision.changes)
        assert after.grown == 0

    def test_off_by_default(self):
        rule = any_width(target_bits=5.5)
        decision, _ = self.decide(rule, self.dropped(gain=9.0))
        assert all(c.new < c.old for c in decision.changes)
        assert not rule.uses_growth

    def test_not_beyond_its_bound_the_start_or_twice(self):
        rule = any_width(target_bits=5.5, growth=1)
        now = self.dropped(gain=9.0)
        state = rule.start(now)._replace(start_bits=8.0, done=0.0, grown=1.0)
        decision, _ = rule.decide(now, state)
        assert all(c.new < c.old for c in decision.changes)
        for kwargs in ({"start_bits": 4}, {"grown": 1}):
            decision, _ = self.decide(rule, self.dropped(gain=9.0, **kwargs))
            assert all(c.new < c.old for c in decision.changes)

    def test_never_at_the_target_s_expense(self):
        rule = any_width(target_bits=3.0, growth=1)
        now = stats(layer("only", bits=4, min_bits=3, gain=9.0))
        decision, after = self.decide(rule, now)
        assert [(c.old, c.new) for c in decision.changes] == [(4, 3)]
        assert after.done

    def test_what_grew_stays(self):
        rule = any_width(target_bits=4, growth=2)
        assert rule.widths(layer("a", grown=1)) == ()
        assert rule.wider(layer("a", bits=5)) == 6
        allowed = msq_tf.BudgetRule(
            target_bits=4, growth=1, allowed_bits=(8, 4, 2)
        )
        assert allowed.wider(layer("a", bits=4)) == 8
        assert allowed.wider(layer("a", bits=8)) is None

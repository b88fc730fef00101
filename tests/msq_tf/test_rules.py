"""The rules are pure: tables of numbers in, decisions out."""

import dataclasses

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import msq_tf
from tests.msq_tf.rule_samples import any_width
from tests.msq_tf.rule_samples import apply
from tests.msq_tf.rule_samples import layer
from tests.msq_tf.rule_samples import stats


class TestBudgetRule:
    def test_budget_is_the_cubic(self):
        rule = msq_tf.BudgetRule(target_bits=4, begin=0.2, end=0.6)
        state = rule.start(stats(layer("a")))
        assert rule.budget(0.0, state) == 8
        assert rule.budget(0.2, state) == 8
        assert rule.budget(0.4, state) == pytest.approx(4 + 4 * 0.5**3)
        assert rule.budget(0.6, state) == 4
        assert rule.budget(1.0, state) == 4

    def test_drops_what_costs_least_per_byte(self):
        rule = any_width(target_bits=7.5)
        now = stats(
            layer("dear", cost=9.0, sensitivity=5.0),
            layer("cheap", cost=1.0, sensitivity=5.0),
        )
        decision, after = rule.decide(now, rule.start(now))
        assert [(c.path, c.old, c.new) for c in decision.changes] == [
            ("cheap", 8, 7)
        ]
        assert "predicted loss" in decision.changes[0].reason
        assert after.done
        assert decision.lsb == {}

    def test_a_small_step_is_preferred_where_it_suffices(self):
        """Bits beyond the budget are worth nothing."""
        rule = any_width(target_bits=7.99)
        now = stats(
            layer("small", size=2_000, cost=1.0),
            layer("large", size=90_000, cost=1.5),
        )
        decision, _ = rule.decide(now, rule.start(now))
        assert [change.path for change in decision.changes] == ["small"]

    def test_a_large_layer_is_not_dropped_for_a_small_excess(self):
        """Many small steps beat one that goes far below the target."""
        rule = msq_tf.BudgetRule(target_bits=7.9, allowed_bits=(8, 4, 2))
        now = stats(
            layer("large", size=600_000, cost=1.0),
            *(layer(f"small{i}", size=9_000, cost=0.1) for i in range(10)),
        )
        decision, after = rule.decide(now, rule.start(now))
        assert "large" not in {change.path for change in decision.changes}
        assert after.done

    def test_searches_end_close_to_their_targets(self):
        """ResNet-8, where one layer holds half of the weights.

        Not each: a layer that costs little may be dropped beyond the target.
        """
        reached = [
            self.search(target, seed) / target
            for target in (6, 5, 4, 3.5, 3)
            for seed in range(8)
        ]
        assert max(reached) <= 1 + 1e-9
        assert np.median(reached) > 0.99
        assert np.mean(reached) > 0.97

    def search(self, target, seed):
        """Average bits at the end of a search with made-up costs."""
        sizes = [144, 2304, 2304, 4608, 9216, 512, 18432, 36864, 2048, 640]
        costs = np.random.default_rng(seed).lognormal(0, 1, len(sizes))
        rule = msq_tf.BudgetRule(target_bits=target, allowed_bits=(8, 4, 2))
        current = [
            layer(str(i), size=size, cost=float(cost))
            for i, (size, cost) in enumerate(zip(sizes, costs, strict=True))
        ]
        state = rule.start(stats(*current))
        for progress in np.linspace(0.05, 0.5, 10):
            now = stats(*current, progress=progress)
            while rule.due(progress, rule.average(now), state):
                decision, state = rule.decide(now, state)
                current = apply(current, decision)
                now = stats(*current, progress=progress)
                if progress < 0.5:
                    break
        return rule.average(stats(*current))

    def test_two_widths_at_once_only_below_the_mean_sensitivity(self):
        rule = any_width(target_bits=4)
        now = stats(
            layer("flat", cost=1.0, sensitivity=0.1),
            layer("steep", cost=1e-9, sensitivity=10.0),
        )
        decision, _ = rule.decide(now, rule.start(now))
        new = {change.path: change.new for change in decision.changes}
        assert new == {"steep": 7, "flat": 6}
        single = dataclasses.replace(rule, most=1)
        decision, _ = single.decide(now, single.start(now))
        assert {c.path: c.new for c in decision.changes} == {
            "steep": 7,
            "flat": 7,
        }

    def test_a_change_says_what_it_costs_and_what_was_next(self):
        rule = any_width(target_bits=6)
        now = stats(
            layer("dear", cost=9.0), layer("cheap", cost=1.0), progress=0.03
        )
        decision, _ = rule.decide(now, rule.start(now))
        assert [change.path for change in decision.changes] == ["cheap"]
        (change,) = decision.changes
        assert change.cost == now.layers[1].cost[change.new]
        assert change.next_in_line.path in ("cheap", "dear")
        assert change.next_in_line.bits < 8
        last = dataclasses.replace(now, progress=1.0)
        single = any_width(target_bits=7.5, most=1)
        decision, after = single.decide(last, single.start(last))
        assert after.done
        assert decision.changes[-1].next_in_line is None

    def test_steps_of_one_price_go_together_with_their_plan(self):
        """A layer that the plan leaves alone is left alone from the start."""
        rule = any_width(target_bits=5)
        current = [layer("fragile", cost=1e6), layer("tough", cost=1e-3)]
        state = rule.start(stats(*current))
        while not state.done:
            decision, state = rule.decide(stats(*current), state)
            assert {c.path for c in decision.changes} == {"tough"}
            current = apply(current, decision)
        assert [entry.bits for entry in current] == [8, 2]

    def test_the_plan_of_the_first_decision_is_that_of_the_last(self):
        """Costs count from where they were measured, not from where bits are.

        So a search on its way does not change its mind.
        """
        sizes = [144, 2304, 2304, 4608, 9216, 512, 18432, 36864, 2048, 640]
        rng = np.random.default_rng(1)
        costs = [
            {b: float(c) * 4.0**-b for b in range(2, 9)}
            for c in rng.lognormal(0, 2, len(sizes))
        ]
        rule = any_width(target_bits=3)

        def final(points):
            current = [
                dataclasses.replace(layer(str(i), size=size), cost=cost)
                for i, (size, cost) in enumerate(zip(sizes, costs, strict=True))
            ]
            state = rule.start(stats(*current))
            for progress in points:
                while rule.due(progress, rule.average(stats(*current)), state):
                    now = stats(*current, progress=progress)
                    decision, state = rule.decide(now, state)
                    current = apply(current, decision)
            return [entry.bits for entry in current]

        assert final([1.0]) == final(np.linspace(0.0, 0.35, 12))

    def test_allowed_bits(self):
        rule = msq_tf.BudgetRule(target_bits=4, allowed_bits=(2, 8, 4))
        assert rule.allowed_bits == (8, 4, 2)
        assert rule.widths(layer("a")) == (4, 2)
        assert rule.widths(layer("a", min_bits=3)) == (4,)
        assert rule.widths(layer("a", bits=6)) == (4, 2)
        assert rule.widths(layer("a", bits=2)) == ()
        assert rule.lowest(layer("a", min_bits=3)) == 4

    def test_widths_are_those_of_a_packed_file_by_default(self):
        rule = msq_tf.BudgetRule(target_bits=4)
        assert rule.widths(layer("a")) == (4, 2)
        assert rule.widths(layer("a", bits=7)) == (4, 2)
        assert any_width(target_bits=4).widths(layer("a")) == (7, 6, 5, 4, 3, 2)

    @pytest.mark.parametrize("least", range(2, 9))
    def test_a_minimum_of_any_width_can_be_reached(self, least):
        """As it could when all widths were allowed by default."""
        rule = msq_tf.BudgetRule(target_bits=least)
        current = layer("a", min_bits=least)
        assert rule.lowest(current) == least
        assert rule.start(stats(current)).target_bits == least

    def test_default_widths_fill_their_containers(self):
        """No width is left that a file stores in a wider container."""
        sizes = [144, 2304, 2304, 4608, 9216, 512, 18432, 36864, 2048, 640]
        for target in (7, 6, 5, 4, 3, 2.2):
            rule = msq_tf.BudgetRule(target_bits=target)
            current = [layer(str(i), size=n) for i, n in enumerate(sizes)]
            state = rule.start(stats(*current))
            while not state.done:
                decision, state = rule.decide(stats(*current), state)
                current = apply(current, decision)
            assert {entry.bits for entry in current} <= {8, 4, 2}

    def test_pulls_only_layers_that_are_next(self):
        rule = msq_tf.BudgetRule(target_bits=7, allowed_bits=(8, 4))
        now = stats(
            layer("next", cost=1.0),
            layer("safe", size=100, cost=1e9),
            layer("later", cost=1e9),
            progress=0.0,
        )
        decision, after = rule.decide(now, rule.start(now))
        assert not decision.changes
        assert decision.lsb == {"next": 4}
        assert not after.done

    def test_is_due_only_above_the_budget(self):
        rule = msq_tf.BudgetRule(target_bits=4, begin=0.1, end=0.5)
        state = rule.start(stats(layer("a")))
        assert not rule.due(0.05, 8.0, state)
        assert rule.due(0.1, 8.0, state)  # the first, for the pulls
        later = state._replace(decisions=1.0)
        assert not rule.due(0.1, 8.0, later)
        assert rule.due(0.3, 8.0, later)
        assert not rule.due(0.3, 4.1, later)
        assert not rule.due(0.3, 8.0, later._replace(done=1.0))

    @hypothesis.settings(deadline=None, max_examples=80)
    @hypothesis.given(
        st.lists(
            st.tuples(
                st.integers(1, 10**6), st.floats(-1, 10), st.floats(0, 1)
            ),
            min_size=1,
            max_size=8,
        ),
        st.floats(2.0, 8.0),
        st.sampled_from([range(2, 9), None]),
    )
    def test_reaches_its_target_and_overshoots_by_one_step_at_most(
        self, layers, target, allowed
    ):
        rule = msq_tf.BudgetRule(target_bits=target, allowed_bits=allowed)
        current = [
            layer(str(i), size=size, cost=cost, sensitivity=sensitivity)
            for i, (size, cost, sensitivity) in enumerate(layers)
        ]
        now = stats(*current)
        state = rule.start(now)
        last_steps = [0]
        while not state.done:
            before = rule.average(now)
            decision, state = rule.decide(now, state)
            sizes = {entry.path: entry.size for entry in current}
            last_steps = [
                (change.old - change.new) * sizes[change.path]
                for change in decision.changes
            ]
            current = apply(current, decision)
            now = stats(*current)
            assert rule.average(now) < before
        overshoot = target - rule.average(now)
        assert overshoot >= -2e-6
        if last_steps != [0]:
            assert overshoot < max(last_steps) / now.size


class TestDevices:
    def test_only_widths_that_pay_and_bytes_as_stored(self):
        rule = msq_tf.BudgetRule(target_bytes=10_000, device="min_size")
        assert rule.widths(layer("a", bits=7)) == (4, 2)
        assert rule.stored(layer("a"), 7) == 8
        assert rule.stored(layer("a"), 3) == 4
        # Seven bits are stored in eight: nothing is gained by the start.
        assert rule.average(stats(layer("a", bits=7))) == 8

    def test_target_bytes_is_the_whole_file(self):
        now = stats(layer("a", size=100_000, channels=64))
        rule = msq_tf.BudgetRule(target_bytes=60_000, device="min_size")
        overhead = rule.overhead(now)
        assert overhead > 64 * 16
        target = rule.start(now).target_bits
        assert target == pytest.approx(8 * (60_000 - overhead) / 100_000)

    def test_an_unknown_device(self):
        with pytest.raises(ValueError, match="min_size.*Received.*'cpu_fl"):
            msq_tf.BudgetRule(target_bits=4, device="cpu_float")

    def test_an_unreachable_file_size_says_what_is_possible(self):
        rule = msq_tf.BudgetRule(target_bytes=20_000, device="min_size")
        now = stats(layer("a", size=100_000, channels=64))
        with pytest.raises(ValueError, match=r"of at least 28,\d\d\d"):
            rule.start(now)


class TestTargets:
    @pytest.mark.parametrize(
        ("target", "bits"),
        [
            ({"target_bits": 4}, 4.0),
            ({"target_compression": 8.0}, 4.0),
            ({"target_bytes": 500}, 4.0),
        ],
    )
    def test_all_say_the_same(self, target, bits):
        rule = msq_tf.BudgetRule(**target)
        assert rule.start(stats(layer("a"))).target_bits == bits

    def test_a_target_already_met_ends_the_search(self):
        rule = msq_tf.BudgetRule(target_bits=8)
        assert rule.start(stats(layer("a"))).done

    def test_float_layers_count_32_bits(self):
        now = stats(layer("a"), float_size=1000)
        rule = msq_tf.BudgetRule(target_compression=8.0)
        assert rule.average(now) == 20
        with pytest.raises(ValueError, match=r"at most 1\.882"):
            rule.start(now)

    @pytest.mark.parametrize(
        ("rule", "lowest"),
        [
            (msq_tf.BudgetRule(target_bits=2.5), "3.0000"),
            (
                msq_tf.BudgetRule(target_bits=3, allowed_bits=(8, 4, 2)),
                "4.0000",
            ),
        ],
    )
    def test_an_impossible_target_says_what_is_possible(self, rule, lowest):
        with pytest.raises(
            ValueError, match=f"cannot be reached.*{lowest}.*Received"
        ):
            rule.start(stats(layer("a", min_bits=3)))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({}, "exactly one"),
            ({"target_bits": 4, "target_bytes": 10}, "exactly one"),
            ({"target_compression": 0}, "number from 1 to 16"),
            ({"target_compression": 0.5}, "number from 1 to 16"),
            ({"target_compression": 16.1}, "number from 1 to 16"),
            ({"target_compression": "8"}, "number from 1 to 16"),
            ({"target_bits": float("nan")}, "number from 2 to 32"),
            ({"target_bits": 1.9}, "number from 2 to 32"),
            ({"target_bytes": -1}, "number of at least 1"),
            ({"target_bytes": True}, "number of at least 1"),
            ({"target_bits": 4, "begin": "0"}, "`begin`"),
            ({"target_bits": 4, "allowed_bits": 4}, "such as"),
            ({"target_bits": 4, "allowed_bits": "842"}, "such as"),
            ({"target_bits": 4, "growth": True}, "`growth`"),
            ({"target_bits": 4, "begin": 0.5, "end": 0.5}, "phase"),
            ({"target_bits": 4, "end": 1.5}, "phase"),
            ({"target_bits": 4, "allowed_bits": ()}, "allowed_bits"),
            ({"target_bits": 4, "allowed_bits": (8, 1)}, "allowed_bits"),
            ({"target_bits": 4, "most": 3}, "`most`"),
            ({"target_bits": 4, "growth": -1}, "`growth`"),
            ({"target_bits": 4, "growth": 1.5}, "`growth`"),
        ],
    )
    def test_bad_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=f"{message}.*Received"):
            msq_tf.BudgetRule(**arguments)

    def test_bad_alpha(self):
        with pytest.raises(ValueError, match="alpha.*Received"):
            msq_tf.ThresholdRule(target_bits=4, alpha=1.1)

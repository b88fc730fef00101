"""Plans of channels on real networks."""

import keras
import numpy as np
import pytest

import msq_tf
from tests.msq_tf.channel_samples import residual_model
from tests.msq_tf.channel_samples import settle
from tests.msq_tf.channel_samples import zero
from tests.msq_tf.samples import compile_model
from tests.msq_tf.samples import fit


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 8, 8, 3)).astype(np.float32)
    return x, rng.integers(0, 5, 64)


def with_idle_channels(**config):
    """A network of which channels 0 to 3 of `a` do nothing."""
    qmodel = msq_tf.quantize_model(
        settle(residual_model()), msq_tf.MSQConfig(**config)
    )
    zero(qmodel, {"a": [0, 1, 2, 3]})
    return compile_model(qmodel)


def test_what_does_nothing_goes_first(data):
    qmodel = with_idle_channels()
    rule = msq_tf.BudgetRule(target_compression=6)
    plan = msq_tf.plan_channels(qmodel, rule, data)
    assert plan.channels["a"] == (0, 1, 2, 3)
    change = next(c for c in plan.changes if c.paths == ("a",))
    assert (change.removed, change.channels) == (4, 12)
    assert change.cost == pytest.approx(0.0, abs=1e-6)
    assert change.freed > 0
    assert plan.cost < plan.cost_by_widths
    assert "a: 4 of 12 channels, predicted loss" in str(plan)


@pytest.mark.slow
def test_the_bytes_are_those_of_the_rule(data):
    qmodel = with_idle_channels()
    rule = msq_tf.BudgetRule(target_compression=6, end=0.5)
    plan = msq_tf.plan_channels(qmodel, rule, data)
    wanted = sum(qmodel.sizes) * 32 / 6 / 8
    assert plan.rule.target_bytes == int(wanted)
    assert plan.rule.end == 0.5
    smaller = compile_model(msq_tf.remove_channels(qmodel, plan.channels))
    fit(smaller, data, msq_tf.MSQCallback(plan.rule, interval=1))
    stored = sum(
        size * width / 8
        for size, width in zip(
            smaller.sizes, smaller.bits.values(), strict=True
        )
    )
    assert stored <= wanted
    assert smaller.average_bits > qmodel.average_bits * 6 / 32


@pytest.mark.slow
def test_a_plan_changes_nothing_and_is_the_same_again(data):
    qmodel = with_idle_channels()
    before = [np.array(v) for v in qmodel.variables]
    rule = msq_tf.BudgetRule(target_compression=8)
    plans = [msq_tf.plan_channels(qmodel, rule, data) for _ in "ab"]
    assert plans[0] == plans[1]
    for variable, value in zip(qmodel.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


@pytest.mark.slow
def test_no_more_than_asked_for_goes(data):
    qmodel = with_idle_channels()
    rule = msq_tf.BudgetRule(target_compression=6)
    plan = msq_tf.plan_channels(qmodel, rule, data, most=0.0)
    assert plan.channels == {}
    assert plan.cost == plan.cost_by_widths
    assert "No channels go" in str(plan)


@pytest.mark.slow
def test_a_target_beyond_the_widths(data):
    qmodel = with_idle_channels()
    rule = msq_tf.BudgetRule(target_compression=16)
    size = int(sum(qmodel.sizes) * 2 / 8)  # two bits each
    rule = msq_tf.BudgetRule(target_bytes=int(size * 0.8))
    plan = msq_tf.plan_channels(qmodel, rule, data)
    assert plan.channels
    assert "by widths alone not to be had" in str(plan)
    smaller = compile_model(msq_tf.remove_channels(qmodel, plan.channels))
    fit(smaller, data, msq_tf.MSQCallback(plan.rule, interval=1))
    with pytest.raises(ValueError, match="with 50% of the channels"):
        msq_tf.plan_channels(
            qmodel, msq_tf.BudgetRule(target_bytes=int(size * 0.1)), data
        )


@pytest.mark.slow
def test_packed_kernels_keep_channels_by_fours(data):
    qmodel = with_idle_channels()
    rule = msq_tf.BudgetRule(target_bytes=int(sum(qmodel.sizes) / 6))
    plan = msq_tf.plan_channels(qmodel, rule, data)
    smaller = msq_tf.remove_channels(qmodel, plan.channels)
    assert {k.shape[-1] % 4 for k in smaller.kernels[:-1]} == {0}


@pytest.mark.slow
def test_a_loss_without_second_derivatives(data):
    qmodel = with_idle_channels()

    class Ctc(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return keras.losses.sparse_categorical_crossentropy(
                y_true, keras.ops.softsign(y_pred) + 2.0
            )

    qmodel.compile("sgd", Ctc())
    rule = msq_tf.BudgetRule(target_compression=6)
    plan = msq_tf.plan_channels(qmodel, rule, data)
    assert set(plan.channels.get("a", ())) <= {0, 1, 2, 3}


WRONG = {
    "not compiled": (lambda q: (q, 6), "compile"),
    "a float model": (lambda q: (q.base, 6), "takes a model from"),
    "no rule": (lambda q: (compile_model(q), None), "must be a BudgetRule"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_it_does_not_take(kind, data):
    make, message = WRONG[kind]
    qmodel, compression = make(msq_tf.quantize_model(residual_model()))
    rule = compression and msq_tf.BudgetRule(target_compression=compression)
    with pytest.raises(ValueError, match=message):
        msq_tf.plan_channels(qmodel, rule, data)

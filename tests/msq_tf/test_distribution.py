"""Several devices of one machine train what one device trains."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from tests.launching import PATIENCE
from tests.msq_tf import double
from tests.msq_tf import spread
from tests.msq_tf.samples import compile_model

# Weights are of order 1; sums over parts of a batch are taken in another
# order, which moves their last bits, and training adds that up.
ATOL = 1e-5


@pytest.fixture(autouse=True)
def deterministic(deterministic_sums):
    """Differences come from nothing but the distribution."""


def check_same(weights, expected):
    for ours, theirs in zip(weights, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=ATOL)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        "plain",
        pytest.param("synchronized", marks=pytest.mark.slow),
        pytest.param("activations", marks=pytest.mark.slow),
    ],
)
def test_two_devices_decide_and_train_as_one(kind):
    one, two = (spread.trained(kind, devices) for devices in (1, 2))
    assert two.model.distribute_strategy.num_replicas_in_sync == 2
    assert len(one.changes) > 8
    assert two.changes == one.changes
    assert two.model.bits == one.model.bits
    check_same(two.weights, one.weights)
    # Statistics are taken once, not once for each replica.
    assert one.passes > 20
    assert two.passes == one.passes
    for name, values in one.logs.items():
        np.testing.assert_allclose(
            two.logs[name], values, rtol=1e-4, err_msg=name
        )
    if kind == "activations":
        ranges = [
            [
                (r.low, r.high)
                for r in trained.model.activation_quantizers.trained_ranges()
            ]
            for trained in (one, two)
        ]
        np.testing.assert_allclose(*ranges, atol=ATOL)


@pytest.mark.slow
@pytest.mark.timeout(2 * PATIENCE)
def test_four_devices_decide_and_train_as_one(root, tmp_path):
    kinds = ("plain", "synchronized")
    done = subprocess.run(
        [sys.executable, "-m", spread.__name__, str(tmp_path), "4", *kinds],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    for kind in kinds:
        one = spread.trained(kind, 1)
        four = np.load(tmp_path / f"{kind}.npz")
        expected = np.array(one.changes, object).astype(str)
        np.testing.assert_array_equal(four["changes"], expected)
        assert four["passes"] == one.passes
        check_same(
            [four[f"arr_{i}"] for i in range(len(one.weights))], one.weights
        )


@pytest.mark.slow
@pytest.mark.timeout(2 * PATIENCE)
def test_in_float64_devices_differ_by_rounding_alone(root, tmp_path):
    """With batch norm and kinks, trained from random weights.

    In float32 such networks part within tens of steps, as two runs on one
    device do whose weights differ in a last bit. Whatever else was different
    on several devices would be as large in float64.
    """
    done = subprocess.run(
        [sys.executable, "-m", double.__name__, str(tmp_path)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    one, *others = (np.load(tmp_path / f"{n}.npz") for n in double.DEVICES)
    assert one["weights"].dtype == np.float64
    assert np.abs(one["weights"][-1] - one["weights"][0]).max() > 0.1
    assert len(one["changes"]) > 6
    assert 5 < np.count_nonzero(one["pulls"]) < len(one["pulls"])
    for several in others:
        np.testing.assert_array_equal(several["changes"], one["changes"])
        np.testing.assert_array_equal(several["bits"], one["bits"])
        np.testing.assert_array_equal(several["pulls"], one["pulls"])
        for name in ("weights", "traces", "costs"):
            np.testing.assert_allclose(
                several[name], one[name], rtol=0, atol=1e-11, err_msg=name
            )


@pytest.mark.slow
def test_batch_norm_of_parts_keeps_the_first_replicas_statistics():
    """What Keras does, and why statistics align the replicas first."""
    two = spread.trained("per_replica", 2)
    strategy = two.model.distribute_strategy
    mean = two.model.get_layer("bn").moving_mean
    parts = [v.numpy() for v in strategy.experimental_local_results(mean.value)]
    assert np.abs(parts[0] - parts[1]).max() > 1e-3
    np.testing.assert_array_equal(mean.numpy(), parts[0])
    assert two.model.compression >= 8.0

    batches = [(*map(tf.constant, (x[:64] for x in spread.data())), None)]
    gatherer = msq_tf.sensitivity.statistics.StatisticsGatherer(
        two.model, batches
    )
    found = gatherer.traces(max_probes=2)
    alone = compile_model(
        msq_tf.quantize_model(spread.model_of("per_replica", "alone"))
    )
    alone.set_weights(two.model.get_weights())
    expected = msq_tf.sensitivity.statistics.StatisticsGatherer(
        alone, batches
    ).traces(max_probes=2)
    np.testing.assert_allclose(found.trace, expected.trace, rtol=1e-5)
    parts = [v.numpy() for v in strategy.experimental_local_results(mean.value)]
    np.testing.assert_array_equal(parts[0], parts[1])


def test_replicas_keep_their_draws_through_a_decision():
    """Dropout of two replicas may differ, and statistics leave it alone."""
    strategy = spread.strategy_of(2)
    with strategy.scope():
        dropout = keras.layers.Dropout(0.5)
        model = keras.Sequential([keras.Input((4,)), dropout])
        model.add(keras.layers.Dense(2, name="head"))
        qmodel = msq_tf.quantize_model(model)
    state = dropout.seed_generator.state
    assert not any(state is v for v in qmodel.state_variables)


def test_fit_over_several_workers_says_what_to_do(monkeypatch):
    qmodel = compile_model(
        msq_tf.quantize_model(spread.model_of("plain", "none"))
    )
    monkeypatch.setattr(msq_tf.distribute, "workers", lambda strategy: 2)
    with pytest.raises(ValueError, match="strategy.run.*Received: 2 workers"):
        qmodel.fit(*spread.data())


@pytest.mark.slow
def test_followers_neither_decide_nor_write(monkeypatch, tmp_path):
    """A worker that is not the chief takes over what the chief has."""
    chief = spread.trained("plain", 1).model
    state = {
        name: getattr(chief.search, name).numpy()
        for name in ("bits", "rule", "log", "lsb", "strength")
    }
    keras.utils.set_random_seed(3)
    follower = compile_model(
        msq_tf.quantize_model(spread.model_of("plain", "follows"))
    )
    monkeypatch.setattr(msq_tf.distribute, "is_chief", lambda strategy: False)
    monkeypatch.setattr(
        msq_tf.BudgetRule, "decide", lambda *_: pytest.fail("decided")
    )

    def align(strategy, variables):
        for name, value in state.items():
            getattr(follower.search, name).assign(value)

    monkeypatch.setattr(msq_tf.distribute, "align", align)
    monkeypatch.setattr(
        msq_tf.distribute, "of_all_workers", lambda s, v: np.stack([v, v])
    )
    monkeypatch.setattr(
        msq_tf.search.controller.distribute, "workers", lambda s: 2
    )
    callbacks = keras.callbacks.CallbackList(
        [
            msq_tf.MSQCallback(
                msq_tf.BudgetRule(
                    target_compression=8.0, end=0.5, allowed_bits=range(2, 9)
                ),
                data=spread.data(),
                log_dir=str(tmp_path / "logs"),
            )
        ],
        model=follower,
        epochs=1,
        steps=2,
    )
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(0)
    callbacks.on_train_batch_end(0)
    assert follower.bits == chief.bits
    assert not (tmp_path / "logs").exists()

    monkeypatch.setattr(
        msq_tf.distribute, "of_all_workers", lambda s, v: np.stack([v, v - 1])
    )
    follower.set_bits(dict.fromkeys(follower.bits, 8))
    callbacks.on_epoch_begin(0)
    with pytest.raises(ValueError, match="workers hold different bits"):
        callbacks.on_train_batch_end(0)

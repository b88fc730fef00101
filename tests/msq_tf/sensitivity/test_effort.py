"""Statistics take a tenth of a run's work at most, counted."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from msq_tf.core.batches import Samples
from msq_tf.sensitivity import effort
from msq_tf.sensitivity.effort import Effort
from msq_tf.sensitivity.effort import Run
from msq_tf.sensitivity.portions import Portions
from msq_tf.sensitivity.portions import Sizes
from msq_tf.sensitivity.statistics import StatisticsGatherer
from tests.msq_tf.samples import compile_model
from tests.msq_tf.samples import tiny_model

SAMPLES = Samples((np.zeros((256, 2)), np.zeros(256), None))


def portions(steps, batch_size=16, decisions=11, **kwargs):
    run = Run(steps, batch_size, decisions)
    return Portions(
        Effort(run, **kwargs), Sizes(batch_size, batch_size), SAMPLES
    )


@pytest.mark.parametrize("weights", [10, 53, 75, 200])
@pytest.mark.parametrize("products", [4, 12])
@pytest.mark.parametrize("batch_size", [4, 16, 128])
def test_a_run_of_real_size_gives_a_tenth(weights, products, batch_size):
    """Ten epochs of a hundred steps for ten weights; more weights, more."""
    steps = max(1000, 100 * weights)
    found = portions(steps, batch_size)
    every = found.effort.every(4, products)
    work = found.work(2 * weights, 0, every, products)
    assert work <= 0.1 * found.effort.run.work


def test_later_costs_take_what_the_first_left():
    found = portions(3000).effort
    spent, counts = 0.0, []
    while True:
        count = found.costs(40, spent, 256)
        if not count:
            break
        counts.append(count)
        spent += 41 * count
    assert counts == sorted(counts, reverse=True)
    assert len(counts) > 1
    assert spent <= effort.SHARE * found.run.work


def test_a_long_run_uses_all_samples_and_a_short_one_few():
    assert len(portions(100_000).costs(100)) == 16
    assert len(portions(10).costs(100)) == 1  # of 16 samples


def test_batches_are_no_larger_than_those_of_training():
    found = portions(100_000, batch_size=32)
    for batches in (found.losses(), found.costs(9)):
        assert {len(x) for x, _, _ in batches} == {32}
    assert {len(x) for x, _, _ in found.traces(4, 4)} == {4}


def test_a_model_of_one_batch_size_gets_that():
    run = Run(10, 16, 11)
    found = Portions(Effort(run), Sizes(16, 16, fixed=True), SAMPLES)
    for batches in (found.losses(), found.costs(9), found.traces(4, 4)):
        assert {len(x) for x, _, _ in batches} == {16}


@pytest.fixture
def counted(monkeypatch):
    """Forward passes of one sample that gatherers take, as they happen."""
    total = [0]

    gathered = StatisticsGatherer.__init__

    def prepare(self, *args, **kwargs):
        gathered(self, *args, **kwargs)
        outputs, loss, run = self._outputs, self._loss, self._hessian._run

        def forward(values, x):
            total[0] += effort.FORWARD * len(x)
            return outputs(values, x)

        def losses(values, batch):
            total[0] += effort.FORWARD * len(batch[0])
            return loss(values, batch)

        def products(group, values, calls):
            for batch, _ in calls:
                total[0] += effort.PROBE * len(batch[0])
            return run(group, values, calls)

        self._outputs, self._loss = forward, losses
        self._hessian._run = products

    monkeypatch.setattr(StatisticsGatherer, "__init__", prepare)
    return total


@pytest.mark.slow
def test_a_search_of_ten_epochs_takes_a_tenth_of_its_work(counted):
    """What is counted here really goes through the network."""
    keras.utils.set_random_seed(0)
    qmodel = compile_model(msq_tf.quantize_model(tiny_model()))
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(8, 8, 8, 1)), tf.float32)
    data = tf.data.Dataset.from_tensors((x, rng.integers(0, 4, 8))).repeat(100)
    search = msq_tf.MSQCallback(msq_tf.BudgetRule(8), data=data)
    search.set_model(qmodel)
    search.set_params({"epochs": 10, "steps": 100, "verbose": 0})
    search.on_train_begin()
    for epoch in range(10):
        search.on_epoch_begin(epoch)
        for batch in range(100):
            search.on_train_batch_end(batch)
        search.on_epoch_end(epoch)
    search.on_train_end()
    assert qmodel.search.rule_state.done
    assert 0 < counted[0] <= 0.1 * effort.STEP * 1000 * 8


@pytest.mark.slow
def test_long_statistics_are_told_of_before_they_begin(
    monkeypatch, capsys, tiny_data
):
    monkeypatch.setattr(StatisticsGatherer, "seconds", lambda *_: 60.0)
    qmodel = compile_model(msq_tf.quantize_model(tiny_model()))
    search = msq_tf.MSQCallback(msq_tf.BudgetRule(8), verbose=1)
    qmodel.fit(*tiny_data, epochs=2, verbose=0, callbacks=[search])
    text = " ".join(capsys.readouterr().out.split())
    assert text.count("statistics take about") == 1
    assert "steps beside the 8 of the training" in text
    monkeypatch.setattr(StatisticsGatherer, "seconds", lambda *_: 1e-3)
    qmodel = compile_model(msq_tf.quantize_model(tiny_model()))
    search = msq_tf.MSQCallback(msq_tf.BudgetRule(8), verbose=1)
    qmodel.fit(*tiny_data, epochs=2, verbose=0, callbacks=[search])
    assert "statistics take" not in capsys.readouterr().out

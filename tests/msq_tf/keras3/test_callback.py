"""MSQCallback in `fit`: decides, logs, resumes, never retraces."""

import glob

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from tests.msq_tf.samples import EPOCHS
from tests.msq_tf.samples import budget
from tests.msq_tf.samples import fit
from tests.msq_tf.samples import new_model


@pytest.mark.first(1)
@pytest.mark.parametrize(
    "rule",
    [
        budget(),
        budget(allowed_bits=(8, 4, 2)),
        msq_tf.ThresholdRule(target_compression=8.0, alpha=0.9),
        msq_tf.BudgetRule(target_bytes=60, begin=0.2, end=0.4),
    ],
    ids=["budget", "containers", "threshold", "bytes"],
)
def test_reaches_the_target_in_its_phase(rule, tiny_data):
    qmodel = new_model()
    history = fit(qmodel, tiny_data, msq_tf.MSQCallback(rule, interval=1))
    bits = history.history["msq_bits"]
    assert bits[-1] <= 32 / 8.0
    # Two epochs are the phase; the rest is fine-tuning at the frozen scheme.
    assert bits[1] == bits[-1]
    state = qmodel.search.rule_state
    assert state.done
    assert float(qmodel.search.strength.numpy()) == 0.0
    assert not qmodel.search.lsb.numpy().any()
    if getattr(rule, "allowed_bits", None):
        assert set(qmodel.bits.values()) <= set(rule.allowed_bits)


@pytest.mark.slow
def test_a_whole_search_traces_once(tiny_data):
    qmodel = new_model()
    traces = []
    call = qmodel.base.call

    def counted(*args, **kwargs):
        traces.append(1)
        return call(*args, **kwargs)

    qmodel.base.call = counted
    callback = msq_tf.MSQCallback(budget(), interval=1)
    fit(qmodel, tiny_data, callback, epochs=1)
    once = len(traces)
    assert qmodel.search.rule_state.decisions > 1
    qmodel.search.restart([8, 8, 8])
    fit(qmodel, tiny_data, epochs=2)
    qmodel.set_bits({"conv": 2, "dw": 5})
    fit(qmodel, tiny_data, epochs=2)
    assert len(traces) == once
    # The training step, the loss, its Hessian and the outputs: one trace
    # each, and the symbolic build of the metrics.
    assert once <= 5


@pytest.mark.slow
def test_logs_reach_every_keras_tool(tiny_data, tmp_path):
    qmodel = new_model()
    history = fit(
        qmodel,
        tiny_data,
        msq_tf.MSQCallback(budget(), log_dir=str(tmp_path / "tb")),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.ModelCheckpoint(
            tmp_path / "best.keras",
            monitor="msq_compression",
            mode="max",
            save_best_only=True,
        ),
        validation_data=tiny_data,
    )
    for key in ("msq_bits", "msq_compression", "msq_lsb_nonzero"):
        assert len(history.history[key]) == EPOCHS
    assert history.history["msq_compression"][-1] == qmodel.compression
    assert 0 < history.history["msq_lsb_nonzero"][0] < 1
    header = (tmp_path / "log.csv").read_text().splitlines()[0]
    assert "msq_bits" in header
    best = keras.models.load_model(tmp_path / "best.keras")
    assert best.compression >= 8.0

    tags = set()
    for file in glob.glob(str(tmp_path / "tb" / "*")):
        for event in tf.compat.v1.train.summary_iterator(file):
            tags |= {value.tag for value in event.summary.value}
    assert {
        "msq/average_bits",
        "msq/compression",
        "msq/bits/conv",
        "msq/lsb_nonzero/dw",
        "msq/sensitivity/head",
    } <= tags


@pytest.mark.slow
def test_progress_is_readable_and_quiet_when_asked(tiny_data, capsys):
    fit(new_model(), tiny_data, msq_tf.MSQCallback(budget()))
    assert capsys.readouterr().out == ""
    fit(
        new_model(),
        tiny_data,
        msq_tf.MSQCallback(budget(), verbose=1),
    )
    out = " ".join(capsys.readouterr().out.split())
    assert "MSQ epoch 1" in out
    assert "target reached, bits frozen" in out


class Stop(keras.callbacks.Callback):
    """Raises at the end of a batch of an epoch."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.at = (epoch, batch)
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.usefixtures("deterministic_sums")
@pytest.mark.parametrize("first", ["msq", "backup"])
def test_a_resumed_search_equals_an_uninterrupted_one(
    first, tiny_data, tmp_path
):
    def callbacks():
        pair = [
            msq_tf.MSQCallback(
                budget(), interval=1, hessian_every=3, lsb_strength=0.05
            ),
            keras.callbacks.BackupAndRestore(
                tmp_path / "backup", delete_checkpoint=False
            ),
        ]
        return pair if first == "msq" else pair[::-1]

    whole = new_model()
    fit(
        whole,
        tiny_data,
        msq_tf.MSQCallback(
            budget(), interval=1, hessian_every=3, lsb_strength=0.05
        ),
    )

    killed = new_model()
    with pytest.raises(KeyboardInterrupt):
        fit(killed, tiny_data, *callbacks(), Stop(epoch=1, batch=1))
    resumed = new_model()
    fit(resumed, tiny_data, *callbacks())
    assert resumed.bits == whole.bits
    for a, b in zip(resumed.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)


@pytest.mark.slow
# Keras finds out where the data ends, and says so.
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.usefixtures("deterministic_sums")
@pytest.mark.parametrize("first", ["msq", "backup"])
def test_a_resumed_search_on_data_of_unknown_length(first, tiny_data, tmp_path):
    x, y = tiny_data

    def batches():
        for i in range(0, len(x), 32):
            yield x[i : i + 32], y[i : i + 32]

    signature = (
        tf.TensorSpec((None, *x.shape[1:]), tf.float32),
        tf.TensorSpec((None,), tf.int32),
    )

    def run(folder, *stop):
        qmodel = new_model()
        pair = [
            msq_tf.MSQCallback(
                budget(), data=tiny_data, interval=1, lsb_strength=0.05
            ),
            keras.callbacks.BackupAndRestore(folder, delete_checkpoint=False),
        ]
        callbacks = pair if first == "msq" else pair[::-1]
        qmodel.fit(
            tf.data.Dataset.from_generator(batches, output_signature=signature),
            epochs=4,
            shuffle=False,
            verbose=0,
            callbacks=[*callbacks, *stop],
        )
        return qmodel

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", Stop(epoch=1, batch=1))
    resumed = run(tmp_path / "killed")
    assert resumed.history_of_bits() == whole.history_of_bits()
    for a, b in zip(resumed.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)


@pytest.mark.slow
def test_a_saved_search_goes_on_where_it_stood(tiny_data, tmp_path):
    qmodel = new_model()
    with pytest.raises(KeyboardInterrupt):
        fit(
            qmodel,
            tiny_data,
            msq_tf.MSQCallback(budget(), interval=1),
            Stop(epoch=0, batch=3),
        )
    assert 1 < qmodel.search.rule_state.decisions
    qmodel.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.search.rule_state == qmodel.search.rule_state
    for model in (qmodel, loaded):
        fit(
            model,
            tiny_data,
            msq_tf.MSQCallback(budget(), interval=1),
            initial_epoch=1,
        )
    assert loaded.bits == qmodel.bits
    assert loaded.compression >= 8.0


@pytest.mark.slow
def test_a_new_target_starts_a_new_search(tiny_data):
    qmodel = new_model()
    fit(qmodel, tiny_data, msq_tf.MSQCallback(budget()))
    assert qmodel.search.rule_state.done
    again = msq_tf.BudgetRule(target_compression=12.0)
    fit(qmodel, tiny_data, msq_tf.MSQCallback(again))
    assert qmodel.compression >= 12.0
    # The first epoch of each history entry is where its search began.
    assert qmodel.search.course(qmodel.paths)[0][0] == (0.0, 8)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dataset", "infinite", "pydataset", "given"])
def test_kinds_of_data(kind, tiny_data):
    x, y = tiny_data
    options = {"shuffle": False}
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(32)
    callback = msq_tf.MSQCallback(budget())
    if kind == "infinite":
        data = data.repeat()
        options["steps_per_epoch"] = 4
    elif kind == "pydataset":

        class Sequence(keras.utils.PyDataset):
            def __len__(self):
                return 4

            def __getitem__(self, i):
                return x[32 * i :][:32], y[32 * i :][:32]

        data = Sequence()
    elif kind == "given":
        source = data

        def data():
            while True:
                yield from source

        data = data()
        options["steps_per_epoch"] = 4
        callback = msq_tf.MSQCallback(budget(), data=tiny_data)
    qmodel = new_model()
    qmodel.fit(data, epochs=4, verbose=0, callbacks=[callback], **options)
    assert qmodel.compression >= 8.0


@pytest.mark.slow
# Keras's own way to find the end of such a dataset.
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_an_unknown_epoch_length(tiny_data):
    """Keras learns the length of a filtered dataset by running through it."""
    data = (
        tf.data.Dataset.from_tensor_slices(tiny_data)
        .filter(lambda x, y: True)
        .batch(32)
    )
    for epochs in (1, 3):
        qmodel = new_model()
        qmodel.fit(
            data,
            epochs=epochs,
            shuffle=False,
            verbose=0,
            callbacks=[msq_tf.MSQCallback(budget())],
        )
        assert qmodel.compression >= 8.0


def test_a_generator_without_data_says_what_to_give(tiny_data):
    def batches():
        while True:
            yield tiny_data

    with pytest.raises(ValueError, match="MSQCallback.data=.*generator"):
        new_model().fit(
            batches(),
            steps_per_epoch=1,
            shuffle=False,
            verbose=0,
            callbacks=[msq_tf.MSQCallback(budget())],
        )


def test_an_impossible_target_is_refused_before_the_first_step(tiny_data):
    qmodel = new_model()
    before = [v.numpy() for v in qmodel.trainable_variables]
    rule = msq_tf.BudgetRule(target_bytes=1)
    with pytest.raises(ValueError, match="reached.*target_bytes of at least"):
        fit(qmodel, tiny_data, msq_tf.MSQCallback(rule))
    for variable, old in zip(qmodel.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, old)


@pytest.mark.slow
def test_a_target_that_is_missed_is_said(tiny_data):
    qmodel = new_model()
    rule = msq_tf.ThresholdRule(target_compression=8.0, alpha=0.0)
    with pytest.warns(UserWarning, match="above its target of 4.000"):
        fit(qmodel, tiny_data, msq_tf.MSQCallback(rule), epochs=1)


def test_a_float_model_is_refused(tiny, tiny_data, compiled):
    with pytest.raises(ValueError, match="quantize_model.*Sequential"):
        fit(compiled(tiny), tiny_data, msq_tf.MSQCallback(budget()))


def test_what_a_loop_of_ones_own_forgets_is_said(tiny, tiny_data):
    def watch(qmodel, **params):
        callback = msq_tf.MSQCallback(budget(), data=tiny_data)
        return keras.callbacks.CallbackList(
            [callback], model=qmodel, verbose=0, **params
        )

    uncompiled = msq_tf.quantize_model(tiny)
    with pytest.raises(ValueError, match="compiled model.*compiled=False"):
        watch(uncompiled, epochs=2, steps=4).on_train_begin()
    with pytest.raises(ValueError, match="number of epochs.*params="):
        watch(new_model(), steps=4).on_train_begin()
    unbegun = watch(new_model(), epochs=2, steps=4)
    with pytest.raises(ValueError, match="`on_train_begin`.*Received"):
        unbegun.on_epoch_begin(0)
    forgetful = watch(new_model(), epochs=2, steps=4)
    forgetful.on_train_begin()
    with pytest.raises(ValueError, match="`on_epoch_begin`.*Received"):
        forgetful.on_train_batch_end(0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rule": 8.0}, "rule"),
        ({"interval": 0}, "interval"),
        ({"samples": 0}, "samples"),
        ({"lsb_strength": -1.0}, "lsb_strength"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"{message}.*Received"):
        msq_tf.MSQCallback(**{"rule": budget(), **arguments})

"""A search for a tolerance in `fit`, from the float model to the last word."""

import keras
import numpy as np
import pytest

import msq_tf
from tests.killing import Killed

_EPOCHS = 6


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(384, 12)).astype("float32")
    y = (np.maximum(x @ rng.normal(size=(12, 16)), 0)).argmax(-1) % 4
    return (x[:256], y[:256]), (x[256:], y[256:])


def float_model():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((12,)),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dense(4),
        ]
    )
    compiled(model)
    (train, labels), _ = data()
    model.fit(train, labels, epochs=12, batch_size=32, verbose=0)
    return model


def compiled(model, optimizer="adam", rate=0.003):
    model.compile(
        {"adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD}[optimizer](
            rate
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


@pytest.fixture(scope="module")
def trained():
    return float_model()


def quantized(trained, **options):
    model = keras.models.clone_model(trained)
    model.set_weights(trained.get_weights())
    return compiled(msq_tf.quantize_model(model), **options)


def fit(qmodel, callback, *others, epochs=_EPOCHS, **options):
    (x, y), held_out = data()
    return qmodel.fit(
        x,
        y,
        validation_data=options.pop("validation_data", held_out),
        batch_size=64,
        epochs=epochs,
        verbose=0,
        callbacks=[callback, *others],
        **options,
    )


def accuracy(model):
    return model.evaluate(*data()[1], verbose=0, return_dict=True)["accuracy"]


def search(**rule):
    return msq_tf.MSQCallback(msq_tf.ToleranceRule(**rule), hessian=False)


@pytest.mark.parametrize(
    "optimizer", ["adam", pytest.param("sgd", marks=pytest.mark.slow)]
)
def test_what_is_handed_over_keeps_the_promise(trained, optimizer):
    qmodel = quantized(trained, optimizer=optimizer)
    callback = search(max_drop=3.0)
    fit(qmodel, callback)
    outcome = callback.outcome
    assert outcome.reference == pytest.approx(accuracy(trained))
    assert outcome.kept
    assert outcome.value == pytest.approx(accuracy(qmodel))
    assert outcome.value >= outcome.reference - 0.03 - 1e-6
    packed = msq_tf.precision_report(qmodel).packed_bytes
    assert packed == pytest.approx(outcome.bytes, abs=4)
    assert packed < 800
    sizes = [size for _, size, drop in outcome.trials if drop <= 3.0]
    assert outcome.bytes == min([*sizes, outcome.bytes])
    reasons = {change.reason for change in qmodel.history_of_bits()}
    assert all("val_accuracy" in r or "handed over" in r for r in reasons)
    assert qmodel.search.rule_state.done


@pytest.mark.slow
def test_a_size_that_needs_no_training_is_not_forgotten(trained):
    qmodel = quantized(trained, rate=1.0)  # training destroys the model
    callback = search(max_drop=3.0)
    fit(qmodel, callback, epochs=3)
    outcome = callback.outcome
    assert outcome.kept and outcome.epoch == 0
    assert outcome.value == pytest.approx(accuracy(qmodel))
    assert outcome.bytes < 960
    packed = msq_tf.precision_report(qmodel).packed_bytes
    assert packed == pytest.approx(outcome.bytes, abs=4)


@pytest.mark.parametrize("stored", [False, True])
def test_before_training_the_optimizer_remembers_nothing(
    trained, tmp_path, stored
):
    """Adam makes its slots in the first step, and none of it goes back."""
    qmodel = quantized(trained, rate=1.0)  # training destroys the model
    assert not qmodel.optimizer.built
    seen = []

    class Look(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            optimizer = qmodel.optimizer
            slots = [v for v in optimizer.variables if "momentum" in v.path]
            seen.append(sum(np.abs(v.numpy()).sum() for v in slots))

    callback = msq_tf.MSQCallback(
        msq_tf.ToleranceRule(max_drop=np.float32(3.0)),
        hessian=False,
        directory=tmp_path if stored else None,
    )
    fit(qmodel, callback, Look(), epochs=3)
    assert seen[0] == 0.0 and 0.0 in seen[1:]
    assert callback.outcome.kept and callback.outcome.epoch == 0


@pytest.mark.slow
def test_a_training_that_breaks_the_model_begins_anew(trained, capsys):
    """At a rate that falls, from one that no model survives."""
    qmodel = quantized(
        trained,
        rate=keras.optimizers.schedules.PiecewiseConstantDecay(
            [8, 40], [3.0, 0.002, 0.0002]
        ),
    )
    callback = msq_tf.MSQCallback(
        msq_tf.ToleranceRule(max_drop=3.0), hessian=False, verbose=1
    )
    fit(qmodel, callback, epochs=12)
    assert "training broke it" in capsys.readouterr().out
    assert callback.outcome.kept
    # Another begins from sound weights: the broken ones lose 24 points.
    assert callback.outcome.trials[-1][2] < 15.0


@pytest.mark.slow
def test_weights_exchanged_after_the_last_epoch_are_not_handed_over(trained):
    class Exchange(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            for weight in self.model.trainable_weights:
                weight.assign(weight * 0.0)

    qmodel = quantized(trained)
    callback = search(max_drop=100.0)
    qmodel.optimizer = keras.optimizers.Adam(
        0.01, use_ema=True, ema_momentum=0.999
    )
    fit(qmodel, Exchange(), callback, epochs=3)
    assert callback.outcome.kept
    assert callback.outcome.value == pytest.approx(accuracy(qmodel))


@pytest.mark.slow
def test_a_search_with_nothing_to_choose_from_says_so(trained):
    with pytest.warns(UserWarning, match="one size only, 960.*'?allowed_bits"):
        fit(quantized(trained), search(allowed_bits=(8,)), epochs=3)


@pytest.mark.slow
def test_a_promise_that_cannot_be_kept_is_said(trained, capsys):
    qmodel = quantized(trained)
    callback = search(max_drop=0.0, reference=0.9999)
    with pytest.warns(UserWarning, match="NOT kept"):
        fit(qmodel, callback)
    assert not callback.outcome.kept
    assert callback.outcome.drop > 0
    # What lost least of all that was measured.
    drops = [drop for *_, drop in callback.outcome.trials]
    assert callback.outcome.drop <= min(drops) + 1e-6


@pytest.mark.slow
def test_a_function_is_a_metric(trained):
    seen = []

    def agreement(model):
        seen.append(model)
        (x, y) = data()[1]
        return np.mean(np.argmax(model.predict(x, verbose=0), -1) == y)

    qmodel = quantized(trained)
    callback = search(monitor=agreement, mode="max", max_drop=3.0)
    fit(qmodel, callback, validation_data=None)
    assert callback.outcome.kept
    assert callback.outcome.reference == pytest.approx(accuracy(trained))
    assert callback.outcome.value == pytest.approx(accuracy(qmodel))
    assert seen[0] is qmodel.base and seen[-1] is qmodel


def test_the_float_model_is_measured_and_left_as_it_was(trained):
    qmodel = quantized(trained)
    before = accuracy(qmodel), qmodel.predict(data()[1][0], verbose=0)
    qmodel.set_bits(dict.fromkeys(qmodel.paths, 2))
    with qmodel.float_model(compiled=True) as model:
        assert accuracy(model) == pytest.approx(accuracy(trained))
    assert accuracy(qmodel) < accuracy(trained)
    qmodel.set_bits(dict.fromkeys(qmodel.paths, 8))
    assert accuracy(qmodel) == before[0]
    np.testing.assert_array_equal(
        qmodel.predict(data()[1][0], verbose=0), before[1]
    )


class _Kill(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise Killed

    def on_epoch_end(self, epoch, logs=None):
        # After the last backup; nothing but the hand-over is left.
        if epoch + 1 == self.epoch == _EPOCHS:
            raise Killed


@pytest.mark.slow
@pytest.mark.parametrize("first", ["search", "backup"])
@pytest.mark.parametrize("epoch", [1, 4, _EPOCHS])
def test_a_resumed_search_decides_as_the_uninterrupted_one(
    trained, tmp_path, first, epoch
):
    def train(folder, *kill):
        keras.utils.set_random_seed(1)
        qmodel = quantized(trained)
        callback = msq_tf.MSQCallback(
            msq_tf.ToleranceRule(max_drop=2.0),
            hessian=False,
            directory=tmp_path / folder / "search",
        )
        backup = keras.callbacks.BackupAndRestore(tmp_path / folder / "backup")
        both = [callback, backup] if first == "search" else [backup, callback]
        try:
            fit(qmodel, both[0], both[1], *kill, shuffle=False)
        except Killed:
            return None
        return qmodel, callback.outcome

    assert train("killed", _Kill(epoch)) is None
    resumed, outcome = train("killed")
    whole, expected = train("whole")
    assert outcome == expected
    assert resumed.bits == whole.bits
    for a, b in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_loop_of_ones_own_logs_the_metric(trained):
    qmodel = quantized(trained)
    search = msq_tf.MSQCallback(
        msq_tf.ToleranceRule(max_drop=3.0, reference=accuracy(trained)),
        data=data()[0],
        hessian=False,
    )
    (x, y), _ = data()
    callbacks = keras.callbacks.CallbackList(
        [search], model=qmodel, epochs=4, steps=4, verbose=0
    )
    callbacks.on_train_begin()
    for epoch in range(4):
        callbacks.on_epoch_begin(epoch)
        for batch in range(4):
            part = slice(64 * batch, 64 * (batch + 1))
            qmodel.train_on_batch(x[part], y[part])
            callbacks.on_train_batch_end(batch)
        callbacks.on_epoch_end(epoch, {"val_accuracy": accuracy(qmodel)})
    callbacks.on_train_end()
    assert search.outcome.kept
    assert search.outcome.value == pytest.approx(accuracy(qmodel))
    assert search.outcome.bytes < 960


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        ({}, {"validation_data": None}, "reference=.*Received: none"),
        ({"monitor": "val_f1"}, {}, "val_accuracy.*Received: monitor='val_f1'"),
        ({"monitor": "val_loss"}, {}, "unit='metric'.*unit=None"),
        ({}, {"epochs": 2}, "needs 3 .*Received: epochs=2"),
        ({}, {"epochs": 9, "initial_epoch": 7}, "Received: epochs=2"),
        (
            {"monitor": lambda model: float("nan"), "mode": "max"},
            {},
            "no number.*=nan of the float model",
        ),
        (
            {"monitor": lambda model: [1.0, 2.0], "mode": "max"},
            {},
            r"is no number.*\[1.0, 2.0\]",
        ),
    ],
)
def test_what_cannot_be_promised_is_refused_at_once(
    trained, rule, options, message
):
    qmodel = quantized(trained)
    before = qmodel.get_weights()
    with pytest.raises(ValueError, match=message):
        fit(qmodel, search(**rule), **options)
    # No step was taken.
    assert qmodel.optimizer.iterations.numpy() == 0
    for a, b in zip(qmodel.base.get_weights(), before, strict=False):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_metric_that_never_moves_is_told_of(trained):
    qmodel = quantized(trained)
    with pytest.warns(UserWarning, match="the same value 3 times"):
        fit(
            qmodel,
            search(monitor=lambda model: 0.5, mode="max"),
            epochs=3,
            validation_data=None,
        )
    assert qmodel.compression == 16.0


@pytest.mark.slow
def test_a_metric_that_becomes_no_number_hands_over_what_was_stored(trained):
    values = iter([0.9, 0.9, 0.8, 0.7, 0.6, 0.5, 0.89, 0.2, 0.91])

    def score(model):
        return next(values, float("nan"))

    qmodel = quantized(trained)
    callback = search(monitor=score)
    with pytest.warns(UserWarning, match="NOT verified"):
        fit(qmodel, callback, epochs=6, validation_data=None)
    assert not callback.outcome.kept


@pytest.mark.slow
def test_a_folder_of_another_promise_is_refused(trained, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise Killed

    qmodel = quantized(trained)

    def train(max_drop, *others):
        callback = msq_tf.MSQCallback(
            msq_tf.ToleranceRule(max_drop=max_drop),
            hessian=False,
            directory=tmp_path,
        )
        fit(qmodel, callback, *others, epochs=3, initial_epoch=others == ())

    with pytest.raises(Killed):
        train(2.0, Stop())
    with pytest.raises(ValueError, match="another tolerance.*'max_drop': 1"):
        train(1.0)
    (tmp_path / "tolerance.json").unlink()
    with pytest.raises(ValueError, match="no journal"):
        train(2.0)
    (tmp_path / "tolerance.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read.*Received: "):
        train(2.0)
    (tmp_path / "tolerance.json").write_text('{"settings": 3}')
    with pytest.raises(ValueError, match="does not fit.*Received: "):
        train(2.0)

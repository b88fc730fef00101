"""Searches that were killed, and go on as those that were not."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from msq_tf.core.file_facts import FileFacts
from tests.killing import Killed
from tflite_export import predicting

L = keras.layers
EPOCHS = 4


class KillAt(keras.callbacks.Callback):
    """Ends a training in an epoch, behind its last one, or when it is over."""

    def __init__(self, point):
        super().__init__()
        self.point = point

    def on_epoch_begin(self, epoch, logs=None):
        if self.point == epoch:
            raise Killed

    def on_epoch_end(self, epoch, logs=None):
        if self.point == "epoch" and epoch + 1 == EPOCHS:
            raise Killed

    def on_train_end(self, logs=None):
        if self.point == "end":
            raise Killed


def samples():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 24)).astype("float32")
    return x, np.maximum(x @ rng.normal(size=(24, 8)), 0).argmax(-1) % 4


def compiled():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((24,)),
            L.Dense(64, activation="relu", name="a"),
            L.Dense(48, activation="relu", name="b"),
            L.Dense(4, name="c"),
        ]
    )
    config = msq_tf.MSQConfig(dense_granularity=msq_tf.PerTensor())
    qmodel = msq_tf.quantize_model(model, config)
    qmodel.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return qmodel


def train(folder, rule, point, place, whole):
    """A run in a process of its own, as far as a model and its files tell."""
    x, y = samples()
    qmodel = compiled()
    stored = isinstance(rule, msq_tf.ToleranceRule)
    search = msq_tf.MSQCallback(
        rule,
        data=(x, y),
        hessian=False,
        directory=folder / "search" if stored else None,
    )
    backup = keras.callbacks.BackupAndRestore(folder / "backup")
    callbacks = [search, backup]
    callbacks.insert(place, KillAt(None if whole else point))
    qmodel.fit(
        x,
        y,
        batch_size=64,
        shuffle=False,
        validation_data=(x[:128], y[:128]),
        epochs=EPOCHS,
        verbose=0,
        callbacks=callbacks,
    )
    return qmodel, search


@pytest.mark.slow
@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("device", "point", "place"),
    [
        ("mcu", "epoch", 2),
        ("mcu", "end", 0),
        ("mcu", "end", 1),
        ("min_size", "epoch", 2),
        ("min_size", "epoch", 0),
        ("qualcomm_npu:SM8650", "end", 0),
    ],
)
def test_what_files_tell_is_known_with_no_epoch_left(
    device, point, place, tmp_path
):
    rule = msq_tf.ToleranceRule(max_drop=3.0, device=device)
    with pytest.raises(Killed):
        train(tmp_path / "a", rule, point, place, whole=False)
    resumed, search = train(tmp_path / "a", rule, point, place, whole=True)
    expected, whole = train(tmp_path / "b", rule, point, place, whole=True)
    assert search.outcome == whole.outcome
    assert resumed.search.rule_state.done
    assert_same(resumed, expected)


def assert_same(received, expected):
    assert received.bits == expected.bits
    for a, b in zip(received.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=b.path)


@pytest.mark.slow
@pytest.mark.parametrize("point", [2, "epoch"])
@pytest.mark.parametrize("bytes_", [5_000, 9_000])
def test_bytes_that_were_counted_are_not_counted_again(
    point, bytes_, tmp_path, monkeypatch
):
    """Files of trained weights may have some other bytes between constants."""
    rule = msq_tf.BudgetRule(target_bytes=bytes_, device="min_size")
    with pytest.raises(Killed):
        train(tmp_path / "a", rule, point, 0, whole=False)
    expected, _ = train(tmp_path / "b", rule, point, 0, whole=True)
    count = predicting.file_overhead
    monkeypatch.setattr(
        predicting, "file_overhead", lambda *given: count(*given) + 16
    )
    resumed, _ = train(tmp_path / "a", rule, point, 0, whole=True)
    assert_same(resumed, expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_decisions_that_a_backup_came_before_are_taken_at_the_end(tmp_path):
    """In the one epoch whose length `fit` learns at its end."""
    x, y = samples()

    def train(folder, kill):
        def batches():
            for start in range(0, 256, 64):
                yield x[start : start + 64], y[start : start + 64]

        qmodel = compiled()
        callbacks = [
            keras.callbacks.BackupAndRestore(tmp_path / folder),
            *kill,
            msq_tf.MSQCallback(
                msq_tf.BudgetRule(target_compression=8.0, end=1.0),
                data=(x, y),
                hessian=False,
            ),
        ]
        qmodel.fit(
            tf.data.Dataset.from_generator(
                batches,
                output_signature=(
                    tf.TensorSpec((None, 24)),
                    tf.TensorSpec((None,), tf.int64),
                ),
            ),
            epochs=1,
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
        )
        return qmodel

    class Kill(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise Killed

    with pytest.raises(Killed):
        train("a", [Kill()])
    assert train("a", []).bits == train("b", []).bits


def test_what_files_told_is_saved(tmp_path):
    qmodel, other = compiled(), compiled()
    facts = FileFacts("mcu", ((8, 4), (8, 4), (8,)), True, 1234.0)
    for told in (facts, FileFacts()):
        qmodel.search.file_facts = told
        qmodel.save_weights(tmp_path / "m.weights.h5")
        other.load_weights(tmp_path / "m.weights.h5")
        assert other.search.file_facts == told


@pytest.mark.parametrize(
    "change",
    [
        {"device": 1},
        {"containers": [[8, 4]]},
        {"containers": [[8], [8], []]},
        {"containers": [[8], [8], [9]]},
        {"containers": [[8], [8], [True]]},
        {"containers": 4},
        {"counts": 1},
        {"overhead": "many"},
        {"overhead": float("nan")},
        {"overhead": True},
    ],
)
def test_facts_that_cannot_be_are_refused(change):
    facts = FileFacts("mcu", ((8, 4), (8, 4), (8,)), True, 12.5)
    assert FileFacts.from_json(facts.to_json(), 3) == facts
    text = json.dumps(json.loads(facts.to_json()) | change)
    for wrong in (text, text[:-1], "[]", "3"):
        with pytest.raises(ValueError, match="with 3 weights.*Received: "):
            FileFacts.from_json(wrong, 3)

"""The search inside of tf_keras's `fit`."""

import contextlib
import io

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from tests.killing import Killed
from tests.tfmot.samples import budget
from tests.tfmot.samples import compile_model
from tests.tfmot.samples import fit
from tests.tfmot.samples import msq
from tests.tfmot.samples import new_model
from tests.tfmot.samples import tf_keras
from tests.tfmot.samples import tiny_model
from tflite_export import predicting


@pytest.fixture(scope="module")
def searched(data, tmp_path_factory):
    """A model after a search, what it said, and its logs."""
    folder = tmp_path_factory.mktemp("logs")
    model = new_model()
    callback = msq.MSQCallback(
        budget(),
        data,
        interval=2,
        lsb_strength=0.05,
        log_dir=str(folder),
        verbose=1,
    )
    seen = []

    class Watch(tf_keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            view = callback._qmodel
            seen.append(
                (float(view.search.strength.numpy()), sum(self.model.losses))
            )

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        history = fit(model, data, callback, Watch(), validation_data=data)
    return model, history.history, seen, folder, said.getvalue()


def test_a_budget_is_reached(searched):
    model, history, *_ = searched
    view = msq.ModelView(model)
    assert view.compression >= 8.0
    assert history["msq_compression"][-1] == pytest.approx(view.compression)
    assert history["msq_bits"][-1] == pytest.approx(view.average_bits)
    changes = view.history_of_bits()
    assert {change.path for change in changes} <= set(view.paths)
    for path in view.paths:
        own = [change for change in changes if change.path == path]
        assert [c.old for c in own][1:] == [c.new for c in own][:-1]
        assert not own or own[-1].new == view.bits[path]


def test_the_pull_is_there_while_it_is_wanted(searched):
    """And only then."""
    pulls = [float(loss) for strength, loss in searched[2] if strength > 0]
    rests = [float(loss) for strength, loss in searched[2] if strength == 0]
    assert pulls and max(pulls) > 0
    assert rests and max(rests) == 0.0


def test_the_report_tells_the_course(searched, tmp_path):
    view = msq.ModelView(searched[0])
    report = msq_tf.precision_report(view)
    text = str(report)
    assert all(path in text for path in view.paths)
    report.plot(tmp_path / "bits.png")
    assert (tmp_path / "bits.png").stat().st_size > 1000


def test_tensorboard_gets_every_layer(searched):
    tags = set()
    for file in searched[3].rglob("*tfevents*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            tags |= {value.tag for value in event.summary.value}
    for path in ("conv", "dw", "head"):
        assert any(path in tag and "bits" in tag for tag in tags), tags


def test_decisions_are_printed(searched):
    said = " ".join(searched[4].split())
    assert "MSQ epoch" in said and "target reached" in said


@pytest.mark.slow
def test_both_keras_search_alike(data):
    """One model, one order of data: one course and one end."""
    views = {}
    weights = tiny_model(keras).get_weights()
    for name, module in (("keras", keras), ("tf_keras", tf_keras)):
        plain = tiny_model(module)
        plain.set_weights(weights)
        if module is keras:
            model = view = msq_tf.quantize_model(plain)
            callback = msq_tf.MSQCallback
        else:
            scheme = msq.MSQQuantizeScheme(activation_bits=None)
            model = msq.quantize_model(plain, scheme)
            callback, view = msq.MSQCallback, msq.ModelView(model)
        compile_model(model, module)
        fit(model, data, callback(budget(), data, interval=1))
        views[name] = view
    ours, theirs = views["tf_keras"], views["keras"]
    assert ours.bits == theirs.bits
    assert len(ours.history_of_bits()) > 3
    for a, b in zip(
        ours.history_of_bits(), theirs.history_of_bits(), strict=True
    ):
        assert (a.step, a.path, a.old, a.new) == (b.step, b.path, b.old, b.new)
        assert a.cost == pytest.approx(b.cost, rel=2e-2, abs=1e-5)
        assert a.sensitivity == pytest.approx(b.sensitivity, rel=2e-2)
    for a, b in zip(
        ours.latent_weights(), theirs.latent_weights(), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=2e-4)


@pytest.mark.slow
def test_the_papers_rule_runs(data):
    model = new_model()
    rule = msq_tf.ThresholdRule(target_compression=6.0, alpha=0.9)
    fit(model, data, msq.MSQCallback(rule, data, interval=1))
    assert msq.ModelView(model).compression >= 6.0


@pytest.mark.slow
def test_several_steps_in_one_call(data):
    """`steps_per_execution` hides steps from callbacks."""
    model = compile_model(new_model(), steps_per_execution=2)
    fit(model, data, msq.MSQCallback(budget(), data, interval=2))
    assert msq.ModelView(model).compression >= 8.0


@pytest.mark.slow
def test_an_epoch_of_unknown_length(data):
    x, y = data
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(32)
    endless = batches.filter(lambda x, y: True)
    model = new_model()
    model.fit(
        endless,
        epochs=4,
        verbose=0,
        callbacks=[msq.MSQCallback(budget(), endless)],
    )
    assert msq.ModelView(model).compression >= 8.0


@pytest.mark.slow
def test_replicas_search_together(data):
    """Activations stay float: TFMOT's ranges cannot be kept in replicas."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = new_model(activation_bits=None)
    fit(model, data, msq.MSQCallback(budget(), data, interval=2))
    assert msq.ModelView(model).compression >= 8.0


@pytest.mark.slow
def test_a_resumed_search_for_bytes_goes_on(data, tmp_path, monkeypatch):
    """tf_keras saves no count of bytes: those of trained weights count."""
    rule = msq_tf.BudgetRule(target_bytes=3_000, device="min_size")

    class Kill(tf_keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 3:
                raise Killed

    def train(folder, *kill):
        tf_keras.utils.set_random_seed(1)
        model = new_model()
        backup = tf_keras.callbacks.BackupAndRestore(str(tmp_path / folder))
        fit(model, data, msq.MSQCallback(rule, data), backup, *kill)
        return model

    with pytest.raises(Killed):
        train("a", Kill())
    whole = train("b")
    count = predicting.file_overhead
    monkeypatch.setattr(
        predicting, "file_overhead", lambda *given: count(*given) - 16
    )
    resumed = train("a")
    for a, b in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)

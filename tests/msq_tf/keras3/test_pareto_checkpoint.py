"""What ParetoCheckpoint keeps, removes, refuses and finds again."""

import json
import re

import hypothesis
import keras
import numpy as np
import pytest
from hypothesis import strategies as st

import msq_tf
from msq_tf.keras3 import pareto_checkpoint
from msq_tf.keras3.pareto_front import ParetoFront
from tests.msq_tf.samples import budget
from tests.msq_tf.samples import fit
from tests.msq_tf.samples import new_model
from tests.msq_tf.samples import tiny_model


class Epochs:
    """Lets a callback see epochs of given metrics and widths."""

    def __init__(self, callback, qmodel):
        self.callback, self.qmodel = callback, qmodel
        callback.set_model(qmodel)
        callback.set_params({"verbose": 0})
        callback.on_train_begin()

    def end(self, epoch, metric, width):
        self.qmodel.set_bits(dict.fromkeys(self.qmodel.paths, width))
        self.callback.on_epoch_end(epoch, {"val_accuracy": metric, "loss": 1.0})


@pytest.fixture(scope="module")
def qmodel():
    return new_model()


def kept(folder):
    """`(epoch, metric, bits)` of the front; its files, and no other, exist."""
    front = msq_tf.pareto_front(folder)
    files = {entry.path.name for entry in front} | {pareto_checkpoint.INDEX}
    assert {path.name for path in folder.iterdir()} == files
    return [(e.epoch, e.metric, set(e.bits.values()).pop()) for e in front]


def test_what_is_beaten_goes(qmodel, tmp_path):
    epochs = Epochs(msq_tf.ParetoCheckpoint(tmp_path), qmodel)
    assert kept(tmp_path) == []
    epochs.end(0, 0.7, 8)
    epochs.end(1, 0.6, 4)
    assert kept(tmp_path) == [(2, 0.6, 4), (1, 0.7, 8)]
    epochs.end(2, 0.6, 4)  # as good and as small as the second
    epochs.end(3, 0.5, 5)
    epochs.end(4, float("nan"), 2)
    epochs.end(5, float("inf"), 2)
    assert kept(tmp_path) == [(2, 0.6, 4), (1, 0.7, 8)]
    epochs.end(6, 0.7, 3)
    assert kept(tmp_path) == [(7, 0.7, 3)]


@hypothesis.settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
    st.lists(
        st.tuples(st.integers(0, 6), st.integers(2, 8)), min_size=1, max_size=6
    )
)
def test_the_front_is_that_of_all_epochs(
    qmodel, tmp_path_factory, monkeypatch, points
):
    monkeypatch.setattr(qmodel, "save", lambda path: path.write_text(""))
    folder = tmp_path_factory.mktemp("front")
    epochs = Epochs(msq_tf.ParetoCheckpoint(folder), qmodel)
    for epoch, (metric, width) in enumerate(points):
        epochs.end(epoch, metric, width)
    front = {
        (metric, width)
        for metric, width in points
        if not any(
            m >= metric and w <= width and (m, w) != (metric, width)
            for m, w in points
        )
    }
    assert {(m, w) for _, m, w in kept(folder)} == front
    assert len(kept(folder)) == len(front)


def test_a_limit_spares_the_ends_and_what_matters_most(qmodel, tmp_path):
    callback = msq_tf.ParetoCheckpoint(tmp_path, max_to_keep=3)
    epochs = Epochs(callback, qmodel)
    for epoch, (metric, width) in enumerate(
        [(0.90, 8), (0.89, 6), (0.60, 5), (0.50, 2), (0.61, 5)]
    ):
        epochs.end(epoch, metric, width)
    assert kept(tmp_path) == [(4, 0.5, 2), (2, 0.89, 6), (1, 0.9, 8)]


def test_less_is_better_for_a_loss(qmodel, tmp_path):
    callback = msq_tf.ParetoCheckpoint(tmp_path, "loss")
    epochs = Epochs(callback, qmodel)
    for epoch, (loss, width) in enumerate([(1.0, 8), (2.0, 8), (0.5, 8)]):
        qmodel.set_bits(dict.fromkeys(qmodel.paths, width))
        epochs.callback.on_epoch_end(epoch, {"loss": loss})
    assert kept(tmp_path) == [(3, 0.5, 8)]


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [
        ("val_accuracy", "max"),
        ("val_auc", "max"),
        ("mean_io_u", "max"),
        ("val_error_head_f1_score", "max"),
        ("val_loss", "min"),
        ("accuracy_head_loss", "min"),
        ("val_mean_absolute_error", "min"),
        ("mae", "min"),
        ("categorical_crossentropy", "min"),
    ],
)
def test_the_direction_of_a_metric(monitor, mode):
    assert pareto_checkpoint.direction(monitor) == mode


def test_wrong_arguments_are_refused(qmodel, tmp_path):
    with pytest.raises(ValueError, match=r"max' or mode='min'.*'cosine"):
        msq_tf.ParetoCheckpoint(tmp_path, "cosine_similarity")
    with pytest.raises(ValueError, match="Received: mode='up'"):
        msq_tf.ParetoCheckpoint(tmp_path, mode="up")
    with pytest.raises(ValueError, match="at least 2.*max_to_keep=1"):
        msq_tf.ParetoCheckpoint(tmp_path, max_to_keep=1)
    with pytest.raises(ValueError, match="Received: Sequential 'tiny'"):
        Epochs(msq_tf.ParetoCheckpoint(tmp_path), tiny_model())
    epochs = Epochs(msq_tf.ParetoCheckpoint(tmp_path, "val_auc"), qmodel)
    with pytest.raises(
        ValueError, match=r"\['loss', 'val_accuracy'\].*monitor='val_auc'"
    ):
        epochs.end(0, 0.5, 8)


def test_a_wrong_directory_is_refused(qmodel, tmp_path):
    with pytest.raises(ValueError, match=r"no pareto\.json.*Received"):
        msq_tf.pareto_front(tmp_path)
    Epochs(msq_tf.ParetoCheckpoint(tmp_path), qmodel)
    with pytest.raises(ValueError, match="monitor='val_accuracy'.*'val_loss'"):
        Epochs(msq_tf.ParetoCheckpoint(tmp_path, "val_loss"), qmodel)
    for broken in ("{", "[]", "{}"):
        (tmp_path / pareto_checkpoint.INDEX).write_text(broken)
        with pytest.raises(ValueError, match="cannot be read.*Received"):
            Epochs(msq_tf.ParetoCheckpoint(tmp_path), qmodel)


def test_a_front_goes_on_where_a_kill_left_it(qmodel, tmp_path):
    epochs = Epochs(msq_tf.ParetoCheckpoint(tmp_path), qmodel)
    for epoch, (metric, width) in enumerate([(0.9, 8), (0.8, 6), (0.7, 4)]):
        epochs.end(epoch, metric, width)
    first, *_, last = sorted(tmp_path.glob("*.keras"))
    first.unlink()
    (tmp_path / f"partial-{last.name}").write_text("torn")
    (tmp_path / "epoch-0009-step-90.keras").write_text("not on the index")
    (tmp_path / "notes.txt").write_text("mine")

    epochs = Epochs(msq_tf.ParetoCheckpoint(tmp_path), qmodel)
    (tmp_path / "notes.txt").unlink()
    assert kept(tmp_path) == [(3, 0.7, 4), (2, 0.8, 6)]
    epochs.end(2, 0.6, 4)  # again, with another outcome
    assert kept(tmp_path) == [(3, 0.6, 4), (2, 0.8, 6)]
    epochs.end(2, float("nan"), 4)
    assert kept(tmp_path) == [(2, 0.8, 6)]


def test_a_failed_save_leaves_the_front_as_it_was(
    qmodel, tmp_path, monkeypatch
):
    def save(path):
        path.write_text("half")
        raise OSError("disk full")

    epochs = Epochs(msq_tf.ParetoCheckpoint(tmp_path), qmodel)
    epochs.end(0, 0.5, 8)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr(qmodel, "save", save)
        epochs.end(1, 0.9, 4)
    assert kept(tmp_path) == [(1, 0.5, 8)]


@pytest.mark.slow
def test_kept_models_are_those_of_their_epochs(tiny_data, tmp_path):
    """In a real search, whose result does not depend on what is kept."""
    seen = {}

    class Outputs(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            outputs = self.model(tiny_data[0][:8]).numpy()
            seen[epoch + 1] = outputs, self.model.bits, logs["val_accuracy"]

    searched, alone = new_model(), new_model()
    folder = tmp_path / "kept"
    fit(
        searched,
        tiny_data,
        msq_tf.MSQCallback(budget(), interval=1),
        msq_tf.ParetoCheckpoint(folder),
        Outputs(),
        validation_data=tiny_data,
    )
    fit(alone, tiny_data, msq_tf.MSQCallback(budget(), interval=1))
    for a, b in zip(searched.weights, alone.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)

    front = msq_tf.pareto_front(folder)
    assert front
    for entry in front:
        outputs, bits, metric = seen[entry.epoch]
        loaded = entry.load()
        np.testing.assert_array_equal(loaded(tiny_data[0][:8]), outputs)
        assert loaded.bits == entry.bits == bits
        assert entry.metric == metric
        assert entry.compression == loaded.compression
        report = msq_tf.precision_report(loaded)
        assert entry.packed_bytes == report.packed_bytes
        assert entry.step == 4 * entry.epoch
    assert front.best() == max(front, key=lambda entry: entry.metric)
    assert front.best(front[0].packed_bytes) == front[0]
    with pytest.raises(ValueError, match="that small.*max_bytes=1"):
        front.best(max_bytes=1)


@pytest.mark.parametrize("wrong", ["6000", -1, float("nan"), True, [1]])
def test_bytes_that_are_no_number_are_refused(wrong):
    with pytest.raises(ValueError, match=r"`max_bytes` must.*Received: max_"):
        ParetoFront().best(max_bytes=wrong)


@pytest.mark.slow
def test_the_example_of_the_page_runs(root, tiny_data, tmp_path, monkeypatch):
    page = (root / "docs" / "checkpoints.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert "double_checkpoint=True" in block
    monkeypatch.chdir(tmp_path)
    x, y = tiny_data
    names = {"msq_tf": msq_tf, "keras": keras, "qmodel": new_model()}
    names |= {"x": x, "y": y, "held_out": tiny_data}
    block = block.replace("epochs=30", "epochs=3")
    exec(compile(block, "checkpoints.md", "exec"), names)
    assert isinstance(names["qmodel"], msq_tf.MSQModel)
    assert names["qmodel"].bits == msq_tf.pareto_front("kept").best().bits


@pytest.mark.parametrize("value", [[0.5, 0.6], "high", None])
def test_a_metric_that_is_no_number_is_refused(qmodel, tmp_path, value):
    callback = msq_tf.ParetoCheckpoint(tmp_path, "val_f1_score")
    callback.set_model(qmodel)
    callback.set_params({"verbose": 0})
    callback.on_train_begin()
    with pytest.raises(ValueError, match="is no number.*'val_f1_score'"):
        callback.on_epoch_end(0, {"val_f1_score": value})


def test_a_metric_of_other_bits_is_not_kept(qmodel, tmp_path):
    callback = msq_tf.ParetoCheckpoint(tmp_path)
    epochs = Epochs(callback, qmodel)
    callback.on_epoch_begin(0)
    callback.on_test_end()
    changed = 2 if 8 in qmodel.bits.values() else 8
    epochs.end(0, 0.9, changed)
    assert kept(tmp_path) == []
    callback.on_epoch_begin(1)
    callback.on_test_end()
    epochs.end(1, 0.8, changed)
    assert kept(tmp_path) == [(2, 0.8, changed)]


def test_it_says_what_it_keeps(qmodel, tmp_path, capsys):
    callback = msq_tf.ParetoCheckpoint(tmp_path, verbose=1)
    epochs = Epochs(callback, qmodel)
    epochs.end(0, 0.5, 8)
    assert capsys.readouterr().out == ""
    callback.on_epoch_begin(1)
    out = " ".join(capsys.readouterr().out.split())
    assert "Kept epoch 1: val_accuracy 0.5000 at" in out
    index = json.loads((tmp_path / pareto_checkpoint.INDEX).read_text())
    assert index["monitor"] == "val_accuracy"

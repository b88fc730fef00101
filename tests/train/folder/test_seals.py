"""Whose the files of a run are, and whether they are whole."""

from __future__ import annotations

import zipfile

import keras
import numpy as np
import pytest

from train.folder import checkpoints
from train.folder import seals
from train.folder.workspace import MODEL
from train.folder.workspace import Workspace

IDENTITY = {"model": "tiny", "seed": 0, "targets": ["min_size"]}
PHASE = "msq"


def new_model():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(50)])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def claimed(folder, **changes):
    workspace = Workspace(folder)
    workspace.claim(IDENTITY | changes, resume=False, overwrite=False)
    return workspace


def train(workspace, epochs=2, sealed=True):
    """Ends some epochs, in each of which all weights grow by one."""
    model = new_model()
    callback = checkpoints.EpochCheckpoint(workspace, PHASE)
    callback.set_model(model)
    for epoch in range(epochs):
        for variable in model.trainable_variables:
            variable.assign_add(np.ones(variable.shape))
        callback.on_epoch_end(epoch, {"loss": 1.0})
    if not sealed:  # as earlier versions left them
        workspace.write_json("run.json", IDENTITY)
        for path in (workspace.folder / "checkpoints").rglob("*.h5"):
            path.write_bytes(path.read_bytes()[: -seals._SIZE])
    return model


def restored(workspace, **options):
    said = []
    model = new_model()
    done = checkpoints.restore(
        workspace, PHASE, model, say=said.append, **options
    )
    return done, model, said


def last(workspace, epoch=2):
    name = f"checkpoints/{PHASE}/epoch-{epoch:04d}.weights.h5"
    return workspace.path(name)


@pytest.mark.parametrize("sealed", [True, False])
def test_what_is_whole_is_loaded(tmp_path, sealed):
    workspace = claimed(tmp_path)
    want = train(workspace, sealed=sealed)
    done, model, said = restored(Workspace(tmp_path))
    assert (done, said) == (2, [])
    for ours, theirs in zip(model.weights, want.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def zeroed(data):
    middle = len(data) // 2
    return data[:middle] + bytes(512) + data[middle + 512 :]


DAMAGES = {
    "cut": lambda data: data[:100],
    "empty": lambda data: b"",
    "zeroed": zeroed,
    "of zeros": lambda data: bytes(len(data)),
    "without its seal": lambda data: data[: -seals._SIZE],
    "cut in its seal": lambda data: data[:-1],
    "one bit": lambda data: data[:3000] + b"\x55" + data[3001:],
    "not HDF5": lambda data: b"something else" * 100,
    "with more": lambda data: data + b"x",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, damage):
    workspace = claimed(tmp_path)
    train(workspace)
    path = last(workspace)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    done, model, said = restored(workspace)
    assert done == 1
    kernel = model.layers[0].bias
    np.testing.assert_array_equal(kernel, np.ones(kernel.shape))
    (line,) = said
    assert line.startswith(f"A checkpoint is damaged and left out: {path} (")
    assert [row["epoch"] for row in checkpoints.history(workspace)] == [1]


@pytest.mark.parametrize("damage", ["cut", "empty", "of zeros", "not HDF5"])
def test_damage_is_found_without_a_seal(tmp_path, damage):
    workspace = claimed(tmp_path)
    train(workspace, sealed=False)
    path = last(workspace)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    done, _, said = restored(workspace)
    assert done == 1 and len(said) == 1


def test_when_all_are_damaged_the_phase_begins_anew(tmp_path):
    workspace = claimed(tmp_path)
    train(workspace)
    for epoch in (1, 2):
        last(workspace, epoch).write_bytes(b"")
    done, model, said = restored(workspace)
    assert done == 0 and len(said) == 2
    for ours, theirs in zip(model.weights, new_model().weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert checkpoints.history(workspace) == []


def test_a_checkpoint_under_another_name_is_damaged(tmp_path):
    workspace = claimed(tmp_path)
    train(workspace)
    last(workspace, 1).replace(last(workspace, 3))
    done, _, said = restored(workspace)
    assert done == 2 and "epoch-0003" in said[0]


def test_another_runs_checkpoint_is_refused(tmp_path):
    ours, theirs = claimed(tmp_path / "a"), claimed(tmp_path / "b", seed=5)
    train(ours)
    train(theirs)
    last(theirs).replace(last(ours))
    with pytest.raises(ValueError, match="not of this run.*epoch-0002"):
        restored(ours)
    assert last(ours).exists()


def test_an_epoch_that_the_run_does_not_have_is_refused(tmp_path):
    workspace = claimed(tmp_path)
    train(workspace)
    last(workspace, 1).replace(last(workspace, 9999))
    with pytest.raises(ValueError, match=r"at most 4\. Received: .*epoch-9999"):
        restored(workspace, epochs=4)


def test_other_names_are_nobodys(tmp_path):
    workspace = claimed(tmp_path)
    train(workspace)
    last(workspace).with_name("epoch-x.weights.h5").write_text("mine")
    last(workspace).with_name("epoch-12.weights.h5").write_text("mine")
    assert restored(workspace)[0] == 2


def test_a_checkpoint_of_another_model_is_named(tmp_path):
    workspace = claimed(tmp_path)
    train(workspace, epochs=1)
    model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(7)])
    model.compile("adam", "mse")
    with pytest.raises(ValueError, match="cannot be loaded.*epoch-0001"):
        checkpoints.restore(workspace, PHASE, model)


@pytest.mark.parametrize(
    "line",
    ["[1]", "no JSON", "{}", '"a"', '{"phase": 1, "epoch": 1}', "[" * 10**5]
    + ['{"phase": "msq", "epoch": "1"}', "\xff\xfe"]
    + ['{"phase": "msq", "epoch": 1, "loss": "low"}'],
)
def test_a_history_that_is_none_is_named(tmp_path, line):
    workspace = claimed(tmp_path)
    train(workspace)
    path = workspace.path("history.jsonl")
    path.write_bytes(path.read_bytes() + line.encode("latin-1") + b"\n")
    with pytest.raises(ValueError, match=r"history\.jsonl, line 3 \(") as found:
        restored(workspace)
    assert "\n" not in str(found.value)


@pytest.fixture
def saved(tmp_path):
    workspace = claimed(tmp_path / "run")
    with workspace.sealing(MODEL) as path:
        new_model().save(path)
    return workspace


def test_a_sealed_model_is_an_ordinary_archive(saved):
    saved.check(MODEL)
    with zipfile.ZipFile(saved.path(MODEL)) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"msq_tf seal ")
    loaded = keras.models.load_model(saved.path(MODEL))
    np.testing.assert_array_equal(loaded.weights[0], new_model().weights[0])


@pytest.mark.parametrize("damage", ["cut", "empty", "zeroed", "one bit"])
def test_a_damaged_model_is_found(saved, damage):
    path = saved.path(MODEL)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(seals.DamagedError):
        saved.check(MODEL)
    # Without seals the archive's own sums tell.
    saved.write_json("run.json", IDENTITY)
    path.write_bytes(path.read_bytes()[: -seals._SIZE])
    with pytest.raises(seals.DamagedError):
        saved.check(MODEL)


def test_a_model_of_nobody_is_refused(saved):
    new_model().save(saved.path(MODEL))
    with pytest.raises(ValueError, match=r"not of this run.*model\.keras"):
        saved.check(MODEL)
    # A run of an earlier version has no seals.
    saved.write_json("run.json", IDENTITY)
    saved.check(MODEL)


def test_a_model_of_another_run_is_refused(saved, tmp_path):
    other = claimed(tmp_path / "other", seed=5)
    saved.path(MODEL).replace(other.path(MODEL))
    with pytest.raises(ValueError, match=r"not of this run.*another run's"):
        other.check(MODEL)

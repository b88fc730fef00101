"""The history of bits: kept with the model, complete, begun anew by hand."""

import math

import h5py
import keras
import numpy as np
import pytest

import msq_tf
from msq_tf.core import bit_history
from msq_tf.core.bit_history import BitChange
from msq_tf.rules.records import Candidate
from tests.msq_tf.samples import tiny_model

CHANGES = [
    BitChange(
        7, 0.5, "conv", 8, 6, 1e-3, 0.7, 2e-2, 1e-3, Candidate("dw", 7, 2e-3)
    ),
    BitChange(9, 0.75, "dw", 8, 7, math.nan, 0.5, 1e-2, math.inf, None),
    BitChange(
        12,
        1.5,
        "conv",
        6,
        7,
        -1e-4,
        math.nan,
        3e-2,
        0.0,
        Candidate("head", 7, math.nan),
    ),
]


def searched():
    """A model whose history holds `CHANGES`."""
    qmodel = msq_tf.quantize_model(tiny_model())
    for change in CHANGES:
        qmodel.search.change(change, qmodel.paths)
    return qmodel


def assert_same(changes, expected):
    # NaN is not equal to itself; its text is.
    assert list(map(repr, changes)) == list(map(repr, expected))


@pytest.mark.parametrize("change", CHANGES, ids=["drop", "unknown", "growth"])
def test_a_row_holds_the_whole_change(change):
    paths = ("conv", "dw", "head")
    row = bit_history.to_row(change, paths)
    assert row.shape == (bit_history.COLUMNS,)
    assert_same([bit_history.from_row(row, paths)], [change])


def test_changes_set_bits_and_are_told_in_order():
    qmodel = searched()
    assert qmodel.bits == {"conv": 7, "dw": 7, "head": 8}
    assert_same(qmodel.history_of_bits(), CHANGES)
    assert qmodel.search.course(qmodel.paths) == [
        [(0.0, 8), (0.5, 6), (1.5, 7)],
        [(0.0, 8), (0.75, 7)],
        [(0.0, 8)],
    ]


def test_the_history_is_saved_with_the_model(tmp_path):
    qmodel = searched()
    qmodel.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert_same(loaded.history_of_bits(), CHANGES)
    qmodel.save_weights(tmp_path / "m.weights.h5")
    fresh = msq_tf.quantize_model(tiny_model())
    fresh.load_weights(tmp_path / "m.weights.h5")
    assert_same(fresh.history_of_bits(), CHANGES)
    assert fresh.bits == qmodel.bits


def reasoned():
    """A model whose history has a reason for two of `CHANGES`."""
    qmodel = msq_tf.quantize_model(tiny_model())
    changes = [
        CHANGES[0]._replace(reason="cheap, \u2192 [early]"),
        CHANGES[1],
        CHANGES[2]._replace(reason="it came back"),
    ]
    for change in changes:
        qmodel.search.change(change, qmodel.paths)
    return qmodel, changes


def test_reasons_are_saved_with_the_model(tmp_path):
    qmodel, changes = reasoned()
    assert_same(qmodel.history_of_bits(), changes)
    qmodel.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert_same(loaded.history_of_bits(), changes)
    qmodel.save_weights(tmp_path / "m.weights.h5")
    fresh, _ = reasoned()
    # Those of another history are not mixed in.
    fresh.search.change(
        CHANGES[0]._replace(step=99, reason="other"), fresh.paths
    )
    fresh.load_weights(tmp_path / "m.weights.h5")
    assert_same(fresh.history_of_bits(), changes)
    # A resumed run is the one that was never stopped, to the byte.
    fresh.save_weights(tmp_path / "again.weights.h5")
    ours, theirs = (
        {name: store[name][()] for name in visited(store)}
        for store in (
            h5py.File(tmp_path / "m.weights.h5"),
            h5py.File(tmp_path / "again.weights.h5"),
        )
    )
    assert any("reasons" in name for name in ours)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name])


def visited(store):
    names = []
    store.visititems(
        lambda name, item: (
            names.append(name) if isinstance(item, h5py.Dataset) else None
        )
    )
    return names


def test_bits_set_by_hand_have_no_reasons():
    qmodel, changes = reasoned()
    qmodel.set_bits({"head": 3})
    qmodel.search.change(changes[0]._replace(reason=""), qmodel.paths)
    assert qmodel.history_of_bits()[0].reason == ""


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "[[1, 0, 4]]", '[["1", 0, 4, "a"]]', "[" * 10_000]
)
def test_damaged_reasons_are_refused(text):
    reasons = bit_history.Reasons()
    array = np.frombuffer(text.encode(), np.uint8)
    with pytest.raises(ValueError, match=r"Expected .*Received"):
        reasons.load(array)


def test_bits_set_by_hand_begin_a_new_history():
    qmodel = searched()
    qmodel.set_bits({"head": 3})
    assert qmodel.history_of_bits() == []
    assert qmodel.search.course(qmodel.paths) == [
        [(0.0, 7)],
        [(0.0, 7)],
        [(0.0, 3)],
    ]
    qmodel.search.change(CHANGES[0], qmodel.paths)
    assert_same(qmodel.history_of_bits(), CHANGES[:1])


def test_of_changes_without_end_the_newest_are_kept():
    qmodel = msq_tf.quantize_model(tiny_model())
    room = qmodel.search.log.numpy().reshape(-1, bit_history.COLUMNS).shape[0]
    made = [
        BitChange(
            step,
            step / 10,
            "conv",
            *((8, 4) if step % 2 else (4, 8)),
            *[0.0] * 4,
            None,
        )
        for step in range(1, room + 6)
    ]
    for change in made:
        before = qmodel.search.logged()
        qmodel.search.change(change, qmodel.paths)
        added = bit_history.newer(before, qmodel.search.logged())
        assert_same([bit_history.from_row(*added, qmodel.paths)], [change])
    assert_same(qmodel.history_of_bits(), made[-room:])
    course, *others = qmodel.search.course(qmodel.paths)
    # It begins where the first one that is kept began.
    assert course[:2] == [(0.0, made[-room].old), (0.6, made[-room].new)]
    assert course[-1][1] == qmodel.bits["conv"]
    assert others == [[(0.0, 8)], [(0.0, 8)]]


def test_what_is_newer_where_nothing_was_or_is():
    none, rows = np.empty((0, 3)), np.arange(6.0).reshape(2, 3)
    rows[0, 1] = math.nan
    assert len(bit_history.newer(none, none)) == 0
    assert len(bit_history.newer(rows, rows)) == 0
    np.testing.assert_array_equal(bit_history.newer(none, rows), rows)

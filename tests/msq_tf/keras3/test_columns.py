"""Inputs whose columns one grid can't hold."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from msq_tf.keras3 import columns

L = keras.layers
SCALES = np.logspace(-3, 4, 8)


def norm(mean, variance):
    return L.Normalization(mean=mean, variance=variance)


def sites(layer, shape=(8,), **config):
    model = keras.Sequential([keras.Input(shape), layer, L.Dense(2)])
    config = msq_tf.MSQConfig(**{"activation_bits": 8, **config})
    qmodel = msq_tf.quantize_model(model, config)
    return [site.path for site in qmodel.activations.sites]


def batch_norm(variance):
    layer = L.BatchNormalization()
    layer.build((None, 8))
    layer.moving_variance.assign(variance)
    return layer


@pytest.mark.parametrize(
    ("layer", "own"),
    [
        (lambda: norm(np.zeros(8), np.ones(8)), True),
        (lambda: norm(np.zeros(8), SCALES**2), False),
        # A year varies by little beside its mean.
        (lambda: norm(np.full(8, 2000.0), np.full(8, 5.0)), False),
        # Pixels.
        (lambda: norm([120.0] * 8, [58.0**2] * 8), True),
        # A column that is always zero is zero on any grid; one that always
        # is 0.3 is not.
        (lambda: norm(np.zeros(8), [0.0] * 4 + [1.0] * 4), True),
        (lambda: norm([0.3] + [0.0] * 7, [0.0] + [1.0] * 7), False),
        (lambda: L.BatchNormalization(), True),
        (lambda: batch_norm(SCALES**2), False),
        (lambda: L.Rescaling(1 / 127.5, offset=-1.0), True),
        (lambda: L.Rescaling((1.0 / SCALES).tolist()), False),
    ],
)
def test_such_an_input_is_not_rounded(layer, own):
    found = sites(layer())
    assert ("input" in found) == own
    assert len(found) == 2 + own


def test_more_bits_resolve_more():
    layer = norm(np.zeros(8), [1.0] * 4 + [1e4] * 4)
    assert "input" not in sites(layer)
    assert "input" in sites(layer, activation_bits=16)


def test_what_something_else_reads_is_rounded():
    inputs = keras.Input((8,))
    x = norm(np.zeros(8), SCALES**2)(inputs)
    x = L.Concatenate()([x, inputs])
    qmodel = msq_tf.quantize_model(
        keras.Model(inputs, L.Dense(2)(x)), msq_tf.MSQConfig(activation_bits=8)
    )
    assert qmodel.activations.sites[0].path == "input"


def test_what_is_cut_into_bins_is_not_rounded():
    inputs = keras.Input((4,))
    x = L.Discretization(bin_boundaries=[0.0, 0.01, 1.0])(inputs)
    x = L.Flatten()(L.Embedding(4, 3)(x))
    qmodel = msq_tf.quantize_model(
        keras.Model(inputs, L.Dense(2, name="d")(x)),
        msq_tf.MSQConfig(activation_bits=8),
    )
    assert "input" not in [s.path for s in qmodel.activations.sites]


def test_a_device_is_warned_of_before_the_training():
    layer = norm(np.zeros(8), SCALES**2)
    with pytest.warns(
        UserWarning, match=r"Columns \[0, 1, .*'edgetpu'"
    ) as told:
        sites(layer, targets=("cpu_int8", "edgetpu"))
    assert told[0].filename == __file__
    sites(layer, targets=("cpu_int8",))


def plain(shape=(3,), named=False, **config):
    inputs = keras.Input(shape, name="a")
    x = L.Dense(2)(inputs)
    if named:
        other = keras.Input(shape, name="b")
        inputs, x = {"a": inputs, "b": other}, x + L.Dense(2)(other)
    model = keras.Model(inputs, x)
    config = msq_tf.MSQConfig(**{"activation_bits": 8, **config})
    qmodel = msq_tf.quantize_model(model, config)
    qmodel.compile("sgd", "mse")
    return qmodel


def table(*sizes, shape=(100,)):
    x = np.random.default_rng(0).normal(size=(*shape, len(sizes)))
    return (x * sizes).astype(np.float32)


def fit(qmodel, x):
    first = x["b"] if isinstance(x, dict) else x
    y = np.zeros((*first.shape[:-1], 2), np.float32)
    qmodel.fit(x, y, verbose=0)


@pytest.mark.first(1)
@pytest.mark.parametrize("shape", [(3,), (5, 3)])
def test_columns_that_training_loses_are_named(shape):
    qmodel = plain(shape)
    x = 1e-3 * table(1.0, 1000.0, 1.0, shape=(100, *shape[:-1]))
    message = r"Columns \[0, 2\] of input 0.*Normalization.*targets.*Received"
    with pytest.warns(UserWarning, match=message):
        fit(qmodel, x)
    # Once.
    fit(qmodel, x)


@pytest.mark.slow
def test_columns_of_one_of_several_inputs():
    x = {"b": table(1.0, 500.0, 500.0), "a": table(1.0, 1.0, 1.0)}
    with pytest.warns(UserWarning, match=r"Columns \[0\] of input 1"):
        fit(plain(named=True), x)


@pytest.mark.first(1)
@pytest.mark.parametrize(
    "x",
    [
        table(1.0, 20.0, 0.0),
        # Rare, and as large as the others.
        np.eye(3, dtype=np.float32)[np.r_[0, 0, np.ones(98, int)]],
        # One sample is far out.
        np.concatenate([table(1.0, 1.0, 1.0), [[0.0, 1e4, 0.0]]]),
        table(1.0, 1000.0, 1.0)[:8],
        # Flags beside ages: two values need no more than two codes.
        np.stack([np.arange(100) % 2, np.arange(100), np.zeros(100)], -1),
        # Hardly ever anything, and as large as the rest then.
        np.stack(
            [np.r_[np.zeros(989), np.linspace(0.001, 1.0, 11)]]
            + [np.linspace(0, 1, 1000)] * 2,
            -1,
        ),
    ],
)
def test_columns_of_like_size(x):
    fit(plain(), x.astype(np.float32))


def test_columns_that_no_grid_holds():
    x = table(1.0, 1000.0, 1.0)
    fit(plain(activation_bits=None), x)
    fit(plain(activation_bits=16), x)


def streamed(x, kind):
    y = np.zeros((100, 2), np.float32)
    if kind == "tensor":
        return (tf.constant(x), y)
    if kind == "dataset":
        return (tf.data.Dataset.from_tensor_slices((x, y)).batch(50),)

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, i):
            return x[i::2], y[i::2]

    return (Batches(),)


@pytest.mark.first(1)
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("kind", ["dataset", "sequence", "tensor"])
def test_columns_of_what_a_search_reads(kind, given):
    data = streamed(table(1.0, 1000.0, 1.0), kind)
    rule = msq_tf.BudgetRule(target_bits=31)
    own = data[0] if given and kind != "tensor" else None
    callback = msq_tf.MSQCallback(rule, data=own, hessian=False, verbose=0)
    qmodel = plain()
    with pytest.warns(UserWarning, match=r"Columns \[0, 2\] of input 0"):
        qmodel.fit(*data, shuffle=False, verbose=0, callbacks=[callback])


@pytest.mark.first(1)
@pytest.mark.parametrize("kind", ["dataset", "sequence"])
def test_a_stream_is_not_read_for_it(kind):
    data = streamed(table(1.0, 1000.0, 1.0), kind)
    plain().fit(*data, shuffle=False, verbose=0)


@pytest.mark.parametrize("kind", ["dataset", "sequence", "array"])
def test_columns_of_what_ranges_are_taken_of(kind):
    x = table(1.0, 1000.0, 1.0)
    data = x if kind == "array" else streamed(x, kind)[0]
    with pytest.warns(UserWarning, match=r"Columns \[0, 2\] of input 0"):
        msq_tf.calibrate(plain(), data)


@pytest.mark.slow
def test_a_first_batch_norm_without_moments():
    model = keras.Sequential(
        [keras.Input((3,)), L.BatchNormalization(), L.Dense(2)]
    )
    config = msq_tf.MSQConfig(activation_bits=8)
    qmodel = msq_tf.quantize_model(model, config)
    qmodel.compile("sgd", "mse")
    with pytest.warns(UserWarning, match=r"Columns \[0, 2\] of input 0"):
        fit(qmodel, table(1.0, 1000.0, 1.0))


class Frame:
    """As much of a table of pandas as is asked for."""

    def to_numpy(self):
        return table(1.0, 1000.0).astype(np.float64)


def test_columns_of_a_frame_and_of_what_is_not_finite():
    with pytest.warns(UserWarning, match=r"Columns \[0\]"):
        assert columns.warn_of_data({0: Frame()}, 8, 1)
    for wrong in (np.nan, np.inf):
        x = table(1.0, 1000.0)
        x[:50, 1] = wrong
        assert not columns.warn_of_data({0: x}, 8, 1)


def test_columns_that_the_model_normalizes():
    x = table(1.0, 1000.0, 1.0)
    layer = L.Normalization()
    layer.adapt(x)
    model = keras.Sequential([keras.Input((3,)), layer, L.Dense(2)])
    config = msq_tf.MSQConfig(activation_bits=8)
    qmodel = msq_tf.quantize_model(model, config)
    qmodel.compile("sgd", "mse")
    fit(qmodel, x)


@pytest.mark.slow
def test_such_a_model_trains_as_well_as_in_float():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(1000, 8))
    x = (z * SCALES).astype(np.float32)
    y = (np.sin(2 * z[:, 0]) + z[:, 1] * z[:, 2])[:, None].astype(np.float32)
    layer = L.Normalization()
    layer.adapt(x)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((8,)), layer, L.Dense(32, activation="relu"), L.Dense(1)]
    )
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.fit(x, y, epochs=20, verbose=0)
    qmodel = msq_tf.quantize_model(model, msq_tf.MSQConfig(activation_bits=8))
    qmodel.compile(keras.optimizers.Adam(0.001), "mse")
    qmodel.fit(x, y, epochs=2, verbose=0)
    # On one grid for all columns it was 0.57.
    assert model.evaluate(x, y, verbose=0) < 0.1 * y.var()
    assert qmodel.evaluate(x, y, verbose=0) < 0.1 * y.var()

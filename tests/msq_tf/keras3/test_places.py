"""Positions, and layers that take no open length, in a trace."""

from __future__ import annotations

import keras
import pytest

import msq_tf

L, ops = keras.layers, keras.ops
CONFIG = msq_tf.MSQConfig(activation_bits=8)


@keras.saving.register_keras_serializable(package="tests")
class Steps(L.Layer):
    """Adds up over time, step by step, as RWKV does it."""

    def build(self, shape):
        """Creates a dense layer."""
        self.dense = L.Dense(shape[-1])
        self.dense.build(shape)

    def call(self, x):
        """Takes as many steps as the input is long."""
        state = x[:, 0] * 0.0
        for step in range(x.shape[1]):
            state = ops.tanh(state + self.dense(x[:, step]))
        return state

    def compute_output_shape(self, shape):
        """One state."""
        return shape[0], shape[-1]


@keras.saving.register_keras_serializable(package="tests")
class Never(L.Layer):
    """Takes no length at all that is open."""

    def call(self, x):
        """Refuses in words of its own."""
        raise RuntimeError("no such length")

    def compute_output_spec(self, x):
        """Says what it would return."""
        return keras.KerasTensor(x.shape, x.dtype)


def sites(model):
    found = msq_tf.quantize_model(model, CONFIG).activations.sites
    return [site.path for site in found]


def test_a_loop_over_an_open_length_is_traced():
    inputs = keras.Input((None, 4))
    outputs = L.Dense(2)(Steps()(L.Dense(4)(inputs)))
    model = keras.Model(inputs, outputs)
    assert any("steps" in path for path in sites(model))


def test_what_is_never_traced_says_why():
    inputs = keras.Input((None, 4))
    model = keras.Model(inputs, L.Dense(2)(Never()(inputs)))
    with pytest.raises(RuntimeError, match="no such length"):
        sites(model)


def test_lengths_are_positions_and_features_are_none():
    ids = keras.Input((6,), dtype="int32", name="ids")
    count = ops.sum(ops.cast(ops.not_equal(ids, 0), "int32"), axis=1)
    half = ops.floor(ops.cast(count, "float32") * 0.5)
    kept = ops.less(ops.arange(6)[None], ops.cast(half, "int32")[:, None])
    x = L.Embedding(20, 8)(ids)
    x = ops.where(kept[..., None], x, 0.0)
    outputs = L.Dense(3)(L.Flatten()(x))
    found = sites(keras.Model(ids, outputs))
    assert not any("floor" in path or "multiply" in path for path in found)
    # Numbers of a table are features, though they are whole.
    age = keras.Input((3,), dtype="int32", name="age")
    scaled = L.Rescaling(0.01)(age)
    found = sites(keras.Model(age, L.Dense(3)(scaled)))
    assert any("rescaling" in path for path in found)


def test_a_byte_may_be_a_pixel():
    inputs = keras.Input((4,), dtype="uint8")
    x = L.Rescaling(1 / 255)(inputs)
    found = sites(keras.Model(inputs, L.Dense(3)(x)))
    assert any("rescaling" in path for path in found)

"""Which channels can go, and why others can't."""

import keras
import pytest

import msq_tf
from tests.msq_tf.channel_samples import residual_model

layers = keras.layers


def groups_of(*stack, shape=(8, 8, 4)):
    model = keras.Sequential([keras.Input(shape), *stack])
    found = msq_tf.channel_groups(msq_tf.quantize_model(model))
    return {group.paths: group for group in found}


def test_additions_tie_what_they_read():
    qmodel = msq_tf.quantize_model(residual_model())
    found = {g.paths: g for g in msq_tf.channel_groups(qmodel)}
    assert list(found) == [
        ("stem", "b"),
        ("a",),
        ("c", "shortcut"),
        ("head",),
    ]
    assert [g.channels for g in found.values()] == [8, 12, 16, 5]
    assert found["head",].reason == "is an output of the model"
    assert not any(g.reason for p, g in found.items() if p != ("head",))
    # Of a channel of `a`: what makes it and what reads it.
    assert set(found["a",].elements) == {3 * 3 * 8 + 3 * 3 * 8}


KEEPING = {
    "relu": lambda: layers.ReLU(),
    "sigmoid": lambda: layers.Activation("sigmoid"),
    "pooling": lambda: layers.MaxPooling2D(),
    "padding": lambda: layers.ZeroPadding2D(1),
    "dropout": lambda: layers.Dropout(0.5),
    "batch norm": lambda: layers.BatchNormalization(),
    "depthwise": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
    "upsampling": lambda: layers.UpSampling2D(),
    "transposed": lambda: layers.Conv2DTranspose(6, 2, activation="gelu"),
    "separable": lambda: layers.SeparableConv2D(6, 3, depth_multiplier=2),
    "nested": lambda: keras.Sequential(
        [keras.Input((6, 6, 8)), layers.Conv2D(6, 1), layers.ReLU()]
    ),
}


@pytest.mark.parametrize("kind", KEEPING)
def test_channels_go_through(kind):
    found = groups_of(
        layers.Conv2D(8, 3, name="first"),
        KEEPING[kind](),
        layers.Flatten(),
        layers.Dense(3, name="last"),
    )
    assert found["first",].reason == ""
    assert found["last",].reason == "is an output of the model"


STOPPING = {
    "grouped": (lambda: layers.Conv2D(8, 1, groups=2, name="x"), "Conv2D 'x'"),
    "layer norm": (
        lambda: layers.LayerNormalization(name="x"),
        "LayerNormalization 'x'",
    ),
    "softmax": (lambda: layers.Softmax(name="x"), "Softmax 'x'"),
    "softmax inside": (
        lambda: layers.Conv2D(4, 1, activation="softmax", name="x"),
        "Conv2D 'x'",
    ),
    "a function": (
        lambda: layers.Activation(lambda x: x - keras.ops.mean(x), name="x"),
        "Activation 'x'",
    ),
    "another axis": (
        lambda: layers.BatchNormalization(axis=1, name="x"),
        "BatchNormalization 'x'",
    ),
    "moved": (lambda: layers.Permute((3, 1, 2), name="x"), "Permute 'x'"),
    "mixed": (lambda: layers.Reshape((6, 12, 4), name="x"), "Reshape 'x'"),
    "first": (
        lambda: layers.AveragePooling2D(
            2, data_format="channels_first", name="x"
        ),
        "AveragePooling2D 'x'",
    ),
}


@pytest.mark.parametrize("kind", STOPPING)
def test_channels_stay_where_something_reads_them_together(kind):
    make, name = STOPPING[kind]
    found = groups_of(
        layers.Conv2D(8, 3, name="first"),
        make(),
        layers.Flatten(),
        layers.Dense(3),
    )
    reason = f"is read by {name}, which needs all channels"
    assert found["first",].reason == reason


def test_a_subclass_is_not_known():
    @keras.saving.register_keras_serializable(package="channel_tests")
    class Doubled(layers.Dense):
        def call(self, inputs):
            return super().call(keras.ops.flip(inputs, -1))

    found = groups_of(layers.Dense(8, name="first"), Doubled(3), shape=(4,))
    assert "Doubled" in found["first",].reason


def test_shared_layers_tie_what_they_read():
    x = keras.Input((6,))
    shared = layers.Dense(5, name="shared")
    a, b = (layers.Dense(4, name=name)(x) for name in "ab")
    y = layers.Concatenate()([shared(a), shared(b)])
    model = keras.Model(x, layers.Dense(2, name="head")(y))
    found = msq_tf.channel_groups(msq_tf.quantize_model(model))
    assert [g.paths for g in found] == [("a", "b"), ("shared",), ("head",)]


def test_the_channels_of_a_subclassed_model_are_not_known(subclassed):
    qmodel = msq_tf.quantize_model(subclassed)
    with pytest.raises(ValueError, match="graphs of layers alone.*'sub'"):
        msq_tf.channel_groups(qmodel)


def test_a_float_model_is_refused():
    with pytest.raises(ValueError, match="takes a model from .*Functional"):
        msq_tf.channel_groups(residual_model())

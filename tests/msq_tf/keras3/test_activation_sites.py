"""Sites inside of layers, on fixed grids, and on those of other sites."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from msq_tf.keras3.activation_sites import Site
from msq_tf.keras3.activations import ActivationPlan
from msq_tf.keras3.activations import ActivationQuantizers
from msq_tf.keras3.activations import fixed_range

L = keras.layers
CONFIG = msq_tf.MSQConfig(activation_bits=8)


def sites(*layers, shape=(8, 8, 3)):
    model = keras.Sequential([keras.Input(shape), *layers])
    return msq_tf.quantize_model(model, CONFIG).activations.sites


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("activation", "own"),
    [
        ("linear", False),
        ("relu", False),
        ("relu6", False),
        (functools.partial(keras.activations.relu, max_value=6.0), False),
        (lambda x: tf.nn.relu(x), False),
        ("softmax", True),
        ("sigmoid", True),
        ("tanh", True),
        ("swish", True),
        ("gelu", True),
        ("elu", True),
        ("hard_swish", True),
        ("leaky_relu", True),
        ("exponential", True),
        ("softplus", True),
        (lambda x: keras.ops.relu(x) + 1.0, True),
    ],
)
def test_what_an_activation_reads_is_a_site(activation, own):
    found = sites(L.Dense(4, activation=activation, name="d"), shape=(3,))
    inner = [site.path for site in found if site.place == "preactivation"]
    assert inner == ["d/preactivation"] * own


@pytest.mark.parametrize(
    "layer",
    [
        lambda: L.Conv2D(4, 3, activation="tanh"),
        lambda: L.DepthwiseConv2D(3, activation="tanh"),
        lambda: L.SeparableConv2D(4, 3, activation="tanh"),
        lambda: L.Conv2DTranspose(4, 3, activation="tanh"),
        lambda: L.EinsumDense("abcd,de->abce", (8, 8, 4), activation="tanh"),
        lambda: L.Dense(4, activation="tanh"),
    ],
)
def test_of_every_layer_that_has_one(layer):
    inner, outer = sites(layer(), L.Conv2D(2, 1))[-3:-1]
    assert (inner.place, inner.fixed) == ("preactivation", "")
    assert (outer.place, outer.fixed) == ("output", "tanh")


def test_of_an_activation_layer_there_is_none():
    found = sites(L.Conv2D(4, 3), L.Activation("tanh"), L.Conv2D(4, 3))
    assert [(s.place, s.fixed) for s in found] == [
        ("output", ""),
        ("output", ""),
        ("output", "tanh"),
        ("output", ""),
    ]


def test_what_ends_in_probabilities_keeps_its_logits():
    found = sites(
        L.Flatten(), L.Dense(4, activation="softmax"), L.Reshape((2, 2))
    )
    assert [site.fixed for site in found] == ["", ""]
    x = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    model = keras.Sequential(
        [keras.Input((5,)), L.Dense(3, activation="softmax")]
    )
    # Far from a half, where probabilities round to 0 and 1.
    model.layers[0].kernel.assign(100.0 * model.layers[0].kernel)
    qmodel = msq_tf.quantize_model(model, CONFIG)
    qmodel.compile("sgd", "sparse_categorical_crossentropy")
    history = qmodel.fit(x, np.arange(8) % 3, verbose=0).history
    assert history["loss"][0] > 20.0


def test_a_recurrent_layer_has_a_range_of_its_own():
    found = sites(L.LSTM(4, return_sequences=True), L.Dense(2), shape=(5, 3))
    assert [(s.place, s.fixed) for s in found] == [("output", "")] * 3


def test_averages_share_the_grid_of_what_they_average():
    found = sites(
        L.Conv2D(4, 3, activation="relu"), L.AveragePooling2D(2), L.Conv2D(2, 1)
    )
    assert [site.like for site in found] == [-1, -1, 1, -1]
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), L.ReLU(), L.AveragePooling2D(2)]
        + [L.Conv2D(1, 1, name="c")]
    )
    qmodel = msq_tf.quantize_model(model, CONFIG)
    assert len(qmodel.activation_quantizers.sites) == 3
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    qmodel(x, training=True)
    seen = {}

    def tap(site, value):
        seen[site] = value.numpy()
        return value

    with qmodel.integer_scope(tap):
        model(x, training=False)
    ranges = qmodel.activation_quantizers.trained_ranges()
    unit = (ranges[1].high - ranges[1].low) / 255
    units = seen[2] / unit
    np.testing.assert_allclose(units, np.round(units), atol=1e-3)


class _Own(L.Layer):
    """A layer of a user's, whose name says nothing."""


@pytest.mark.parametrize(
    ("resize", "like"),
    [
        (L.Resizing(5, 6), [-1, 0]),
        (L.Resizing(5, 6, interpolation="nearest"), [-1]),
        (L.Resizing(5, 6, crop_to_aspect_ratio=True), [-1, 0]),
        (L.Resizing(5, 6, pad_to_aspect_ratio=True), [-1, 0]),
        (
            L.Resizing(5, 6, pad_to_aspect_ratio=True, fill_value=9.0),
            [-1, -1],
        ),
        (L.Resizing(5, 6, interpolation="bicubic"), [-1, -1]),
        (lambda x: keras.ops.image.resize(x, (5, 6)), [-1, 0]),
        (lambda x: keras.ops.average_pool(x, 2), [-1, 0]),
        (lambda x: keras.ops.max_pool(x, 2), [-1]),
        (type("Resize", (_Own,), {"call": lambda self, x: 2 * x})(), [-1, -1]),
    ],
)
def test_what_is_resized_stays_on_its_grid(resize, like):
    """As kernels write it, however it is spelled."""
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, L.Conv2D(2, 1)(resize(inputs)))
    found = msq_tf.quantize_model(model, CONFIG).activations.sites
    assert [site.like for site in found] == [*like, -1]


def test_a_swish_is_a_product_of_two_integers():
    found = sites(L.Conv2D(4, 3, activation="swish"), L.Conv2D(2, 1))
    assert [(s.place, s.fixed) for s in found[1:4]] == [
        ("preactivation", ""),
        ("gate", "sigmoid"),
        ("output", ""),
    ]


@pytest.mark.parametrize(
    ("activation", "bits", "scale"),
    [
        ("softmax", 8, 2.0**-8),
        ("tanh", 8, 2.0**-7),
        ("sigmoid", 16, 2.0**-15),
        ("tanh", 16, 2.0**-15),
    ],
)
def test_fixed_grids_are_those_of_the_kernels(activation, bits, scale):
    low, high = fixed_range(activation, bits)
    levels = 2**bits - (2 if bits == 16 else 1)
    assert np.float32(high - low) / np.float32(levels) == scale


def test_infinite_numbers_have_no_part_in_a_range():
    layer = ActivationQuantizers(["a"], 8)
    lowest = np.finfo(np.float32).min
    x = tf.constant([1.0, -2.0, -np.inf, np.inf, lowest])
    value = layer(x, index=0, training=True)
    (found,) = layer.trained_ranges()
    assert (found.low, found.high) == (-2.0, 1.0)
    assert np.isfinite(value).all()
    assert float(value[2]) == float(value[4]) == min(value.numpy())
    unseen = ActivationQuantizers(["a"], 8)
    assert np.isfinite(unseen(x, index=0)).all()
    # A batch that holds NaN has no part in it, either.
    layer(tf.constant([np.nan, 9.0]), index=0, training=True)
    assert layer.trained_ranges() == [found]


def test_padding_with_infinity_moves_numbers():
    x = inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(4, 3, name="c")(x)
    sides = [[0, 0], [1, 1], [1, 1], [0, 0]]
    x = keras.ops.pad(x, sides, constant_values=float("-inf"))
    x = L.Conv2D(2, 1, name="d")(L.MaxPooling2D(3, 2)(x))
    x = keras.ops.pad(x, sides, constant_values=5.0)
    model = keras.Model(inputs, L.Flatten()(x))
    found = msq_tf.quantize_model(model, CONFIG).activations.sites
    assert [s.path for s in found][:3] == ["input", "c", "d"]
    # Five may lie outside of the grid of what is padded.
    assert len(found) == 4


@pytest.mark.parametrize(
    "field", [{"place": "inside"}, {"fixed": "relu"}], ids=str
)
def test_made_up_sites(field):
    with pytest.raises(ValueError, match="is unknown.*Received"):
        Site("a", 0, 0, **field)


def test_a_range_of_a_later_site():
    with pytest.raises(ValueError, match="earlier one. Received"):
        ActivationPlan((Site("a", 0, 0, like=0),), 8, "ema")


def test_activations_are_the_layers_own_again(tmp_path):
    model = keras.Sequential([keras.Input((3,)), L.Dense(4, activation="tanh")])
    function = model.layers[0].activation
    qmodel = msq_tf.quantize_model(model, CONFIG)
    qmodel(np.ones((2, 3), np.float32), training=True)
    assert model.layers[0].activation is function

    with (
        pytest.raises(Exception, match="shape|Matrix"),
        qmodel._activation_scope(False, qmodel._steps_now()),
    ):
        model.layers[0].call(np.ones((2, 9), np.float32))
    assert model.layers[0].activation is function
    qmodel.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.activations == qmodel.activations


@pytest.mark.first(1)
@pytest.mark.parametrize("first", ["numbers", "words"])
@pytest.mark.parametrize("kind", ["dict", "list"])
def test_inputs_in_a_dictionary_go_by_name(kind, first):
    """To a model that was made of a list, in whatever order."""
    numbers = keras.Input((5,), name="numbers")
    words = keras.Input((1,), dtype="int32", name="words")
    x = L.Flatten()(L.Embedding(90, 4)(words))
    x = L.Dense(1)(L.Concatenate()([numbers, x]))
    inputs = [numbers, words] if first == "numbers" else [words, numbers]
    qmodel = msq_tf.quantize_model(keras.Model(inputs, x), CONFIG)
    qmodel.compile("sgd", "mse")
    rng = np.random.default_rng(0)
    data = {
        "numbers": rng.uniform(-1, 2, size=(32, 5)).astype(np.float32),
        "words": rng.integers(50, 90, size=(32, 1)).astype(np.int32),
    }
    given = data if kind == "dict" else [data[x.name] for x in inputs]
    qmodel.fit(given, np.zeros((32, 1)), verbose=0)
    found = qmodel.activation_quantizers.trained_ranges()[0]
    assert -1.0 <= found.low < -0.5 and 1.5 < found.high <= 2.0


@pytest.mark.parametrize("name", ["sigmoid", "softmax", "tanh"])
@pytest.mark.parametrize("spelled", ["layer", "operation"])
def test_an_activation_has_the_grid_of_its_kernel_however_spelled(
    name, spelled
):
    inputs = keras.Input((6,))
    h = keras.layers.Dense(6)(inputs)
    if spelled == "layer":
        x = keras.layers.Activation(name)(h)
    else:
        x = getattr(keras.ops, name)(h)
    outputs = keras.layers.Dense(2)(h * 2.0 + x)
    qmodel = msq_tf.quantize_model(
        keras.Model(inputs, outputs), msq_tf.MSQConfig(activation_bits=8)
    )
    assert [s.fixed for s in qmodel.activations.sites if s.fixed] == [name]

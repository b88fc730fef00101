"""`BudgetRule` with default arguments reaches its target on any network."""

import keras
import numpy as np
import pytest

import msq_tf
from train.models import builders

EPOCHS = 3
BATCH = 8
CLASSES = 4


def keyword_spotting():
    """A depthwise-separable CNN on spectrograms, as MLPerf Tiny's."""
    inputs = keras.Input((24, 10, 1))
    x = keras.layers.Conv2D(
        32, (10, 4), strides=2, padding="same", use_bias=False, name="stem"
    )(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.ReLU()(x)
    for i in range(4):
        x = keras.layers.DepthwiseConv2D(
            3, padding="same", use_bias=False, name=f"dw{i}"
        )(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
        x = keras.layers.Conv2D(32, 1, use_bias=False, name=f"pw{i}")(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="logits")(x))


def vision_transformer():
    """Patches, two pre-norm blocks, and a mean over tokens."""
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(24, 4, strides=4, name="patches")(inputs)
    x = keras.layers.Reshape((16, 24))(x)
    for i in range(2):
        y = keras.layers.LayerNormalization()(x)
        y = keras.layers.MultiHeadAttention(2, 12, name=f"attention{i}")(y, y)
        x = keras.layers.Add()([x, y])
        y = keras.layers.LayerNormalization()(x)
        y = keras.layers.Dense(48, activation="gelu", name=f"up{i}")(y)
        y = keras.layers.Dense(24, name=f"down{i}")(y)
        x = keras.layers.Add()([x, y])
    x = keras.layers.LayerNormalization()(x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="logits")(x))


def autoencoder():
    """An MLP that reproduces its input, as MLPerf Tiny's anomaly detector."""
    inputs = keras.Input((40,))
    x = inputs
    for i, units in enumerate((32, 32, 8, 32, 32)):
        x = keras.layers.Dense(units, activation="relu", name=f"dense{i}")(x)
    return keras.Model(inputs, keras.layers.Dense(40, name="output")(x))


def one_layer():
    inputs = keras.Input((12,))
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="only")(inputs))


BUILDERS = {
    "resnet8": lambda: builders.build("resnet8", (16, 16, 3), CLASSES),
    "resnet20": lambda: builders.build("resnet20", (16, 16, 3), CLASSES),
    "keyword_spotting": keyword_spotting,
    "mobilenet_v2": lambda: builders.build(
        "mobilenet_v2", (32, 32, 3), CLASSES, alpha=0.35
    ),
    "vision_transformer": vision_transformer,
    "autoencoder": autoencoder,
    "one_layer": one_layer,
}


def prepared(name, config=None, **kwargs):
    """A compiled `MSQModel`."""
    keras.utils.set_random_seed(4)
    qmodel = msq_tf.quantize_model(BUILDERS[name](), config, **kwargs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if name == "autoencoder":
        loss = keras.losses.MeanSquaredError()
    qmodel.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
    return qmodel


def random_data(qmodel, steps):
    rng = np.random.default_rng(5)
    count = steps * BATCH
    shape = (count, *qmodel.base.input_shape[1:])
    x = rng.normal(size=shape).astype(np.float32)
    if qmodel.base.output_shape == qmodel.base.input_shape:
        return x, x
    return x, rng.integers(0, CLASSES, count)


def search(qmodel, rule, *, epochs=EPOCHS, steps=4):
    """Trains with everything but the rule's target left at its default."""
    qmodel.fit(
        *random_data(qmodel, steps),
        epochs=epochs,
        batch_size=BATCH,
        verbose=0,
        callbacks=[msq_tf.MSQCallback(rule)],
    )


def check(qmodel, target, epochs):
    """On target within one layer's step, before the last third."""
    changes = qmodel.history_of_bits()
    sizes = dict(zip(qmodel.paths, qmodel.sizes, strict=True))
    total = qmodel.float_size + sum(qmodel.sizes)
    assert qmodel.average_bits <= target + 1e-6
    assert changes[-1].epoch / epochs <= 2 / 3
    assert qmodel.search.rule_state.done
    steps = [
        (change.old - change.new) * sizes[change.path] / total
        for change in changes
        if change.step == changes[-1].step
    ]
    # Without the last decision's largest step it would miss the target.
    assert qmodel.average_bits + max(steps) > target


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "compression"),
    [
        ("resnet8", 8.0),
        pytest.param("resnet20", 32 / 3, marks=pytest.mark.slow),
        pytest.param("keyword_spotting", 32 / 3, marks=pytest.mark.slow),
        pytest.param("mobilenet_v2", 8.0, marks=pytest.mark.slow),
        pytest.param("vision_transformer", 32 / 3, marks=pytest.mark.slow),
        ("autoencoder", 8.0),
        ("autoencoder", 15.0),
        ("one_layer", 8.0),
        ("one_layer", 32 / 3),
    ],
)
def test_defaults_reach_the_target(name, compression):
    qmodel = prepared(name)
    search(qmodel, msq_tf.BudgetRule(target_compression=compression))
    check(qmodel, 32 / compression, EPOCHS)


@pytest.mark.slow
@pytest.mark.parametrize(("epochs", "steps"), [(2, 1), (3, 1), (20, 3)])
def test_few_steps_and_many(epochs, steps):
    qmodel = prepared("autoencoder")
    rule = msq_tf.BudgetRule(target_compression=8.0)
    search(qmodel, rule, epochs=epochs, steps=steps)
    check(qmodel, 4.0, epochs)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"allowed_bits": (8, 4, 2)}, {"device": "min_size"}],
    ids=["allowed_bits", "device"],
)
def test_allowed_widths_and_devices(options):
    qmodel = prepared("autoencoder")
    rule = msq_tf.BudgetRule(target_compression=32 / 5, **options)
    search(qmodel, rule)
    check(qmodel, 5.0, EPOCHS)


def test_a_single_step_is_enough():
    """Its end is the end of the phase, and of the training too."""
    qmodel = prepared("one_layer")
    rule = msq_tf.BudgetRule(target_compression=8.0)
    search(qmodel, rule, epochs=1, steps=1)
    assert qmodel.average_bits == 4.0


IMPOSSIBLE = {
    "min_bits": (
        {"config": msq_tf.MSQConfig(min_bits=5)},
        {"target_compression": 8.0},
        r"target_compression of at most 6\.400",
    ),
    "allowed_bits": (
        {},
        {"target_compression": 8.0, "allowed_bits": (8, 6)},
        r"target_compression of at most 5\.333",
    ),
    # A quarter of the weights stays in float.
    "skipped": (
        {"filters": "dense.*"},
        {"target_compression": 8.0},
        r"target_compression of at most 3\.\d+",
    ),
    "bytes": ({}, {"target_bytes": 1000}, "target_bytes of at least 1,280"),
    "device": (
        {},
        {"target_bytes": 1000, "device": "min_size"},
        r"target_bytes of at least [2-9],\d{3}",
    ),
}


@pytest.mark.first(1)
@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_an_impossible_target_is_said_before_the_first_step(case):
    how, target, message = IMPOSSIBLE[case]
    qmodel = prepared("autoencoder", **how)
    before = [variable.numpy() for variable in qmodel.variables]
    with pytest.raises(
        ValueError, match=f"cannot be reached.*{message}.*Received"
    ):
        search(qmodel, msq_tf.BudgetRule(**target))
    assert int(qmodel.optimizer.iterations.numpy()) == 0
    for variable, old in zip(qmodel.variables, before, strict=False):
        np.testing.assert_array_equal(variable, old)
    assert qmodel.history_of_bits() == []

"""Models that the tests share."""

import keras

import msq_tf

EPOCHS = 4


@keras.saving.register_keras_serializable(package="msq_tf_tests")
class Subclassed(keras.Model):
    """A subclassed model with lists, a nested model and add_loss."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embed = keras.layers.Embedding(20, 6)
        self.blocks = [keras.layers.Dense(6, activation="tanh") for _ in "ab"]
        self.rnn = keras.layers.Bidirectional(keras.layers.LSTM(4))
        self.out = keras.layers.Dense(3)

    def call(self, inputs, training=None):
        x = self.embed(inputs)
        for block in self.blocks:
            x = block(x)
        self.add_loss(10.0 * keras.ops.mean(x**2))
        return self.out(self.rnn(x))


def zoo_model():
    """Every kind of layer that can be quantized, in one functional model."""
    image = keras.Input((12, 12, 4), name="image")
    tokens = keras.Input((5,), dtype="int32", name="tokens")
    shared = keras.layers.Dense(6, activation="relu", name="shared")

    x = keras.layers.Conv2D(8, 3, padding="same", use_bias=False, name="c1")(
        image
    )
    x = keras.layers.BatchNormalization(name="bn1")(x)
    x = keras.layers.ReLU()(x)
    block = keras.Sequential(
        [
            keras.layers.Conv2D(8, 3, dilation_rate=2, name="c1"),
            keras.layers.Conv2D(8, 1, groups=2, name="grouped"),
            keras.layers.DepthwiseConv2D(3, depth_multiplier=2, name="dw"),
            keras.layers.SeparableConv2D(6, 3, padding="same", name="sep"),
        ],
        name="block",
    )
    x = block(x)
    x = keras.layers.Conv2DTranspose(4, 2, strides=2, name="up")(x)
    x = keras.layers.Dropout(0.2)(x)
    volume = keras.layers.Reshape((2, 6, 12, 4))(x)
    volume = keras.layers.Conv3D(4, 2, name="c3d")(volume)
    volume = keras.layers.GlobalAveragePooling3D()(volume)
    sequence = keras.layers.Reshape((18, 32))(x)
    sequence = keras.layers.Conv1D(6, 3, name="c1d")(sequence)
    words = keras.layers.Embedding(11, 6, name="words")(tokens)
    sequence = keras.layers.MultiHeadAttention(2, 3, name="mha")(
        sequence, words
    )
    sequence = keras.layers.EinsumDense(
        "abc,cd->abd", output_shape=(None, 6), name="einsum"
    )(sequence)
    state = keras.layers.GRU(5, name="gru")(sequence)
    a = shared(keras.layers.Dense(6, name="left")(volume))
    b = shared(keras.layers.Dense(6, name="right")(state))
    outputs = keras.layers.Dense(
        3, activity_regularizer=keras.regularizers.L2(1e-3), name="head"
    )(keras.layers.Concatenate()([a, b]))
    return keras.Model([image, tokens], outputs, name="zoo")


def tiny_model():
    """Three weights, no randomness in training."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(6, 3, name="conv"),
            keras.layers.BatchNormalization(name="bn"),
            keras.layers.ReLU(name="relu"),
            keras.layers.DepthwiseConv2D(3, name="dw"),
            keras.layers.GlobalAveragePooling2D(name="pool"),
            keras.layers.Dense(4, name="head"),
        ],
        name="tiny",
    )


def compile_model(model, optimizer=None, **kwargs):
    """Compiles a model for classification by logits."""
    model.compile(
        optimizer or keras.optimizers.SGD(0.05, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **kwargs,
    )
    return model


def quantized(**options):
    """`tiny_model` with codes, compiled; options of `MSQConfig`."""
    keras.utils.set_random_seed(3)
    config = msq_tf.MSQConfig(**options)
    return compile_model(msq_tf.quantize_model(tiny_model(), config))


def budget(**kwargs):
    """A rule that most tests use, of any width."""
    options = {"allowed_bits": range(2, 9), **kwargs}
    return msq_tf.BudgetRule(target_compression=8.0, **options)


def new_model():
    """A compiled `tiny_model`, prepared; the same at every call."""
    keras.utils.set_random_seed(3)
    return compile_model(msq_tf.quantize_model(tiny_model()))


def fit(qmodel, data, *callbacks, **kwargs):
    """Trains quietly, in the order of the data."""
    options = {
        "epochs": EPOCHS,
        "batch_size": 32,
        "shuffle": False,
        "verbose": 0,
        **kwargs,
    }
    return qmodel.fit(*data, callbacks=list(callbacks), **options)

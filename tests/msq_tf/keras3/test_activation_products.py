"""Which layers multiply activations by activations."""

import keras
import pytest

import msq_tf
from msq_tf.keras3.activation_products import count_products
from tests.msq_tf.samples import tiny_model

L = keras.layers


@keras.saving.register_keras_serializable(package="msq_tf_tests")
class Own(keras.layers.Layer):
    """Attention of a user's own, with one product of a weight."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], shape[-1]))

    def call(self, x):
        x = keras.ops.matmul(x, self.kernel)
        scores = keras.ops.einsum("btc,bsc->bts", x, x)
        return keras.ops.matmul(keras.ops.softmax(scores), x)


def model(*layers):
    x = inputs = keras.Input((6, 8))
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


def twice(layer):
    return lambda x: layer(x, x)


def test_none():
    assert count_products(tiny_model()) == 0
    assert (
        count_products(
            model(L.Dense(4), L.EinsumDense("abc,cd->abd", (None, 3)))
        )
        == 0
    )
    # Traced for the custom layer, and found to have none.
    recurrent = model(L.LSTM(3), L.Lambda(keras.ops.relu))
    assert count_products(recurrent) == 0


@pytest.mark.parametrize(
    ("layers", "count"),
    [
        ([twice(L.MultiHeadAttention(2, 4))], 1),
        ([twice(L.GroupQueryAttention(4, 4, 2)), L.Dense(8), Own()], 2),
        ([lambda x: L.Attention()([x, x])], 1),
        ([Own(), L.Dense(8), Own()], 2),
        ([lambda x: keras.ops.matmul(x, keras.ops.transpose(x, (0, 2, 1)))], 1),
        ([lambda x: L.Dot(axes=2)([x, x])], 1),
    ],
    ids=["heads", "two", "attention", "own", "operation", "dot"],
)
def test_counted(layers, count):
    assert count_products(model(*layers)) == count


def test_the_report_has_them():
    built = model(twice(L.MultiHeadAttention(2, 4)), L.Dense(3))
    report = msq_tf.precision_report(msq_tf.quantize_model(built))
    assert report.products == 1
    assert "products of activations (1 layer) have no weights" in str(report)
    assert '"products": 1' in report.to_json()
    plain = msq_tf.precision_report(msq_tf.quantize_model(tiny_model()))
    assert plain.products == 0 and "products" not in str(plain)


def test_a_model_whose_inputs_are_not_known_has_its_layers_counted():
    class Attending(keras.Model):
        def __init__(self):
            super().__init__()
            self.embed = L.Embedding(20, 6)
            self.attention = L.MultiHeadAttention(2, 3)

        def call(self, inputs):
            x = self.embed(inputs)
            return self.attention(x, x)

    subclassed = Attending()
    subclassed(keras.ops.zeros((1, 4), "int32"))
    assert count_products(subclassed) == 1

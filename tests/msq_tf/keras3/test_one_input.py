"""A `call` of several arguments is named where one structure is taken."""

import keras
import numpy as np
import pytest

import msq_tf
import tflite_export

X = np.ones((2, 3), np.float32)


class Two(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.second = (keras.layers.Dense(2) for _ in range(2))

    def call(self, u, v, training=None):
        return self.first(u) + self.second(v)


class Optional(Two):
    def call(self, u, v=None):
        return self.first(u) + (0 if v is None else self.second(v))


@pytest.mark.parametrize("kind", [Two, Optional])
def test_calls(kind):
    base = kind()
    base(X, X)
    qmodel = msq_tf.quantize_model(base)
    for args, named in (((X, X), {}), ((X,), {"v": X})):
        with pytest.raises(ValueError, match=r"Received: call\(u, v\)"):
            qmodel(*args, **named)
    with qmodel.quantized_scope():
        assert base(X, X).shape == (2, 2)
    if kind is Optional:
        assert qmodel(X).shape == (2, 2)
        assert qmodel(X, training=False).shape == (2, 2)


def test_files(tmp_path):
    base = Two()
    base(X, X)
    with pytest.raises(ValueError, match="one list or dictionary"):
        tflite_export.export(
            msq_tf.quantize_model(base),
            tmp_path / "m.tflite",
            target="min_size",
            representative_data=[X, X],
        )

"""What TensorFlow can't freeze is named."""

import keras
import numpy as np
import pytest

import msq_tf
from tflite_export import ExportError
from tflite_export import export

L = keras.layers


class EndsInLoss(L.Layer):
    """As the last layer of keras.io's model for captchas."""

    def call(self, labels, outputs):
        samples = keras.ops.shape(labels)[0]
        ones = keras.ops.ones((samples,), "int32")
        loss = keras.ops.ctc_loss(
            labels,
            outputs,
            ones * labels.shape[1],
            ones * outputs.shape[1],
            mask_index=0,
        )
        self.add_loss(keras.ops.mean(loss))
        return outputs


@pytest.mark.slow
def test_a_model_that_ends_in_its_loss(tmp_path):
    signal = keras.Input((6, 3), name="signal")
    labels = keras.Input((2,), dtype="int32", name="labels")
    classes = L.Dense(4, name="classes")(signal)
    base = keras.Model([signal, labels], EndsInLoss()(labels, classes))
    qmodel = msq_tf.quantize_model(base)
    x = np.random.default_rng(0).normal(size=(4, 6, 3)).astype("float32")
    y = np.ones((4, 2), "int32")
    path = tmp_path / "m.tflite"
    with pytest.raises(ExportError, match="ends before it"):
        export(qmodel, path, target="min_size", representative_data=[x, y])
    # As the message says: the layers, with their bits, are the same.
    inference = msq_tf.quantize_model(keras.Model(signal, classes))
    inference.set_bits({p: qmodel.bits[p] for p in inference.bits})
    export(inference, path, target="min_size", representative_data=x)

"""Models that train in another float type than float32."""

import numpy as np
import pytest
import tensorflow as tf

from tests.tfmot.samples import budget
from tests.tfmot.samples import compile_model
from tests.tfmot.samples import export
from tests.tfmot.samples import fit
from tests.tfmot.samples import layers
from tests.tfmot.samples import msq
from tests.tfmot.samples import new_model
from tests.tfmot.samples import tf_keras
from tests.tfmot.samples import tiny_data


@pytest.fixture
def policy(request):
    """Sets the global policy that a test asks for."""
    before = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy(request.param)
    yield request.param
    tf_keras.mixed_precision.set_global_policy(before)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "bits"),
    [("mixed_float16", 8), ("float64", None), ("float16", None)],
    indirect=["policy"],
)
def test_files_hold_what_was_trained(policy, bits, tmp_path):
    data = tiny_data()
    model = new_model(activation_bits=bits)
    fit(model, data, epochs=1)
    before = [layer.dtype_policy.name for layer in model._flatten_layers()]
    for target in ("min_size", "cpu_int8"):
        report = export(
            msq.ModelView(model),
            tmp_path / "m.tflite",
            target,
            representative_data=data[0],
        )
        assert all(check.ran for check in report.checks)
        assert len(report.tensors) == 3
    after = [layer.dtype_policy.name for layer in model._flatten_layers()]
    assert after == before


@pytest.mark.parametrize("policy", ["float64", "bfloat16"], indirect=True)
def test_ranges_of_other_floats_are_refused(policy):
    with pytest.raises(ValueError, match="float32 variables") as error:
        new_model()
    assert f"Received: dtype policy '{policy}'" in str(error.value)


class Own(tf_keras.Model):
    """Adds its losses up as they are."""

    def train_step(self, data):
        x, _ = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self(x, training=True) ** 2)
            loss += sum(self.losses)
        self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
        return {"loss": loss}


@pytest.mark.parametrize("policy", ["float64"], indirect=True)
def test_the_penalty_joins_losses_of_another_width(policy):
    inputs = tf_keras.Input((8, 8, 1))
    outputs = layers.Dense(4)(layers.Flatten()(inputs))
    scheme = msq.MSQQuantizeScheme(activation_bits=None)
    model = compile_model(msq.quantize_model(Own(inputs, outputs), scheme))
    data = tiny_data()
    callback = msq.MSQCallback(budget(), data, interval=2)
    history = fit(model, data, callback, epochs=2)
    assert np.isfinite(history.history["loss"]).all()

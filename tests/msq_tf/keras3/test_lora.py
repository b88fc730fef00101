"""Models trained by LoRA: what trains is what is quantized and exported."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
import tflite_export

RANK = 2

pytestmark = pytest.mark.slow


def adapted():
    """Layers of all kinds that LoRA knows."""
    tokens = keras.Input((6,), dtype="int32")
    x = keras.layers.Embedding(20, 8, name="table")(tokens)
    x = keras.layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = keras.layers.EinsumDense("abc,cd->abd", (None, 8), name="einsum")(x)
    x = keras.layers.Conv1D(8, 3, name="conv")(x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    x = keras.layers.Dense(8, activation="relu", name="hidden")(x)
    return keras.Model(tokens, keras.layers.Dense(3, name="head")(x))


def enable(model):
    for name in ("table", "einsum", "conv", "hidden"):
        model.get_layer(name).enable_lora(RANK)
    attention = model.get_layer("attention")
    attention.query_dense.enable_lora(RANK, lora_alpha=4)


def data():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 20, (64, 6)).astype("int32")
    return x, (x.sum(1) % 3).astype("int32")


def compiled(model):
    model.compile(
        keras.optimizers.Adam(0.02),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )


def factors(model):
    return {
        weight.path: weight.numpy()
        for weight in model.weights
        if "lora_" in weight.path
    }


@pytest.mark.parametrize("first", ["lora", "quantize_model"])
def test_training_report_and_file_are_one_function(first, tmp_path):
    keras.utils.set_random_seed(0)
    base = adapted()
    if first == "lora":
        enable(base)
    qmodel = msq_tf.quantize_model(base)
    if first == "quantize_model":
        enable(base)
    qmodel.set_bits(dict(zip(qmodel.bits, itertools.cycle((8, 4, 2)))))
    compiled(qmodel)
    before, frozen = factors(base), base.get_layer("hidden")._kernel.numpy()
    x, y = data()
    qmodel.fit(x, y, epochs=2, batch_size=16, verbose=0)
    after = factors(base)
    assert len(after) == 10
    for path, value in after.items():
        assert (value != before[path]).any(), path
    np.testing.assert_array_equal(
        base.get_layer("hidden")._kernel.numpy(), frozen
    )
    # Every layer computes with codes times steps, factors and all.
    wanted = qmodel.predict(x, verbose=0)
    np.testing.assert_allclose(
        msq_tf.bake(qmodel).predict(x, verbose=0), wanted, atol=1e-5
    )
    with qmodel.quantized_scope():
        np.testing.assert_allclose(base(x), wanted, atol=1e-5)
    assert all(
        layer.lora_enabled
        for layer in base._flatten_layers()
        if hasattr(layer, "lora_kernel_a")
    )
    record = next(w for w in qmodel.quantized_weights() if w.path == "hidden")
    assert record.bits == qmodel.bits["hidden"]
    assert np.unique(record.values).size <= 2**record.bits * 8
    report = tflite_export.export(
        qmodel, tmp_path / "m.tflite", representative_data=x
    )
    assert {tensor.name for tensor in report.tensors} == set(qmodel.bits)


def test_a_layer_left_out_keeps_the_sum_in_the_file(tmp_path):
    keras.utils.set_random_seed(0)
    base = adapted()
    enable(base)
    qmodel = msq_tf.quantize_model(base, filters="head|conv")
    compiled(qmodel)
    x, y = data()
    qmodel.fit(x, y, batch_size=16, verbose=0)
    report = tflite_export.export(
        qmodel, tmp_path / "m.tflite", representative_data=x
    )
    assert "hidden" in {tensor.name for tensor in report.float_tensors}
    skipped = {w.path: w.value for w in qmodel.skipped_weights()}
    np.testing.assert_allclose(
        skipped["hidden"], base.get_layer("hidden").kernel, atol=1e-6
    )


def test_a_saved_model_has_the_sum(tmp_path):
    keras.utils.set_random_seed(0)
    base = adapted()
    enable(base)
    qmodel = msq_tf.quantize_model(base)
    compiled(qmodel)
    x, y = data()
    qmodel.fit(x, y, batch_size=16, verbose=0)
    qmodel.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.bits == qmodel.bits
    np.testing.assert_allclose(
        loaded.predict(x, verbose=0), qmodel.predict(x, verbose=0), atol=1e-5
    )
    # Keras loads factors as zeros, of which nothing could be learned.
    assert not any(value.any() for value in factors(loaded.base).values())
    loaded.fit(x, y, batch_size=16, verbose=0)
    assert all(value.any() for value in factors(loaded.base).values())


def test_a_search_decides_about_the_sum():
    keras.utils.set_random_seed(0)
    base = adapted()
    enable(base)
    qmodel = msq_tf.quantize_model(base, msq_tf.MSQConfig(scale="learned"))
    compiled(qmodel)
    assert all(scale.trainable for scale in qmodel.learned_scales.scale[:1])
    x, y = data()
    search = msq_tf.MSQCallback(
        msq_tf.BudgetRule(target_compression=8.0), interval=1, max_probes=2
    )
    qmodel.fit(x, y, epochs=3, batch_size=16, verbose=0, callbacks=[search])
    assert qmodel.compression >= 8.0


@keras.saving.register_keras_serializable(package="test_lora")
class OwnStep(keras.Sequential):
    """Trains by a step of its own, on a loss without a gradient."""

    def train_step(self, data):
        x, _ = data
        with tf.GradientTape() as tape:
            loss = 0.0 * tf.reduce_sum(self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"loss": loss}


def test_low_bits_pull_factors_in_a_step_of_ones_own_as_in_fit():
    """The pull of the sum, by the chain rule; nothing else moves them."""
    x = np.ones((8, 4), "float32")
    found = []
    for kind in (OwnStep, keras.Sequential):
        keras.utils.set_random_seed(0)
        base = kind([keras.Input((4,)), keras.layers.Dense(4, name="hidden")])
        base.layers[0].enable_lora(RANK)
        base.layers[0].lora_kernel_b.assign(np.ones((RANK, 4)) * 0.1)
        qmodel = msq_tf.quantize_model(base)
        qmodel.search.lsb.assign([1])
        qmodel.search.strength.assign(1.0)
        qmodel.compile(
            keras.optimizers.SGD(0.1), loss=lambda _, y: 0.0 * y[..., 0]
        )
        qmodel.fit(x, x, batch_size=8, verbose=0)
        found.append(list(factors(base).values()))
        assert np.ptp(found[-1][1]) > 0
    for stepped, fitted in zip(*found, strict=True):
        np.testing.assert_allclose(stepped, fitted, rtol=1e-6)

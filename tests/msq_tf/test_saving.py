"""What leaves a model: Keras files, weights, baked copies."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf


def cycle_bits(qmodel):
    qmodel.set_bits({p: 2 + i % 7 for i, p in enumerate(qmodel.paths)})


@pytest.mark.slow
def test_saves_and_loads(zoo, zoo_data, compiled, tmp_path):
    qmodel = compiled(msq_tf.quantize_model(zoo))
    x, y = zoo_data
    qmodel.fit(x, y, verbose=0)
    cycle_bits(qmodel)
    qmodel.search.trace.assign(np.arange(21))
    qmodel.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.bits == qmodel.bits
    assert loaded.plan == qmodel.plan
    np.testing.assert_array_equal(loaded.search.trace, np.arange(21))
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), qmodel.predict(x, verbose=0)
    )
    loaded.fit(x, y, verbose=0)

    qmodel.save_weights(tmp_path / "m.weights.h5")
    other = msq_tf.quantize_model(keras.models.clone_model(zoo))
    other.load_weights(tmp_path / "m.weights.h5")
    assert other.bits == qmodel.bits
    for a, b in zip(
        other.quantized_weights(), qmodel.quantized_weights(), strict=True
    ):
        np.testing.assert_array_equal(a.codes, b.codes)


def test_saving_keeps_latent_weights(tiny, tmp_path):
    qmodel = msq_tf.quantize_model(tiny)
    qmodel.set_bits({"conv": 2})
    kernel = tiny.get_layer("conv").kernel.numpy()
    qmodel.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.get_layer("conv").kernel, kernel)


def test_a_loaded_subclassed_model_keeps_its_paths(
    subclassed, compiled, tmp_path
):
    """Keras invents new names for its layers; the keys do not change."""
    qmodel = msq_tf.quantize_model(subclassed)
    qmodel.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.paths == qmodel.paths
    x = np.arange(14, dtype=np.int32).reshape(2, 7)
    np.testing.assert_array_equal(loaded(x), qmodel(x))


def test_bake_gives_a_plain_model(zoo, zoo_data, tmp_path):
    qmodel = msq_tf.quantize_model(zoo)
    cycle_bits(qmodel)
    x, _ = zoo_data
    baked = msq_tf.bake(qmodel)
    assert type(baked) is type(zoo)
    np.testing.assert_array_equal(baked(x), qmodel(x))
    baked.save(tmp_path / "baked.keras")
    with pytest.raises(ValueError, match="MSQModel.*Received"):
        msq_tf.bake(zoo)


def test_bake_refuses_a_model_it_cannot_rebuild():
    class Opaque(keras.Model):
        def __init__(self, units):
            super().__init__()
            self.dense = keras.layers.Dense(units)

        def call(self, x):
            return self.dense(x)

        def get_config(self):
            return {}

    model = Opaque(3)
    model(np.ones((1, 2)))
    with pytest.raises(ValueError, match="cannot be copied.*Opaque"):
        msq_tf.bake(msq_tf.quantize_model(model))


@pytest.mark.slow
def test_a_base_that_was_trained_before(tiny, tiny_data, compiled, tmp_path):
    """Its old optimizer is neither saved nor missed."""
    compiled(tiny).fit(*tiny_data, verbose=0)
    want = tiny.evaluate(*tiny_data, verbose=0)
    qmodel = compiled(msq_tf.quantize_model(tiny))
    assert tiny.evaluate(*tiny_data, verbose=0) == want
    qmodel.fit(*tiny_data, verbose=0)
    qmodel.save_weights(tmp_path / "m.weights.h5")
    qmodel.save(tmp_path / "m.keras")

    again = keras.models.clone_model(tiny)
    fresh = compiled(msq_tf.quantize_model(compiled(again)))
    fresh.optimizer.build(fresh.trainable_variables)
    fresh.load_weights(tmp_path / "m.weights.h5")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    for model in (fresh, loaded):
        assert int(model.optimizer.iterations.numpy()) == 4
        np.testing.assert_array_equal(model(tiny_data[0]), qmodel(tiny_data[0]))


@pytest.mark.slow
def test_keras_exports_what_the_quantized_weights_compute(
    zoo, zoo_data, subclassed, tmp_path
):
    """A SavedModel, for those who serve one."""
    qmodel = msq_tf.quantize_model(zoo)
    qmodel.set_bits(dict.fromkeys(qmodel.paths, 4))
    x, _ = zoo_data
    want = qmodel.predict(x, verbose=0)
    qmodel.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    np.testing.assert_allclose(served.serve(x), want, atol=1e-6)
    # What is no functional model has to be told its inputs.
    qmodel = msq_tf.quantize_model(subclassed)
    x = np.arange(14, dtype=np.int32).reshape(2, 7)
    qmodel.export(
        tmp_path / "other",
        verbose=False,
        input_signature=[keras.InputSpec(shape=(None, 7), dtype="int32")],
    )
    served = tf.saved_model.load(tmp_path / "other")
    np.testing.assert_allclose(served.serve(x), qmodel(x), atol=1e-6)

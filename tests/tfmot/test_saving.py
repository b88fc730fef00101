"""Files and checkpoints bring bits and searches back."""

import numpy as np
import pytest
import tensorflow as tf

from tests.tfmot.samples import EPOCHS
from tests.tfmot.samples import budget
from tests.tfmot.samples import compile_model
from tests.tfmot.samples import fit
from tests.tfmot.samples import layers
from tests.tfmot.samples import msq
from tests.tfmot.samples import new_model
from tests.tfmot.samples import quantization
from tests.tfmot.samples import tf_keras
from tests.tfmot.samples import tiny_model


def callback(data, **rule):
    return msq.MSQCallback(budget(**rule), data, interval=2)


@pytest.fixture(scope="module")
def searched(data):
    """A model after a search."""
    model = new_model()
    fit(model, data, callback(data), epochs=2)
    return model


def assert_same(loaded, model, x):
    ours, theirs = msq.ModelView(loaded), msq.ModelView(model)
    assert ours.bits == theirs.bits
    assert ours.history_of_bits() == theirs.history_of_bits()
    assert ours.history_of_bits()
    np.testing.assert_equal(
        ours.search.rule_state._asdict(), theirs.search.rule_state._asdict()
    )
    np.testing.assert_array_equal(loaded(x), model(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["m.keras", "m.h5", "saved_model"])
# Keras says that HDF5 is legacy; h5py and Keras do not agree on copies.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_is_saved_whole(searched, data, tmp_path, name):
    searched.save(tmp_path / name)
    with quantization.quantize_scope():
        loaded = tf_keras.models.load_model(tmp_path / name)
    x, y = data
    assert_same(loaded, searched, x)
    # And goes on where it was.
    expected = searched.evaluate(x, y, verbose=0)
    np.testing.assert_allclose(loaded.evaluate(x, y, verbose=0), expected)
    fit(loaded, data, callback(data), epochs=4, initial_epoch=2)
    assert msq.ModelView(loaded).compression >= 8.0


@pytest.mark.first(1)
@pytest.mark.parametrize("name", ["w.weights.h5", "w.h5", "checkpoint"])
def test_weights_are_saved_with_bits(searched, data, tmp_path, name):
    view = msq.ModelView(other := new_model())
    searched.save_weights(tmp_path / name)
    other.load_weights(tmp_path / name)
    assert_same(other, searched, data[0])
    # A view that was made before sees what was loaded.
    assert view.bits == msq.ModelView(searched).bits
    for a, b in zip(
        view.quantized_weights(),
        msq.ModelView(searched).quantized_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(a.codes, b.codes)


def test_a_view_follows_weights_that_are_loaded(searched, data, tmp_path):
    """Its plain model was made before, and is filled anew."""
    view = msq.ModelView(other := new_model())
    with view.quantized_scope():
        before = view.base(data[0])
    searched.save_weights(tmp_path / "w.h5")
    other.load_weights(tmp_path / "w.h5")
    with view.quantized_scope():
        after = view.base(data[0])
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_array_equal(after, msq.bake(searched)(data[0]))


@pytest.mark.slow
def test_an_interrupted_search_ends_the_same(data, tmp_path):
    class Stop(tf_keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def train(*more, backup):
        model = new_model()
        backup = tf_keras.callbacks.BackupAndRestore(str(tmp_path / backup))
        fit(model, data, callback(data, end=0.9), backup, *more)
        return model

    whole = train(backup="whole")
    with pytest.raises(KeyboardInterrupt):
        train(Stop(), backup="part")
    resumed = train(backup="part")
    assert_same(resumed, whole, data[0])
    last = msq.ModelView(whole).history_of_bits()[-1]
    assert 2 < last.epoch <= EPOCHS


def test_partial_annotation_is_saved(tmp_path):
    """TFMOT's own configuration of what is in front is lost in files."""
    model = tf_keras.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(5, name="free", activation="relu"),
            quantization.quantize_annotate_layer(
                layers.Dense(4, activation="elu", name="head"),
                msq.MSQQuantizeConfig(start_bits=5),
            ),
        ]
    )
    model = compile_model(quantization.quantize_apply(model))
    x = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    for name in ("m.keras", "m.h5"):
        with pytest.warns() if name == "m.h5" else no_context():
            model.save(tmp_path / name)
        with quantization.quantize_scope():
            loaded = tf_keras.models.load_model(tmp_path / name)
        np.testing.assert_array_equal(loaded(x), model(x))
        assert msq.ModelView(loaded).bits == {"head": 5}


def no_context():
    import contextlib

    return contextlib.nullcontext()


@pytest.mark.slow
def test_the_plain_model_needs_nothing(data, tmp_path):
    """What `bake` returns, in a file that loads without a scope."""
    model = new_model(activation_bits=None)
    fit(model, data, epochs=1)
    msq.ModelView(model).set_bits({"conv": 3, "head": 4})
    plain = msq.bake(model)
    np.testing.assert_allclose(plain(data[0]), model(data[0]), atol=1e-6)
    plain.save(tmp_path / "plain.keras")
    loaded = tf_keras.models.load_model(tmp_path / "plain.keras")
    np.testing.assert_array_equal(loaded(data[0]), plain(data[0]))
    assert [layer.name for layer in loaded.layers] == [
        layer.name for layer in tiny_model().layers
    ]


def test_stripping_gives_the_float_model_back(data):
    tf_keras.utils.set_random_seed(3)
    plain = tiny_model()
    for bits in (8, None):
        scheme = msq.MSQQuantizeScheme(activation_bits=bits)
        stripped = msq.strip_quantization(msq.quantize_model(plain, scheme))
        np.testing.assert_array_equal(stripped(data[0]), plain(data[0]))
        assert not any(
            isinstance(layer, quantization.QuantizeWrapper)
            for layer in stripped.layers
        )
        kernel = stripped.get_layer("head").kernel
        assert isinstance(kernel, tf.Variable)

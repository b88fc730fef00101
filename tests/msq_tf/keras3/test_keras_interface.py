"""What a quantized model has because any Keras model has it."""

import copy
import pickle

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
import tflite_export

L = keras.layers
X = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)


def functional():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,), name="x")
    hidden = L.Dense(5, activation="relu", name="h")(inputs)
    return keras.Model(inputs, L.Dense(3, name="o")(hidden))


def sequential():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((4,)), L.Dense(5, name="h"), L.Dense(3, name="o")]
    )


@keras.saving.register_keras_serializable(package="msq_tf_tests")
class OwnModel(keras.Model):
    """A subclassed model of two layers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.h = L.Dense(5, name="h")
        self.o = L.Dense(3, name="o")

    def call(self, inputs):
        return self.o(self.h(inputs))


def subclassed():
    keras.utils.set_random_seed(0)
    model = OwnModel()
    model(X[:1])
    return model


def two_inputs(as_dict):
    a = keras.Input((4,), name="b")
    b = keras.Input((3,), dtype="int32", name="a")
    words = L.Flatten()(L.Embedding(5, 2, name="words")(b))
    outputs = L.Dense(2, name="o")(L.Concatenate()([a, words]))
    data = X, np.arange(48).reshape(16, 3) % 5
    if as_dict:
        model = keras.Model({"b": a, "a": b}, {"y": outputs})
        return model, {"b": data[0], "a": data[1]}
    return keras.Model([a, b], outputs), list(data)


def prepared(model, **options):
    qmodel = msq_tf.quantize_model(model, msq_tf.MSQConfig(**options))
    qmodel.set_bits(dict.fromkeys(qmodel.paths, 3))
    return qmodel


BASES = {"functional": functional, "sequential": sequential}


@pytest.fixture(params=BASES)
def qmodel(request):
    return prepared(BASES[request.param]())


def outputs_of(model, x):
    return keras.tree.flatten(model.predict(x, verbose=0))


def assert_same(got, wanted):
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.first(1)
def test_inputs_and_outputs_are_those_of_a_keras_model(qmodel):
    base = qmodel.base
    assert qmodel.input_shape == base.input_shape == (None, 4)
    assert qmodel.output_shape == base.output_shape == (None, 3)
    assert [x.shape for x in qmodel.inputs] == [(None, 4)]
    assert [x.dtype for x in qmodel.outputs] == ["float32"]
    assert qmodel.layers[: len(base.layers)] == base.layers
    assert qmodel.get_layer("h") is base.get_layer("h")
    whole = keras.Model(qmodel.inputs, qmodel.outputs)
    assert_same(outputs_of(whole, X), outputs_of(qmodel, X))
    # Kept, and not made anew each time.
    assert qmodel.output is qmodel.output


@pytest.mark.first(1)
@pytest.mark.parametrize("as_dict", [False, True])
def test_ports_of_several_inputs(as_dict, tmp_path):
    model, data = two_inputs(as_dict)
    qmodel = prepared(model)
    whole = keras.Model(qmodel.input, qmodel.output)
    assert_same(outputs_of(whole, data), outputs_of(qmodel, data))
    assert qmodel.input_shape == model.input_shape
    assert qmodel.output_names == model.output_names
    qmodel.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    assert_same(
        keras.tree.flatten(served.serve(data)), outputs_of(qmodel, data)
    )


@pytest.mark.slow
def test_a_subclassed_base_has_no_inputs_to_show(tmp_path):
    qmodel = prepared(subclassed())
    for name in ("inputs", "outputs", "input_shape"):
        with pytest.raises(AttributeError):
            getattr(qmodel, name)
    qmodel.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    assert_same([served.serve(X)], outputs_of(qmodel, X))


def test_no_float_features_by_mistake(qmodel):
    """A layer's `output` is of the float model, and joins no `inputs`."""
    with pytest.raises(ValueError, match="2 times|not connected|disconnected"):
        keras.Model(qmodel.inputs, qmodel.get_layer("h").output)


@pytest.mark.slow
@pytest.mark.parametrize("make", [functional, sequential, subclassed])
def test_features_are_quantized(make, tmp_path):
    qmodel = prepared(make())
    embed = qmodel.features("h")
    with qmodel.quantized_scope():
        wanted = qmodel.base.get_layer("h")(X).numpy()
    assert_same(outputs_of(embed, X), [wanted])
    plain = qmodel.base.get_layer("h")(X).numpy()
    assert np.abs(plain - wanted).max() > 1e-3
    # With the bits of the moment.
    qmodel.set_bits({"h": 8})
    with qmodel.quantized_scope():
        wanted = qmodel.base.get_layer("h")(X).numpy()
    assert_same(outputs_of(embed, X), [wanted])
    both = qmodel.features(["h", "o"])
    assert_same(outputs_of(both, X), [wanted, *outputs_of(qmodel, X)])
    both.save(tmp_path / "f.keras")
    loaded = keras.models.load_model(tmp_path / "f.keras")
    assert_same(outputs_of(loaded, X), outputs_of(both, X))
    assert embed(keras.Input((4,))).shape == (None, 5)


@pytest.mark.slow
def test_features_with_trained_activations():
    """As the model computes them, on their grid."""
    qmodel = prepared(functional(), activation_bits=4)
    qmodel.compile("sgd", "mse")
    qmodel.fit(X, np.zeros((16, 3)), verbose=0)
    (features,) = outputs_of(qmodel.features("h"), X)
    assert len(np.unique(features)) <= 16
    (again,) = outputs_of(qmodel.features("o"), X)
    assert_same([again], outputs_of(qmodel, X))


@pytest.mark.slow
def test_features_of_layers_inside(zoo, zoo_data):
    qmodel = msq_tf.quantize_model(zoo)
    assert (
        outputs_of(qmodel.features("block/sep"), zoo_data[0])[0].shape[-1] == 6
    )
    # Of a layer that is called twice, those of its first call.
    assert len(outputs_of(qmodel.features("shared"), zoo_data[0])) == 1
    with pytest.raises(
        ValueError, match=r"paths of layers.*Received: \['sep'\]"
    ):
        qmodel.features("sep")


def test_the_summary_has_bits_and_counts(qmodel):
    lines = []
    qmodel.summary(print_fn=lines.append)
    text = "\n".join(lines)
    assert "h (Dense)" in text and "(None, 5)" in text
    assert "Precision by layer" in text and "3.00" in text
    assert "Params: 43" in text and "no params" in text
    assert qmodel.count_params() == qmodel.base.count_params() == 43


def test_learned_scales_are_params():
    qmodel = prepared(
        functional(),
        scale="learned",
        activation_bits=8,
        activation_ranges="learned",
    )
    trained = sum(v.numpy().size for v in qmodel.trainable_variables)
    assert qmodel.count_params() == trained > 43
    lines = []
    qmodel.summary(print_fn=lines.append)
    assert f"learned scales and ranges: {trained - 43:,}" in lines[-1]


@pytest.mark.first(1)
def test_copies_compute_the_same(qmodel):
    for copied in (copy.deepcopy(qmodel), pickle.loads(pickle.dumps(qmodel))):
        assert copied.bits == qmodel.bits
        assert_same(outputs_of(copied, X), outputs_of(qmodel, X))


@pytest.mark.first(1)
def test_clones_begin_anew(qmodel, tmp_path):
    clones = (
        keras.models.clone_model(qmodel),
        keras.models.model_from_json(qmodel.to_json()),
        msq_tf.MSQModel.from_config(qmodel.get_config()),
    )
    qmodel.save_weights(tmp_path / "q.weights.h5")
    for clone in clones:
        assert set(clone.bits.values()) == {8}
        clone.load_weights(tmp_path / "q.weights.h5")
        assert clone.bits == qmodel.bits
        assert_same(outputs_of(clone, X), outputs_of(qmodel, X))


def test_hdf5_is_refused_before_it_is_written(qmodel, tmp_path):
    path = tmp_path / "q.h5"
    path.write_bytes(b"what was there")
    with pytest.raises(ValueError, match=r"\.keras.*Received: .*q\.h5"):
        qmodel.save(path)
    assert path.read_bytes() == b"what was there"
    outer = keras.Sequential([keras.Input((4,)), qmodel])
    for model in (qmodel, outer):
        with pytest.raises(ValueError, match=r"legacy HDF5.*\.keras"):
            keras.saving.save_model(model, path)


def test_keras_quantizes_nothing_on_top(qmodel):
    with pytest.raises(ValueError, match=r"tflite_export\.export.*Received"):
        qmodel.quantize("int8")
    wanted = outputs_of(qmodel, X)
    outer = keras.Sequential([keras.Input((4,)), qmodel])
    with (
        pytest.warns(UserWarning, match="InputLayer|does not have"),
        pytest.raises(ValueError, match="MSQModel in it"),
    ):
        outer.quantize("int8")
    assert_same(outputs_of(qmodel, X), wanted)


def test_layers_that_were_quantized_are_noticed(qmodel):
    qmodel.get_layer("h").quantize("int8")
    with pytest.raises(ValueError, match=r"were replaced.*Received.*\['h'\]"):
        qmodel(X)


@pytest.mark.first(1)
def test_tensorflow_s_converter(qmodel):
    """It gives floats on the grid, or says what to call."""
    convert = tf.lite.TFLiteConverter.from_keras_model
    data = convert(qmodel).convert()
    assert_same([tflite_export.run(data, X)], outputs_of(qmodel, X))
    model, _ = two_inputs(as_dict=False)
    for other in (prepared(model), prepared(functional(), activation_bits=8)):
        with pytest.raises(ValueError, match=r"tflite_export\.export"):
            convert(other).convert()


@pytest.mark.first(1)
def test_an_export_archive(qmodel, tmp_path):
    archive = keras.export.ExportArchive()
    archive.track(qmodel)
    archive.add_endpoint("serve", qmodel.call, qmodel.inputs)
    archive.write_out(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    assert_same([served.serve(X)], outputs_of(qmodel, X))


def test_names_in_files_stay(tmp_path):
    """Models that were saved before find their state under these."""
    qmodel = prepared(functional(), scale="learned", activation_bits=8)
    qmodel.save_weights(tmp_path / "q.weights.h5")
    with h5py.File(tmp_path / "q.weights.h5") as file:
        groups = []
        file.visit(groups.append)
    assert {
        "activation_quantizers/vars",
        "base/layers/dense/vars",
        "layers/learned_scales/vars",
        "layers/search_variables/vars",
    } <= set(groups)


@pytest.mark.first(1)
def test_saving_shows_ports_and_saves_none(qmodel, tmp_path):
    """Keras looks at every property of what it saves."""
    assert qmodel.outputs
    qmodel.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert_same(outputs_of(loaded, X), outputs_of(qmodel, X))

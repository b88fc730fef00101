"""Bad input: a message of its own for each kind."""

import pathlib

import keras
import numpy as np
import pytest

import msq_tf


def test_an_unbuilt_model():
    model = keras.Sequential([keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="unbuilt.*Received"):
        msq_tf.quantize_model(model)


@pytest.mark.parametrize("path", ["m.keras", pathlib.Path("m.keras")])
def test_a_path_in_the_place_of_a_model(path):
    with pytest.raises(ValueError, match="load_model.*Received.*m.keras"):
        msq_tf.quantize_model(path)


@pytest.mark.parametrize("built", [True, False])
def test_a_layer_in_the_place_of_a_model(built):
    layer = keras.layers.Dense(3, name="alone")
    if built:
        layer.build((None, 4))
    message = "a layer.*Expected a keras.Model.*Received: the Dense.*'alone'"
    with pytest.raises(ValueError, match=message):
        msq_tf.quantize_model(layer)


def test_no_quantizable_layer():
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.LayerNormalization()]
    )
    with pytest.raises(ValueError, match="no layer to quantize.*Received"):
        msq_tf.quantize_model(model)


def test_a_model_without_weights_is_not_called_unbuilt():
    model = keras.Sequential([keras.Input((4,)), keras.layers.ReLU()])
    with pytest.raises(ValueError, match="no weights.*Expected.*Received"):
        msq_tf.quantize_model(model)


@pytest.mark.parametrize("name", ["x", "y", "sample_weight"])
def test_text_in_what_fit_is_given(tiny, name):
    qmodel = msq_tf.quantize_model(tiny)
    qmodel.compile("sgd", "mse")
    data = {
        "x": np.zeros((2, *tiny.input_shape[1:])),
        "y": np.zeros((2, *tiny.output_shape[1:])),
        "sample_weight": np.ones(2),
    }
    data[name] = data[name].astype(str)
    with pytest.raises(ValueError, match=f"`{name}` holds text.*Received.*<U"):
        qmodel.fit(**data, verbose=0)


def test_everything_filtered_out(tiny):
    with pytest.raises(ValueError, match="not selected by `filters`"):
        msq_tf.quantize_model(tiny, filters="nothing_like_this")


def test_a_model_already_quantized_by_msq(tiny):
    qmodel = msq_tf.quantize_model(tiny)
    with pytest.raises(ValueError, match="quantized already.*MSQModel"):
        msq_tf.quantize_model(qmodel)
    outer = keras.Sequential(
        [keras.Input((8, 8, 1)), qmodel, keras.layers.Dense(2)]
    )
    with pytest.raises(ValueError, match="A part of the model"):
        msq_tf.quantize_model(outer)


def test_a_model_already_quantized_by_keras():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    model.layers[0].quantize("int8")
    with pytest.raises(ValueError, match="by Keras.*int8"):
        msq_tf.quantize_model(model)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_that_is_not_finite(tiny, bad):
    kernel = tiny.get_layer("dw").kernel
    value = kernel.numpy()
    value[0, 0, 0, 0] = bad
    kernel.assign(value)
    with pytest.raises(ValueError, match="'dw' is not finite.*1 of 54"):
        msq_tf.quantize_model(tiny)


def test_a_weight_that_became_nan(tiny):
    qmodel = msq_tf.quantize_model(tiny)
    kernel = tiny.get_layer("head").kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    with pytest.raises(ValueError, match="'head' is not finite.*diverge"):
        qmodel.quantized_weights()


def test_unknown_names_in_set_bits(tiny):
    qmodel = msq_tf.quantize_model(tiny)
    with pytest.raises(ValueError, match="Unknown layer names.*Received.*nope"):
        qmodel.set_bits({"conv": 4, "nope": 4})
    assert qmodel.bits["conv"] == 8


@pytest.mark.parametrize("bits", [1, 9, 4.5, "4"])
def test_bits_out_of_range(tiny, bits):
    qmodel = msq_tf.quantize_model(tiny)
    with pytest.raises(ValueError, match="bits.*Received"):
        qmodel.set_bits({"head": 4, "conv": bits})
    assert qmodel.bits["head"] == 8


def test_an_override_that_matches_nothing(tiny):
    config = msq_tf.MSQConfig(
        overrides={"cnov": msq_tf.LayerConfig(min_bits=4)}
    )
    with pytest.raises(ValueError, match="names no weight.*cnov"):
        msq_tf.quantize_model(tiny, config)


def test_something_that_is_no_model():
    with pytest.raises(ValueError, match="Keras 3 model.*Received"):
        msq_tf.quantize_model("model.keras")


@pytest.mark.parametrize("filters", [3, [3], {"a": 1}])
def test_filters_of_the_wrong_kind(tiny, filters):
    with pytest.raises(ValueError, match="filters.*Received"):
        msq_tf.quantize_model(tiny, filters=filters)


def test_a_plan_for_another_architecture(tiny):
    qmodel = msq_tf.quantize_model(tiny)
    with pytest.raises(ValueError, match="does not fit.*register_quantizable"):
        msq_tf.MSQModel(tiny, qmodel.plan[:-1])

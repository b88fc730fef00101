"""RoundClampQuantizer and MSQQuantizeConfig against what they promise."""

import numpy as np
import pytest
import tensorflow as tf

from msq_tf.quantizers import uniform
from tests.tfmot.samples import compile_model
from tests.tfmot.samples import layers
from tests.tfmot.samples import msq
from tests.tfmot.samples import new_model
from tests.tfmot.samples import quantization
from tests.tfmot.samples import tf_keras
from tests.tfmot.samples import view_at


def wrapper(layer, shape, **config):
    """A layer in the wrapper that `quantize_apply` puts around it."""
    annotated = quantization.quantize_annotate_layer(
        layer, msq.MSQQuantizeConfig(activation_bits=None, **config)
    )
    model = tf_keras.Sequential([layers.Input(shape), annotated])
    return quantization.quantize_apply(model).layers[-1]


def reference(w, bits, axes):
    """RoundClamp in float64: codes and steps, from the paper's equations."""
    w = w.astype(np.float64)
    rest = tuple(set(range(w.ndim)) - {a % w.ndim for a in axes})
    scale = np.abs(w).max(axis=rest, keepdims=True)
    levels = 2 ** (bits - 1)
    x = np.abs(w) / scale
    codes = np.minimum(np.round(levels * x), levels - 1) * np.sign(w)
    return codes, scale / levels


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("layer", "shape", "axes"),
    [
        (lambda: layers.Dense(5), (7,), (-1,)),
        (lambda: layers.Conv2D(4, 3), (5, 5, 3), (-1,)),
        (lambda: layers.DepthwiseConv2D(3), (5, 5, 3), (-2, -1)),
        (lambda: layers.Conv2DTranspose(4, 3), (5, 5, 3), (-2,)),
    ],
    ids=["dense", "conv", "depthwise", "transposed"],
)
def test_values_are_those_of_the_reference(layer, shape, axes):
    wrapped = wrapper(layer(), shape, scale="max")
    ((weight, quantizer, variables),) = wrapped._weight_vars
    for bits in range(2, 9):
        variables["bits"].assign(bits)
        codes, step = reference(weight.numpy(), bits, axes)
        np.testing.assert_allclose(
            quantizer(weight, True, weights=variables), codes * step, rtol=1e-6
        )


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_layer_and_the_report_have_one_scale(bits):
    wrapped = wrapper(layers.Conv2D(4, 3), (5, 5, 3), start_bits=bits)
    ((weight, quantizer, variables),) = wrapped._weight_vars
    view = msq.ModelView(tf_keras.Sequential([wrapped]))
    (record,) = view.quantized_weights()
    np.testing.assert_array_equal(
        quantizer(weight, True, weights=variables), record.values
    )


def test_the_gradient_goes_straight_through():
    wrapped = wrapper(layers.Dense(5), (7,), start_bits=3)
    ((weight, quantizer, variables),) = wrapped._weight_vars
    upstream = tf.random.normal(weight.shape)
    with tf.GradientTape() as tape:
        value = quantizer(weight, True, weights=variables)
        loss = tf.reduce_sum(value * upstream)
    assert not np.allclose(value, weight)
    np.testing.assert_array_equal(tape.gradient(loss, weight), upstream)


def test_the_penalty_is_that_of_the_core():
    wrapped = wrapper(layers.Dense(5, name="d"), (7,), start_bits=6)
    ((weight, _, variables),) = wrapped._weight_vars
    model = tf_keras.Sequential([wrapped])

    def penalty():
        return float(tf.add_n(model.losses))

    assert penalty() == 0.0
    variables["lsb"].assign(2)
    assert penalty() == 0.0  # no strength, no pull
    variables["strength"].assign(0.5)
    w = tf.convert_to_tensor(weight)
    scale = uniform.max_scale(w, (-1,))
    lsb = uniform.quantize(w, scale, 6, 2).lsb
    expected = 0.5 * uniform.lsb_penalty(lsb, scale, 6, 2)
    assert penalty() == pytest.approx(float(expected), rel=1e-6)
    assert penalty() > 0
    with tf.GradientTape() as tape:
        loss = tf.add_n(model.losses)
    signs = 0.5 * np.sign(lsb) * uniform.step_size(scale, 4)
    np.testing.assert_allclose(tape.gradient(loss, weight), signs, rtol=1e-5)


@pytest.mark.slow
def test_a_change_of_bits_does_not_trace_again(data):
    model = new_model()
    traces = []
    call = model.call
    model.call = lambda *args, **kwargs: (
        traces.append(0) or call(*args, **kwargs)
    )
    x, y = data
    losses, counts = [], []
    for bits in (8, 2):
        view_at(model, (bits,))
        losses.append(model.test_on_batch(x, y)[0])
        model.train_on_batch(x, y)
        counts.append(len(traces))
    assert counts[0] == counts[-1]
    assert len(set(losses)) == 2


@pytest.mark.parametrize("quantizer", uniform.QUANTIZERS)
def test_a_quantizer_comes_back_from_its_config(quantizer):
    first = msq.RoundClampQuantizer(6, 3, (-2, -1), quantizer)
    second = msq.RoundClampQuantizer.from_config(first.get_config())
    assert first == second
    assert not first != second
    # Before there was a choice scales were the largest magnitude.
    before = {k: v for k, v in first.get_config().items() if k != "scale"}
    assert msq.RoundClampQuantizer.from_config(before).scale == "max"
    assert first != msq.RoundClampQuantizer(6, 3, None, quantizer)
    assert first != "RoundClampQuantizer"
    with quantization.quantize_scope():
        stored = tf_keras.utils.serialize_keras_object(first)
        assert tf_keras.utils.deserialize_keras_object(stored) == first


def test_a_config_comes_back_from_its_config():
    first = msq.MSQQuantizeConfig(
        ["kernel"], [], 5, 3, channel_axes={"kernel": (0,)}, quantizer="dorefa"
    )
    second = msq.MSQQuantizeConfig.from_config(first.get_config())
    assert first == second
    assert first != msq.MSQQuantizeConfig()
    before = {k: v for k, v in first.get_config().items() if k != "scale"}
    assert msq.MSQQuantizeConfig.from_config(before).scale == "max"
    bare = first.without_activations()
    assert bare.get_output_quantizers(layers.Dense(2)) == []
    assert bare.start_bits == 5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"start_bits": 9}, "start_bits"),
        ({"start_bits": 1}, "start_bits"),
        ({"start_bits": 4.0}, "start_bits"),
        ({"min_bits": 0}, "min_bits"),
        ({"start_bits": 4, "min_bits": 5}, "cannot exceed"),
        ({"quantizer": "lsq"}, "quantizer"),
        ({"scale": "learned"}, "scale"),
    ],
)
@pytest.mark.parametrize(
    "kind",
    [msq.RoundClampQuantizer, msq.MSQQuantizeConfig, msq.MSQQuantizeScheme],
)
def test_wrong_arguments_are_refused(kind, wrong, message):
    with pytest.raises(ValueError, match=f"(?s){message}.*Received: "):
        kind(**wrong)


def test_activations_are_not_for_round_clamp():
    class ForActivations(msq.MSQQuantizeConfig):
        def get_activations_and_quantizers(self, layer):
            return [(layer.activation, msq.RoundClampQuantizer())]

    with pytest.raises(ValueError, match="take a MovingAverageQuantizer"):
        wrapper_with(ForActivations())


def test_activation_bits_are_those_of_tfmot():
    with pytest.raises(
        ValueError, match="must be 8.*Received: activation_bits=4"
    ):
        msq.MSQQuantizeConfig(activation_bits=4)


@pytest.mark.parametrize("wrong", ["kernel", 4])
def test_weights_are_a_list_of_names(wrong):
    with pytest.raises(ValueError, match=f"list of names.*Received.*{wrong}"):
        msq.MSQQuantizeConfig(wrong)


def test_a_weight_that_the_layer_has_not_is_named():
    with pytest.raises(ValueError, match=r"no weight \['w'\].*\['bias', 'ker"):
        wrapper_with(msq.MSQQuantizeConfig(weights=["w"]))


def wrapper_with(config):
    """A dense layer quantized by a configuration."""
    annotated = quantization.quantize_annotate_layer(layers.Dense(3), config)
    model = tf_keras.Sequential([layers.Input((4,)), annotated])
    with quantization.quantize_scope({type(config).__name__: type(config)}):
        return quantization.quantize_apply(model)


def test_weights_of_one_name_are_refused():
    class Twins(layers.Layer):
        def build(self, input_shape):
            self.a = tf.Variable(tf.ones((4, 4)), name="w")
            self.b = tf.Variable(tf.ones((4, 4)), name="w")

        def call(self, x):
            return x @ self.a @ self.b

    annotated = quantization.quantize_annotate_layer(
        Twins(), msq.MSQQuantizeConfig(weights=["a", "b"])
    )
    model = tf_keras.Sequential([layers.Input((4,)), annotated])
    with quantization.quantize_scope({"Twins": Twins}):
        with pytest.raises(ValueError, match="2 variables named 'w'"):
            quantization.quantize_apply(model)


def test_records_have_the_axes_that_were_trained():
    """A quantizer may have other axes than its layer's channels."""

    class PerRow(msq.MSQQuantizeConfig):
        def get_weights_and_quantizers(self, layer):
            axes = (-2,) if hasattr(layer, "units") else (-1,)
            return [
                (
                    getattr(layer, self.weight_names(layer)[0]),
                    msq.RoundClampQuantizer(4, channel_axes=axes),
                )
            ]

    model = tf_keras.Sequential(
        [
            layers.Input((5, 5, 3)),
            quantization.quantize_annotate_layer(
                layers.DepthwiseConv2D(3, depth_multiplier=2), PerRow()
            ),
            layers.Flatten(),
            quantization.quantize_annotate_layer(layers.Dense(3), PerRow()),
        ]
    )
    with quantization.quantize_scope({"PerRow": PerRow}):
        model = compile_model(quantization.quantize_apply(model))
    for layer, record in zip(
        (model.layers[-3], model.layers[-1]),
        msq.ModelView(model).quantized_weights(),
        strict=True,
    ):
        ((weight, quantizer, variables),) = layer._weight_vars
        value = quantizer(weight, False, weights=variables)
        np.testing.assert_array_equal(record.values, value)

"""TFMOT's comprehensive guide, section by section, with MSQ in its place.

https://www.tensorflow.org/model_optimization/guide/quantization/training_comprehensive_guide
The lines are the guide's; where it has classes of TFMOT for weights, ours
stand. Every model is a file in the end, and the file is run.
"""

import numpy as np
import pytest
import tensorflow as tf

from tests.tfmot.samples import export
from tests.tfmot.samples import msq
from tests.tfmot.samples import tfmot
from tflite_export import run

quantize_annotate_layer = tfmot.quantization.keras.quantize_annotate_layer
quantize_annotate_model = tfmot.quantization.keras.quantize_annotate_model
quantize_apply = tfmot.quantization.keras.quantize_apply
quantize_scope = tfmot.quantization.keras.quantize_scope
MovingAverageQuantizer = (
    tfmot.quantization.keras.quantizers.MovingAverageQuantizer
)

# Set-up.
INPUT_SHAPE = [20]
rng = np.random.default_rng(0)
x_train = rng.normal(size=(64, 20)).astype(np.float32)
y_train = tf.keras.utils.to_categorical(np.arange(64) % 20, num_classes=20)


def setup_model():
    return tf.keras.Sequential(
        [
            tf.keras.layers.Dense(20, input_shape=INPUT_SHAPE, name="dense"),
            tf.keras.layers.Flatten(),
        ]
    )


@pytest.fixture(scope="module")
def pretrained_weights(tmp_path_factory):
    tf.keras.utils.set_random_seed(0)
    model = setup_model()
    train(model)
    path = str(tmp_path_factory.mktemp("guide") / "weights.tf")
    model.save_weights(path)
    return path


def train(model):
    model.compile(
        # The guide takes a linear layer's outputs for probabilities: as its
        # weights happen to fall, that is NaN.
        loss=tf.keras.losses.CategoricalCrossentropy(from_logits=True),
        optimizer="adam",
        metrics=["accuracy"],
    )
    model.fit(x_train, y_train, verbose=0)


@pytest.fixture
def base_model(pretrained_weights):
    model = setup_model()
    model.load_weights(pretrained_weights)
    return model


def deploy(quant_aware_model, tmp_path, bits, **options):
    """Trains, exports for integers, returns the report."""
    train(quant_aware_model)
    msq.calibrate(quant_aware_model, x_train)
    view = msq.ModelView(quant_aware_model)
    assert view.bits == bits
    report = export(
        view,
        tmp_path / "m.tflite",
        target="cpu_int8",
        representative_data=x_train,
        **options,
    )
    assert {t.name: t.bits for t in report.tensors} == bits
    assert "trained ranges" in report.activations
    return report


@pytest.mark.slow
def test_quantize_whole_model(base_model, tmp_path):
    quant_aware_model = msq.quantize_model(base_model)
    quant_aware_model.summary(print_fn=lambda line: None)
    deploy(quant_aware_model, tmp_path, {"dense": 8})


@pytest.mark.slow
def test_quantize_some_layers(base_model, tmp_path):
    def apply_quantization_to_dense(layer):
        if isinstance(layer, tf.keras.layers.Dense):
            config = msq.MSQQuantizeConfig(start_bits=4)
            return quantize_annotate_layer(layer, config)
        return layer

    annotated_model = tf.keras.models.clone_model(
        base_model, clone_function=apply_quantization_to_dense
    )
    quant_aware_model = quantize_apply(annotated_model)
    deploy(quant_aware_model, tmp_path, {"dense": 4})


@pytest.mark.slow
def test_quantize_some_layers_by_a_scheme(base_model, tmp_path):
    """The guide's line without a configuration; the scheme has it."""

    def apply_quantization_to_dense(layer):
        if isinstance(layer, tf.keras.layers.Dense):
            return quantize_annotate_layer(layer)
        return layer

    annotated_model = tf.keras.models.clone_model(
        base_model, clone_function=apply_quantization_to_dense
    )
    quant_aware_model = quantize_apply(
        annotated_model, scheme=msq.MSQQuantizeScheme(start_bits=5)
    )
    deploy(quant_aware_model, tmp_path, {"dense": 5})


@pytest.mark.slow
def test_functional_example(tmp_path):
    i = tf.keras.Input(shape=(20,))
    x = quantize_annotate_layer(
        tf.keras.layers.Dense(20, name="dense"),
        msq.MSQQuantizeConfig(start_bits=4),
    )(i)
    o = tf.keras.layers.Flatten()(x)
    annotated_model = tf.keras.Model(inputs=i, outputs=o)
    quant_aware_model = quantize_apply(annotated_model)
    quant_aware_model.summary(print_fn=lambda line: None)
    deploy(quant_aware_model, tmp_path, {"dense": 4})


@pytest.mark.slow
def test_sequential_example_checkpoint_and_deserialize(tmp_path):
    annotated_model = tf.keras.Sequential(
        [
            quantize_annotate_layer(
                tf.keras.layers.Dense(
                    20, input_shape=INPUT_SHAPE, name="dense"
                ),
                msq.MSQQuantizeConfig(start_bits=3),
            ),
            tf.keras.layers.Flatten(),
        ]
    )
    quant_aware_model = quantize_apply(annotated_model)
    train(quant_aware_model)

    keras_model_file = str(tmp_path / "model.h5")
    with pytest.warns(UserWarning, match="HDF5"):
        quant_aware_model.save(keras_model_file)
    with quantize_scope():
        loaded_model = tf.keras.models.load_model(keras_model_file)
    np.testing.assert_array_equal(
        loaded_model(x_train), quant_aware_model(x_train)
    )
    deploy(loaded_model, tmp_path, {"dense": 3})


def test_create_and_deploy_quantized_model(base_model, tmp_path):
    """The guide's converter runs, though only `export` keeps the codes."""
    quant_aware_model = msq.quantize_model(base_model)
    train(quant_aware_model)
    msq.calibrate(quant_aware_model, x_train)
    converter = tf.lite.TFLiteConverter.from_keras_model(quant_aware_model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    with pytest.warns(UserWarning, match="Statistics for quantized inputs"):
        quantized_tflite_model = converter.convert()

    (tmp_path / "plain.tflite").write_bytes(quantized_tflite_model)
    got = run(tmp_path / "plain.tflite", x_train)
    np.testing.assert_allclose(got, quant_aware_model(x_train), atol=0.1)


class DefaultDenseQuantizeConfig(tfmot.quantization.keras.QuantizeConfig):
    """The guide's, whose weights are RoundClamp's."""

    def get_weights_and_quantizers(self, layer):
        return [(layer.kernel, msq.RoundClampQuantizer(start_bits=8))]

    def get_activations_and_quantizers(self, layer):
        return [
            (
                layer.activation,
                MovingAverageQuantizer(
                    num_bits=8,
                    symmetric=False,
                    narrow_range=False,
                    per_axis=False,
                ),
            )
        ]

    def set_quantize_weights(self, layer, quantize_weights):
        layer.kernel = quantize_weights[0]

    def set_quantize_activations(self, layer, quantize_activations):
        layer.activation = quantize_activations[0]

    def get_output_quantizers(self, layer):
        return []

    def get_config(self):
        return {}


class CustomLayer(tf.keras.layers.Dense):
    pass


def custom_model(layer, config):
    return quantize_annotate_model(
        tf.keras.Sequential(
            [
                quantize_annotate_layer(
                    layer(20, input_shape=(20,), name="dense"), config
                ),
                tf.keras.layers.Flatten(),
            ]
        )
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", [DefaultDenseQuantizeConfig, msq.MSQQuantizeConfig]
)
def test_quantize_custom_keras_layer(config, tmp_path):
    model = custom_model(CustomLayer, config())
    with quantize_scope(
        {
            "DefaultDenseQuantizeConfig": DefaultDenseQuantizeConfig,
            "CustomLayer": CustomLayer,
        }
    ):
        quant_aware_model = quantize_apply(model)
        deploy(quant_aware_model, tmp_path, {"dense": 8})


class FourBits(DefaultDenseQuantizeConfig):
    """Modify quantization parameters: 4 bits."""

    def get_weights_and_quantizers(self, layer):
        return [(layer.kernel, msq.RoundClampQuantizer(4, channel_axes=None))]


class NoActivations(DefaultDenseQuantizeConfig):
    """Modify parts of layer to quantize: no activations."""

    def get_activations_and_quantizers(self, layer):
        return []

    def set_quantize_activations(self, layer, quantize_activations):
        return


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "bits"), [(FourBits, 4), (NoActivations, 8)]
)
def test_modify_quantization(config, bits, tmp_path):
    model = custom_model(tf.keras.layers.Dense, config())
    with quantize_scope({config.__name__: config}):
        quant_aware_model = quantize_apply(model)
    deploy(quant_aware_model, tmp_path, {"dense": bits})


class FixedRangeQuantizer(tfmot.quantization.keras.quantizers.Quantizer):
    """Forces outputs to be between -1 and 1."""

    def build(self, tensor_shape, name, layer):
        return {}

    def __call__(self, inputs, training, weights, **kwargs):
        return tf.keras.backend.clip(inputs, -1.0, 1.0)

    def get_config(self):
        return {}


class FixedRange(DefaultDenseQuantizeConfig):
    def get_weights_and_quantizers(self, layer):
        return [(layer.kernel, FixedRangeQuantizer())]


@pytest.mark.slow
def test_use_custom_quantization_algorithm(tmp_path):
    """Another's algorithm beside ours: ours are exact, the other is named."""
    model = quantize_annotate_model(
        tf.keras.Sequential(
            [
                quantize_annotate_layer(
                    tf.keras.layers.Dense(20, input_shape=(20,), name="own"),
                    FixedRange(),
                ),
                quantize_annotate_layer(
                    tf.keras.layers.Dense(20, name="dense"),
                    msq.MSQQuantizeConfig(start_bits=4),
                ),
            ]
        )
    )
    with quantize_scope(
        {
            "FixedRange": FixedRange,
            "FixedRangeQuantizer": FixedRangeQuantizer,
        }
    ):
        quant_aware_model = quantize_apply(model)
    kernel = quant_aware_model.get_layer("quant_own").trainable_weights[0]
    kernel.assign(3.0 * rng.normal(size=(20, 20)))
    deploy(quant_aware_model, tmp_path, {"dense": 4})
    (left,) = msq.ModelView(quant_aware_model).skipped_weights()
    assert left.path == "own/kernel"
    assert "FixedRangeQuantizer" in left.reason
    assert np.abs(left.value).max() == 1.0

"""What importing does, and what is said to models of Keras 3."""

import subprocess
import sys
import textwrap

import keras
import pytest

from tests.tfmot.samples import budget
from tests.tfmot.samples import layers
from tests.tfmot.samples import msq
from tests.tfmot.samples import quantization
from tests.tfmot.samples import tf_keras
from tests.tfmot.samples import tiny_data
from tests.tfmot.samples import tiny_model


def run(root, code):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.slow
def test_msq_tf_leaves_legacy_keras_alone(root):
    """And without TFMOT the package says what to install."""
    said = run(
        root,
        """
        import os, sys

        os.environ.pop("TF_USE_LEGACY_KERAS", None)
        import msq_tf, tflite_export
        legacy = ("tf_keras", "tensorflow_model_optimization")
        print(any(name in sys.modules for name in legacy))
        print("TF_USE_LEGACY_KERAS" in os.environ)

        class Without:  # finds what a finder finds, but for one package
            def __init__(self, finder):
                self._finder = finder

            def find_spec(self, name, *others):
                if name.split(".")[0] == legacy[1]:
                    return None
                return self._finder.find_spec(name, *others)

        finders = list(sys.meta_path)
        sys.meta_path[:] = map(Without, finders)
        try:
            import msq_tf.tfmot
        except ImportError as error:
            print(".[tfmot]" in str(error), legacy[1] in str(error))
        sys.meta_path[:] = finders

        from msq_tf import tfmot as msq
        import tensorflow as tf, tf_keras, keras
        print(tf.keras.Model is tf_keras.Model)
        print(msq_tf.MSQCallback is not msq.MSQCallback)
        """,
    )
    assert said == ["False", "False", "True", "True", "True", "True"]


@pytest.mark.parametrize(
    "call",
    [
        msq.quantize_model,
        msq.annotate_model,
        msq.flatten_model,
        msq.strip_quantization,
        msq.bake,
        msq.ModelView,
        lambda model: msq.MSQQuantizeConfig().weight_names(model.layers[0]),
    ],
    ids=lambda call: call.__name__,
)
def test_models_of_keras_3_are_told_where_to_go(call):
    model = tiny_model(keras)
    with pytest.raises(ValueError, match=r"(?s)msq_tf\.quantize_.*keras\.src"):
        call(model)


def test_a_layer_of_keras_3_in_a_wrapper_is_told_where_to_go():
    """TFMOT asks its configurations about layers of every kind."""
    config = msq.MSQQuantizeConfig()
    layer = keras.layers.Dense(3)
    for method in (
        config.get_weights_and_quantizers,
        config.get_activations_and_quantizers,
        config.get_output_quantizers,
    ):
        with pytest.raises(
            ValueError, match=r"layers of tf_keras.*quantize_model"
        ):
            method(layer)


def test_the_callback_of_one_keras_is_told_from_that_of_the_other():
    x, y = tiny_data()
    model = tiny_model(keras)
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"`msq_tf\.MSQCallback`.*keras\.src"):
        model.fit(
            x, y, callbacks=[msq.MSQCallback(budget(), (x, y))], verbose=0
        )


def test_what_quantizes_nothing_is_refused():
    model = tiny_model()
    with pytest.raises(ValueError, match=r"(?s)Nothing.*'tiny'.*conv/kernel"):
        msq.ModelView(model)
    model.compile("sgd", "mse")
    x, y = tiny_data()
    with pytest.raises(ValueError, match="Nothing in the model is quantized"):
        fit = {"verbose": 0, "callbacks": [msq.MSQCallback(budget(), (x, y))]}
        model.fit(x, y, **fit)


def test_the_callback_needs_data():
    x, y = tiny_data()
    model = msq.quantize_model(tiny_model())
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"data=\(x, y\).*data=None"):
        model.fit(x, y, callbacks=[msq.MSQCallback(budget())], verbose=0)


def test_subclassed_models_are_refused():
    class Own(tf_keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, x):
            return self.dense(x)

    model = Own()
    model.build((None, 4))
    for call in (msq.quantize_model, msq.flatten_model):
        with pytest.raises(ValueError, match=r"(?s)Functional.*Own"):
            call(model)


def test_two_quantizers_in_one_model_are_refused():
    model = tf_keras.Sequential([layers.Input((4,))])
    for quantizer in ("round_clamp", "dorefa"):
        model.add(
            quantization.quantize_annotate_layer(
                layers.Dense(3), msq.MSQQuantizeConfig(quantizer=quantizer)
            )
        )
    with pytest.raises(ValueError, match="same quantizer.*dorefa"):
        msq.ModelView(quantization.quantize_apply(model))

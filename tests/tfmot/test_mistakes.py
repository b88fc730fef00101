"""What a user of tf_keras and TFMOT gets wrong is said in words."""

import keras
import numpy as np
import pytest

import msq_tf
from tests.tfmot.samples import budget
from tests.tfmot.samples import compile_model
from tests.tfmot.samples import fit
from tests.tfmot.samples import msq
from tests.tfmot.samples import new_model
from tests.tfmot.samples import quantization
from tests.tfmot.samples import tf_keras
from tests.tfmot.samples import tiny_model

L = tf_keras.layers


def unbuilt():
    return tf_keras.Sequential([L.Dense(3)])


MISTAKES = {
    "axes": (
        lambda: msq.MSQQuantizeConfig(channel_axes={"kernel": -1}),
        "dictionary of names of weights to axes",
    ),
    "no axes": (
        lambda: msq.MSQQuantizeConfig(channel_axes=[-1]),
        "dictionary of names of weights to axes",
    ),
    "a class of schemes": (
        lambda: msq.quantize_model(tiny_model(), msq.MSQQuantizeScheme),
        "`scheme` is none of TFMOT",
    ),
    "the other configuration": (
        lambda: msq.quantize_model(tiny_model(), msq_tf.MSQConfig()),
        "`scheme` is none of TFMOT",
    ),
    "quantized twice": (
        lambda: msq.quantize_model(new_model()),
        "quantized already.*strip_quantization",
    ),
    "annotated after that": (
        lambda: msq.annotate_model(new_model()),
        "quantized already.*strip_quantization",
    ),
    "no weights": (lambda: msq.quantize_model(unbuilt()), "no weights yet"),
    "no model": (lambda: msq.annotate_model("m"), "models of tf_keras"),
    "no ranges": (
        lambda: msq.calibrate(tiny_model(), np.ones((4, 8, 8, 1))),
        "no ranges to set",
    ),
    "floats on purpose": (
        lambda: msq.calibrate(
            new_model(activation_bits=None), np.ones((4, 8, 8, 1))
        ),
        "no ranges to set.*activation_bits=8",
    ),
    "quantize_apply forgotten": (
        lambda: msq.ModelView(msq.annotate_model(tiny_model())),
        "Nothing in the model is quantized by MSQ.*quantize_apply",
    ),
    "text for a number": (
        lambda: msq.MSQQuantizeScheme(start_bits="8"),
        "`start_bits` must be an integer",
    ),
}


@pytest.mark.first(1)
@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name):
    call, words = MISTAKES[name]
    with pytest.raises(ValueError, match=f"(?s){words}.*Received: "):
        call()


def test_callbacks_of_the_other_keras(data):
    with pytest.raises(ValueError, match=r"Expected `msq_tf\.tfmot\.MSQ"):
        fit(new_model(), data, msq_tf.MSQCallback(budget()))
    other = msq_tf.quantize_model(tiny_model(keras))
    compile_model(other, keras)
    with pytest.raises(ValueError, match=r"go through `msq_tf\.quantize_m"):
        fit(other, data, msq.MSQCallback(budget()))


def test_what_is_annotated_twice_is_annotated_once():
    annotated = msq.annotate_model(msq.annotate_model(tiny_model()))
    with quantization.quantize_scope():
        model = quantization.quantize_apply(annotated, msq.MSQQuantizeScheme())
    assert set(msq.ModelView(model).bits) == {"conv", "dw", "head"}

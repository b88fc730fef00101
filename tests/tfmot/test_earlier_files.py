"""Files of earlier versions load, give what they gave, and go on."""

import numpy as np
import pytest

from tests.saved import make
from tests.tfmot.samples import msq
from tests.tfmot.samples import new_model
from tests.tfmot.samples import quantization
from tests.tfmot.samples import tf_keras


def load():
    with quantization.quantize_scope():
        return tf_keras.models.load_model(make.FOLDER / "tfmot_tiny.keras")


def load_weights():
    # Weights alone do not say how they were scaled.
    model = new_model(scale="max")
    model.load_weights(make.FOLDER / "tfmot_tiny.weights.h5")
    return model


@pytest.mark.first(1)
@pytest.mark.parametrize("loaded", [load, load_weights])
def test_a_model_loads_and_its_search_goes_on(loaded):
    data = make.tiny_data()
    model = loaded()
    view = msq.ModelView(model)
    with np.load(make.FOLDER / "tfmot_tiny.npz") as file:
        expected = dict(file)
    for weight in view.quantized_weights():
        assert weight.bits == expected[f"bits {weight.path}"]
        np.testing.assert_array_equal(
            weight.codes, expected[f"codes {weight.path}"]
        )
    # Codes and ranges are exact; processors add up in their own order.
    np.testing.assert_allclose(
        model.predict(data[0], verbose=0),
        expected["outputs"],
        rtol=1e-5,
        atol=1e-6,
    )
    changes = view.history_of_bits()
    assert changes
    make.fit(tf_keras, model, data, make.search(msq, data), make.STOP)
    assert view.history_of_bits()[: len(changes)] == changes
    assert view.compression >= 10

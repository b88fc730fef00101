"""Files of earlier versions load, give what they gave, and go on."""

import keras
import numpy as np
import pytest

import msq_tf
from tests.saved import make

DATA = {"zoo": make.zoo_data, "learned": make.tiny_data}


def assert_is_the_one_saved(qmodel, name, data):
    with np.load(make.FOLDER / f"keras3_{name}.npz") as file:
        expected = dict(file)
    for weight in qmodel.quantized_weights():
        assert weight.bits == expected[f"bits {weight.path}"]
        np.testing.assert_array_equal(
            weight.codes, expected[f"codes {weight.path}"]
        )
    assert len(expected) == 1 + 2 * len(qmodel.paths)
    # Codes and ranges are exact; processors add up in their own order.
    np.testing.assert_allclose(
        qmodel.predict(data[0], verbose=0),
        expected["outputs"],
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize(
    "name", ["learned", pytest.param("zoo", marks=pytest.mark.slow)]
)
def test_a_model_loads_and_its_search_goes_on(name):
    data = DATA[name]()
    qmodel = keras.models.load_model(make.FOLDER / f"keras3_{name}.keras")
    assert_is_the_one_saved(qmodel, name, data)
    changes = qmodel.history_of_bits()
    assert changes
    make.fit(keras, qmodel, data, make.search(msq_tf, data), make.STOP)
    assert qmodel.history_of_bits()[: len(changes)] == changes
    assert qmodel.compression >= 10


@pytest.mark.first(1)
@pytest.mark.parametrize("name", DATA)
def test_weights_load(name):
    data = DATA[name]()
    qmodel = keras.models.load_model(make.FOLDER / f"keras3_{name}.keras")
    for variable in qmodel.variables:
        if "float" in variable.dtype:
            variable.assign(variable * 0)
    qmodel.set_bits(dict.fromkeys(qmodel.paths, 3))
    qmodel.load_weights(make.FOLDER / f"keras3_{name}.weights.h5")
    assert_is_the_one_saved(qmodel, name, data)

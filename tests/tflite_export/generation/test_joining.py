"""Files of one signature each become one file."""

import keras
import numpy as np
import pytest

import tflite_export
from tflite_export.flatbuffer import model as fb
from tflite_export.generation import joining


@pytest.fixture(scope="module")
def files():
    """Two networks with loops, which call graphs of their own."""
    keras.utils.set_random_seed(0)
    gru = keras.layers.GRU(6)
    models = [
        keras.Sequential([keras.Input((length, 4)), gru]) for length in (3, 5)
    ]
    return {
        name: tflite_export.float_tflite(model, batch_size=1)
        for name, model in zip(("short", "long"), models, strict=True)
    }


def test_signatures_compute_what_they_did_alone(files):
    data = joining.join(files)
    model = fb.load(data)
    assert [s.signatureKey for s in model.signatureDefs] == [b"short", b"long"]
    rng = np.random.default_rng(0)
    for name, length in (("short", 3), ("long", 5)):
        x = rng.normal(size=(4, length, 4)).astype("float32")
        for kernels in ("xnnpack", "builtin", "reference"):
            np.testing.assert_array_equal(
                tflite_export.run(data, x, kernels, signature=name),
                tflite_export.run(files[name], x, kernels),
            )


def test_equal_constants_are_stored_once(files):
    data = joining.join({"first": files["long"], "second": files["long"]})
    model = fb.load(data)
    alone = fb.load(files["long"])
    stored = [b for b in model.buffers if b.data is not None and len(b.data)]
    contents = {
        bytes(held)
        for graph in alone.subgraphs
        for tensor in graph.tensors
        if (held := fb.raw_data(alone, tensor)) is not None
    }
    assert {bytes(b.data) for b in stored} == contents
    assert len(stored) == len(contents)
    assert len(model.operatorCodes) == len(alone.operatorCodes)
    assert len(model.subgraphs) == 2 * len(alone.subgraphs)

"""Models by where their scales come from, from training to packed files."""

import keras
import numpy as np
import pytest

import msq_tf
from tests.msq_tf.samples import compile_model
from tests.msq_tf.samples import tiny_model
from tflite_export import export
from tflite_export import run
from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer import packing

BITS = {"conv": 4, "dw": 3, "head": 2}
# From Keras's order of axes to LiteRT's.
ORDER = {"conv": (3, 0, 1, 2), "dw": (3, 0, 1, 2), "head": (1, 0)}


def assert_codes_are_stored(qmodel, path):
    model = fb.load(path.read_bytes())
    stored = {fb.name(tensor): tensor for tensor in model.subgraphs[0].tensors}
    for weight in qmodel.quantized_weights():
        tensor = stored[weight.path]
        width = int(fb.type_name(tensor).removeprefix("INT"))
        codes = packing.unpack(
            fb.raw_data(model, tensor), width, weight.codes.size
        )
        want = np.transpose(weight.codes, ORDER[weight.path]).ravel()
        np.testing.assert_array_equal(codes, want)


@pytest.mark.slow
@pytest.mark.parametrize("granularity", ["PerChannel", "PerTensor"])
def test_codes_of_learned_scales_arrive(granularity, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 8, 8, 1)).astype(np.float32)
    keras.utils.set_random_seed(3)
    config = msq_tf.MSQConfig(
        scale="learned", granularity=getattr(msq_tf, granularity)()
    )
    qmodel = compile_model(msq_tf.quantize_model(tiny_model(), config))
    qmodel.set_bits(BITS)
    before = [v.numpy() for v in qmodel.learned_scales.scale]
    qmodel.fit(x, rng.integers(0, 4, 32), batch_size=16, verbose=0)
    for old, new in zip(before, qmodel.learned_scales.scale, strict=True):
        assert (old != new.numpy()).any()

    path = tmp_path / "m.tflite"
    report = export(qmodel, path, target="min_size", representative_data=x)
    assert all(check.agreement == 1.0 for check in report.checks if check.ran)
    assert not report.float_tensors
    assert_codes_are_stored(qmodel, path)
    np.testing.assert_allclose(
        run(path, x), qmodel(x, training=False), atol=1e-5
    )


@pytest.mark.slow
def test_codes_of_a_statistic_arrive(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 8, 8, 1)).astype(np.float32)
    keras.utils.set_random_seed(3)
    qmodel = compile_model(msq_tf.quantize_model(tiny_model()))
    qmodel.set_bits(BITS)
    qmodel.fit(x, rng.integers(0, 4, 32), batch_size=16, verbose=0)
    path = tmp_path / "m.tflite"
    export(qmodel, path, target="min_size", representative_data=x)
    assert_codes_are_stored(qmodel, path)

"""Means along the last axis, which LiteRT.js computes wrong."""

import keras
import numpy as np
import pytest

import msq_tf
from benchmarks.harness import layer_cases
from tests.tflite_export.integer.test_for_gpu import outputs
from tflite_export import ExportError
from tflite_export import export
from tflite_export import inspect_file
from tflite_export import targets
from tflite_export.devices import web

L = keras.layers


def _mean(shape, axis, keepdims=False):
    inputs = keras.Input(shape)
    x = L.Dense(shape[-1], activation="tanh")(inputs)
    return keras.Model(inputs, keras.ops.mean(x, axis, keepdims=keepdims))


CASES = {
    "last": lambda: _mean((3, 5), -1),
    "last, kept": lambda: _mean((3, 16), -1, True),
    "two": lambda: _mean((3, 5, 4), (2, 3)),
    "not neighbours": lambda: _mean((3, 5, 4), (1, 3), True),
    "all": lambda: _mean((4, 4, 4), (1, 2, 3)),
    "all, kept": lambda: _mean((4,), -1, True),
    "attention": layer_cases.CASES["AdditiveAttention"],
}


def _exported(name, target, path):
    keras.utils.set_random_seed(0)
    model = CASES[name]()
    x = layer_cases.samples(model)
    fed = x if len(x) > 1 else x[0]
    qmodel = msq_tf.quantize_model(model)
    qmodel(fed, training=True)
    export(qmodel, path, target, fed, batch_size=1, verbose=False)
    return path.read_bytes(), x


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_web_computes_the_same(name, tmp_path, root, monkeypatch):
    plain, _ = _exported(name, "cpu_int8", tmp_path / "plain")
    other, x = _exported(name, "web", tmp_path / "other")
    assert plain != other
    for ours, theirs in zip(outputs(other, x), outputs(plain, x), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            # Ranges that were measured may be a float apart.
            np.testing.assert_allclose(a, b, rtol=1e-6)
    monkeypatch.chdir(root)
    if web.folder() is None:
        pytest.skip("no LiteRT.js; `make setup-web` brings it")
    found = web.verify(other, x, targets.load("web"))
    assert {found[kernels] for kernels in web.KERNELS} == {0.0}
    # Where it no longer is wrong, the change can go.
    with pytest.raises(ExportError, match="relaxed SIMD"):
        web.verify(plain, x, targets.load("cpu_int8"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "axis"), [((4, 4, 8), (1, 2)), ((5, 1), 1), ((3, 5, 4), 2)]
)
def test_other_means_stay(shape, axis, tmp_path):
    CASES["other"] = lambda: _mean(shape, axis)
    try:
        _exported("other", "web", tmp_path / "m")
    finally:
        del CASES["other"]
    assert not any("TRANSPOSE" in op for op in inspect_file(tmp_path / "m").ops)

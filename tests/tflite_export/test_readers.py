"""Other people's readers open our files: OpenVINO, tf2onnx, Model Explorer."""

import json
import subprocess

import keras
import numpy as np
import pytest

import msq_tf
from tflite_export import export
from tflite_export.runtime import interpreter


@pytest.fixture(scope="module")
def python(root):
    """The interpreter of their environment."""
    found = root / ".venv-readers" / "bin" / "python"
    if not found.exists():
        pytest.skip("no .venv-readers; `make setup-readers` makes it")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cpu_float", "cpu_int8"])
def test_they_read_and_compute(target, python, root, tmp_path):
    inputs = keras.Input((12, 12, 3), name="image")
    x = keras.layers.Conv2D(8, 3, activation="relu", name="stem")(inputs)
    x = keras.layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, keras.layers.Dense(5, name="scores")(x))
    integer = target == "cpu_int8"
    qmodel = msq_tf.quantize_model(
        model, msq_tf.MSQConfig(activation_bits=8 if integer else None)
    )
    x = np.random.default_rng(0).normal(size=(16, 12, 12, 3)).astype("f")
    if integer:
        msq_tf.calibrate(qmodel, x)
    path = tmp_path / "m.tflite"
    export(qmodel, path, target, x, batch_size=1, verbose=False)
    wanted = interpreter.run(path.read_bytes(), x[:1])
    np.savez(tmp_path / "x.npz", x=x[:1])
    worker = root / "tests" / "tflite_export" / "readers_worker.py"
    done = subprocess.run(
        [python, "-P", worker, path, tmp_path / "x.npz"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    wide = np.ptp(model(x))
    # OpenVINO computes floats as LiteRT does; the ONNX file of tf2onnx is off
    # by half a percent. Of integers both make floats.
    for reader, apart in (("openvino", 1e-5), ("tf2onnx", 0.01)):
        np.testing.assert_allclose(
            found[reader],
            wanted,
            atol=wide * (0.03 if integer else apart),
            err_msg=reader,
        )
    for adapter, groups in found["explorer"].items():
        shown = set(groups)
        assert {"stem", "depthwise", "scores"} <= shown, adapter

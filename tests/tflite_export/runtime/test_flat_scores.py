"""A SOFTMAX ends no process: not by flat scores, not by a fine grid."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import msq_tf
from tflite_export import export
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import model as fb
from tflite_export.runtime import flat_scores
from tflite_export.runtime import interpreter

CLASSES = 600
# What nothing guards: prints one output, or dies.
UNGUARDED = """
import sys
import numpy as np
from ai_edge_litert import interpreter as litert
loaded = litert.Interpreter(
    sys.argv[1], experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF
)
place = loaded.get_input_details()[0]["index"]
loaded.resize_tensor_input(place, (1, 1))
loaded.allocate_tensors()
loaded.set_tensor(place, np.float32([[float(sys.argv[2])]]))
loaded.invoke()
print("alive")
"""


@pytest.fixture(scope="module")
def qmodel():
    """One score is as large as the input, and the others are zero."""
    inputs = keras.Input((1,), name="x")
    scores = keras.layers.Dense(CLASSES, use_bias=False, name="scores")(inputs)
    model = keras.Model(inputs, keras.layers.Softmax(name="p")(scores))
    kernel = np.zeros((1, CLASSES), np.float32)
    kernel[0, 7] = 1.0
    model.get_layer("scores").set_weights([kernel])
    config = msq_tf.MSQConfig(activation_bits=8, granularity=msq_tf.PerTensor())
    qmodel = msq_tf.quantize_model(model, config)
    msq_tf.calibrate(qmodel, np.float32([[0.0], [8.0]]))
    return qmodel


@pytest.fixture(scope="module")
def flat(qmodel, tmp_path_factory):
    path = tmp_path_factory.mktemp("flat") / "m.tflite"
    x = np.float32([[0.0], [8.0]])
    return path, export(
        qmodel, path, "cpu_int8", x, min_agreement=0.0, verbose=False
    )


def test_an_export_tells_them_and_goes_on(flat):
    _, report = flat
    checks = {check.kernels: check for check in report.checks}
    assert checks["xnnpack"].ran and checks["builtin"].ran
    assert not checks["reference"].ran
    assert "add up to 600, and must not reach 512" in checks["reference"].reason


def test_the_limit_is_that_of_the_kernel(flat):
    path, _ = flat
    data = path.read_bytes()
    model = fb.read(data)
    (softmax,) = flat_scores._wide(data)
    step = float(
        model.subgraphs[0].tensors[softmax.scores].quantization.scale[0]
    )
    sums = 1 + (CLASSES - 1) * np.exp(-step * np.arange(20))
    last = int(np.flatnonzero(sums >= 512)[-1])
    session = interpreter.Session(data, "reference")
    for units, dies in ((last, True), (last + 1, False)):
        x = np.float32([[units * step]])
        done = subprocess.run(
            [sys.executable, "-c", UNGUARDED, path, str(x[0, 0])],
            capture_output=True,
            check=False,
        )
        assert (done.returncode != 0) == dies, done.stderr
        if dies:
            with pytest.raises(RuntimeError, match="as flat as here"):
                session([x])
        else:
            assert session([x])[0].shape == (1, CLASSES)


def test_peaks_and_few_scores_are_no_matter(qmodel, tmp_path):
    x = np.float32([[7.0], [8.0]])
    report = export(qmodel, tmp_path / "m.tflite", "cpu_int8", x, verbose=False)
    assert all(check.ran for check in report.checks)
    few = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(510), keras.layers.Softmax()]
    )
    few = msq_tf.quantize_model(few, msq_tf.MSQConfig(activation_bits=8))
    msq_tf.calibrate(few, x)
    export(few, tmp_path / "few.tflite", "cpu_int8", 0 * x, verbose=False)
    data = (tmp_path / "few.tflite").read_bytes()
    assert flat_scores._wide(data) == []
    interpreter.run(data, 0 * x, "reference")


def test_no_file_for_a_device_that_they_would_end(qmodel, tmp_path):
    pytest.importorskip("tflite_micro", reason="tflite-micro is not installed")
    with pytest.raises(ExportError, match="would end it on the device.*logits"):
        export(
            qmodel,
            tmp_path / "m.tflite",
            "mcu",
            np.float32([[0.0], [8.0]]),
            min_agreement=0.0,
            verbose=False,
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.first(2)
@pytest.mark.parametrize("kind", ["softmax", "log_softmax"])
@pytest.mark.parametrize("target", ["cpu_int8", "mcu"])
def test_scores_of_next_to_no_range_have_a_grid_that_kernels_take(
    target, kind, tmp_path
):
    """Below a unit of 2**-26 they end the process when they are set up."""
    if target == "mcu":
        pytest.importorskip("tflite_micro", reason="no tflite-micro")
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("f") * 1e-9
    inputs = keras.Input((4,))
    hidden = keras.layers.Activation(kind, name="p")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, name="head")(hidden))
    qmodel = msq_tf.quantize_model(model, msq_tf.MSQConfig(activation_bits=8))
    msq_tf.calibrate(qmodel, x)
    path = tmp_path / "m.tflite"
    report = export(qmodel, path, target, x, verbose=False)
    assert all(check.ran for check in report.checks)
    found = fb.read(path.read_bytes())
    graph = found.subgraphs[0]
    (op,) = [o for o in graph.operators if fb.op_name(found, o) == kind.upper()]
    (scores,) = fb.inputs(op)
    read = graph.tensors[scores]
    # A LOG_SOFTMAX is computed in float where that can be.
    if fb.type_name(read) == "INT8":
        assert read.quantization.scale[0] >= 2.0**-26
    else:
        assert kind == "log_softmax" and target == "cpu_int8"
    np.testing.assert_allclose(
        interpreter.run(path, x), qmodel.predict(x, verbose=0), atol=1e-2
    )

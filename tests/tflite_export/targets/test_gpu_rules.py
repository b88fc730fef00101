"""What a table says of a GPU is what the accelerator says."""

import keras
import numpy as np
import pytest

import msq_tf
from tests.tflite_export.integer.test_for_gpu import CASES
from tests.tflite_export.integer.test_for_gpu import exported
from tflite_export import ExportError
from tflite_export import export
from tflite_export import lint
from tflite_export import targets
from tflite_export.devices import gpu
from tflite_export.flatbuffer import model as fb
from tflite_export.targets import gpu_rules
from tflite_export.targets.lint import check

WORDS = {
    "transposed, padded": "cuts other edges",
    "transposed, its strides": "cuts other edges",
    "transposed, uneven": "cuts other edges",
    "a steep slope": "larger of a number",
    "one matrix, several": "spread one matrix",
    "several matrices, one": "spread one matrix",
    "strides": "ignores the strides",
    "strides of 3, padded": "ignores the strides",
    "strides twice": "ignores the strides",
    "unequal strides": "ignores the strides",
    "operands of fewer axes": "fewer axes",
    "average": "fewer axes",
    "a matrix of fewer axes": "fewer axes",
    "a matrix with itself": "times itself",
    "a part of a split": "nothing reads",
    "a part of uneven ones": "nothing reads",
    "a part of unstack": "nothing reads",
    "groups of one pixel": "ignores the strides",
}
WORDS |= {name: "grouped" for name in CASES if name not in WORDS}


def notes(findings):
    assert not any(f.severe for f in findings if f.rule == "gpu")
    return [f.message for f in findings if f.rule == "gpu"]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_noted(name, tmp_path):
    exported(name, "cpu_int8", tmp_path / "plain")
    exported(name, "web", tmp_path / "other")
    found = notes(lint(tmp_path / "plain", "web"))
    # A layer that is used twice is noted twice.
    assert found and len(set(found)) == 1
    assert found[0].startswith("wrong on a GPU") and WORDS[name] in found[0]
    assert not notes(lint(tmp_path / "other", "web"))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cpu_float", "min_size", "mcu"])
def test_versions_are_those_that_the_accelerator_takes(target, tmp_path):
    if gpu.vulkan() is None:
        pytest.skip("no Vulkan; `make setup-browser` brings SwiftShader")
    _, data, x = exported("unequal strides", target, tmp_path / "m")
    noted = notes(check(data, "web"))
    found = gpu.verify(data, x, targets.load(target))
    assert noted and not found["fully_accelerated"]
    assert found["left"] == sorted(
        f"{name}: Max version supported: {newest}. Requested version {version}."
        for name, version, newest in left(data)
    )


def left(data):
    known = targets.load("web").options["rules"]["gpu"]["versions"]
    return {
        (fb.code_name(code), code.version, known[fb.code_name(code)])
        for code in fb.load(data).operatorCodes
        if code.version > known.get(fb.code_name(code), code.version)
    }


@pytest.mark.slow
@pytest.mark.parametrize("bias", [True, False])
def test_a_dense_layer_of_floats_loses_its_bias(bias, tmp_path):
    if gpu.vulkan() is None:
        pytest.skip("no Vulkan; `make setup-browser` brings SwiftShader")
    layer = keras.layers.Dense(4, use_bias=bias, bias_initializer="ones")
    qmodel = msq_tf.quantize_model(keras.Sequential([keras.Input((8,)), layer]))
    x = np.random.default_rng(0).normal(size=(8, 8)).astype("f")
    path = tmp_path / "m"
    export(qmodel, path, "cpu_float", x, verbose=False)
    noted = any("drops the bias" in text for text in notes(lint(path, "web")))
    assert noted is bias
    if bias:
        # Where it is right, the note can go.
        with pytest.raises(ExportError, match="drops the bias.*something else"):
            gpu.verify(path.read_bytes(), [x], targets.load("cpu_float"))
    else:
        gpu.verify(path.read_bytes(), [x], targets.load("cpu_float"))


@pytest.mark.slow
@pytest.mark.parametrize("target", ("cpu_int8", "web"))
def test_grouped_convolutions_are_noted_where_they_are_wrong(target, tmp_path):
    """Groups of two channels are; the target `web` takes them apart."""
    layer = keras.layers.Conv2D(8, 3, groups=2)
    model = keras.Sequential([keras.Input((8, 8, 4)), layer])
    qmodel = msq_tf.quantize_model(model)
    x = np.random.default_rng(0).normal(size=(8, 8, 8, 4)).astype("f")
    path = tmp_path / "m"
    export(qmodel, path, target, x, batch_size=1, verbose=False)
    found = [note for note in notes(lint(path, "web")) if "grouped" in note]
    assert len(found) == (target != "web")


@pytest.mark.parametrize(
    ("source", "weight", "mixed"),
    (
        ((1, 7, 7, 8), (8, 3, 3, 8), False),
        ((1, 7, 7, 8), (8, 3, 3, 4), False),
        ((1, 7, 7, 128), (128, 1, 3, 4), False),
        ((1, 7, 7, 8), (8, 1, 1, 4), True),
        ((1, 7, 7, 8), (6, 3, 3, 4), True),
        ((1, 7, 7, 12), (8, 3, 3, 6), True),
        ((-1, -1, -1, -1), (8, 3, 3, 6), False),
    ),
)
def test_which_groups_a_gpu_mixes(source, weight, mixed):
    assert gpu_rules.mixes_groups(source, weight) is mixed


@pytest.mark.slow
def test_16_bits_are_left(tmp_path):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    qmodel = msq_tf.quantize_model(model, msq_tf.MSQConfig(activation_bits=16))
    x = np.random.default_rng(0).normal(size=(8, 8)).astype("f")
    msq_tf.calibrate(qmodel, x)
    export(qmodel, tmp_path / "m", "cpu_int16", x, verbose=False)
    assert "a GPU leaves INT16 to the CPU" in notes(lint(tmp_path / "m", "web"))

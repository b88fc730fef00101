"""`BudgetRule(device=)` promises what the files of that target keep."""

import json

import keras
import numpy as np
import pytest

import msq_tf
from msq_tf.bit_widths import MAX_BITS
from msq_tf.rules import storage
from msq_tf.rules.records import LayerStats
from msq_tf.sensitivity.statistics import layer_outlines
from tflite_export import export
from tflite_export import targets
from train.models import builders


@pytest.fixture(scope="module")
def resnet8():
    """ResNet-8 with trained-looking biases, at mixed widths."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    model = builders.build("resnet8", (28, 28, 1), 10)
    for variable in model.variables:
        if len(variable.shape) == 1:
            noise = rng.uniform(0.5, 1.5, variable.shape)
            variable.assign(noise.astype(np.float32))
    qmodel = msq_tf.quantize_model(model)
    widths = (8, 4, 2, 4)
    qmodel.set_bits({p: widths[i % 4] for i, p in enumerate(qmodel.paths)})
    return qmodel, rng.normal(size=(8, 28, 28, 1)).astype(np.float32)


@pytest.mark.first(1)
@pytest.mark.parametrize("name", ["min_size", "cpu_int8", "mcu", "web"])
def test_predicted_bytes_are_within_three_percent(name, resnet8, tmp_path):
    qmodel, images = resnet8
    layers = layer_outlines(qmodel)
    device = storage.device(name)
    codes = sum(
        layer.size * device.stored(layer, layer.bits) / 8 for layer in layers
    )
    report = export(
        qmodel,
        tmp_path / "m.tflite",
        target=name,
        representative_data=images,
    )
    predicted = codes + device.overhead(layers)
    assert predicted == pytest.approx(report.file_bytes, rel=0.03)
    # Containers are those of the prediction, weight by weight.
    stored = {layer.path: layer for layer in layers}
    for tensor in report.tensors:
        layer = stored[tensor.name]
        assert tensor.container_bits == device.stored(layer, layer.bits)


def test_devices_are_targets():
    names = {name.partition(":")[0] for name in storage.DEVICES}
    assert names <= set(targets.names())


@pytest.mark.parametrize("name", storage.DEVICES)
def test_no_width_is_taken_that_saves_nothing(name):
    """A width below another one is smaller in the file, at every kind."""
    device = storage.device(name)
    for kind, widths in device.widths.items():
        layer = LayerStats("weight", 1, MAX_BITS, kind=kind, inputs=4)
        stored = [device.stored(layer, bits) for bits in widths]
        assert stored == sorted(set(stored), reverse=True), kind
        # Codes in between take the next container, so no search offers them.
        assert stored == list(widths)


def test_the_npus_bytes_are_those_of_its_compiler(root):
    """Of the three networks that the constants were fitted to."""
    path = root / "benchmarks" / "results" / "qualcomm.json"
    runs = json.loads(path.read_text())["results"]["runs"]
    for run in runs:
        if run["architecture"] != "v75":
            continue
        device = storage.device(f"qualcomm_npu:{run['soc']}")
        rest = (
            device.base_bytes
            + device.layer_bytes * run["layers"]
            + device.channel_bytes * run["channels"]
        )
        predicted = run["stored_bits"] / 8 + rest
        assert predicted == pytest.approx(run["context_bytes"], rel=0.07)

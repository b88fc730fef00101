"""Train, save, load, export: every kind of layer, bits 2 to 8 in turn."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

import msq_tf
from tests.msq_tf.samples import compile_model
from tests.msq_tf.samples import zoo_model
from tflite_export import export
from tflite_export import run


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Trained, saved and loaded, with negative gammas and a dead channel."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    inputs = [
        rng.normal(size=(16, 12, 12, 4)).astype(np.float32),
        rng.integers(0, 11, (16, 5)).astype(np.int32),
    ]
    model = zoo_model()
    norm = model.get_layer("bn1")
    norm.gamma.assign(np.linspace(-2, 2, 8))
    kernel = model.get_layer("c1").kernel
    values = kernel.numpy()
    values[..., 3] = 0.0
    kernel.assign(values)
    qmodel = compile_model(msq_tf.quantize_model(model))
    qmodel.set_bits({p: 2 + i % 7 for i, p in enumerate(qmodel.paths)})
    qmodel.fit(inputs, rng.integers(0, 3, 16), batch_size=8, verbose=0)
    values = kernel.numpy()
    values[..., 3] = 0.0
    kernel.assign(values)
    path = tmp_path_factory.mktemp("whole") / "m.keras"
    qmodel.save(path)
    return keras.models.load_model(path), inputs


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cpu_float", "min_size"])
def test_every_code_arrives(loaded, target, tmp_path):
    qmodel, inputs = loaded
    path = tmp_path / "m.tflite"
    report = export(qmodel, path, target=target, representative_data=inputs)
    weights = {w.path: w for w in qmodel.quantized_weights()}
    assert {t.name for t in report.tensors} == set(weights)
    assert {t.bits for t in report.tensors} == set(range(2, 9))
    assert not report.float_tensors
    for tensor in report.tensors:
        assert tensor.distinct_codes == weights[tensor.name].distinct_codes or (
            tensor.flipped  # 1 and -1 fall together or apart
        )
    assert [check.ran for check in report.checks] == [True] * 3
    assert all(check.agreement == 1.0 for check in report.checks)

    # Read by the runtime, not by us; layout and signs may differ.
    if target == "cpu_float":
        interpreter = Interpreter(str(path))
        stored = {
            detail["name"]: interpreter.get_tensor(detail["index"])
            for detail in interpreter.get_tensor_details()
            if detail["dtype"] == np.int8
        }
        for name, weight in weights.items():
            if name.startswith("gru/"):  # in the loop's own subgraph
                continue
            np.testing.assert_array_equal(
                np.sort(np.abs(stored[name].astype(int)), axis=None),
                np.sort(np.abs(weight.codes.astype(int)), axis=None),
                err_msg=name,
            )
    outputs = run(path, inputs)
    np.testing.assert_allclose(
        np.squeeze(outputs), qmodel(inputs, training=False), atol=1e-5
    )

"""Both generations of Keras leave through the same door."""

import re

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import msq_tf
from tests.tfmot.samples import budget
from tests.tfmot.samples import compile_model
from tests.tfmot.samples import export
from tests.tfmot.samples import fit
from tests.tfmot.samples import images
from tests.tfmot.samples import msq
from tests.tfmot.samples import new_model
from tests.tfmot.samples import randomize
from tests.tfmot.samples import tf_keras
from tests.tfmot.samples import view_at
from tflite_export import ExportError


def architecture(module):
    """Most kinds of layers, with norms to fold, in either Keras."""
    layers = module.layers
    inputs = module.Input((12, 12, 3), name="image")
    x = layers.Conv2D(8, 3, use_bias=False, name="stem")(inputs)
    x = layers.ReLU(name="relu1")(layers.BatchNormalization(name="bn1")(x))
    y = layers.DepthwiseConv2D(3, padding="same", name="dw")(x)
    y = layers.BatchNormalization(name="bn2")(y)
    y = layers.Conv2D(8, 1, activation="relu", name="point")(y)
    x = layers.Add(name="add")([x, y])
    x = layers.SeparableConv2D(6, 3, activation="relu", name="sep")(x)
    x = layers.Conv2D(4, 3, strides=2, padding="same", name="conv")(x)
    x = layers.ReLU(name="relu2")(x)
    x = layers.Flatten(name="flat")(x)
    x = layers.Dense(5, activation="tanh", name="mid")(x)
    return module.Model(inputs, layers.Dense(4, name="head")(x), name="both")


def weights_in_file(path):
    """`{(shape, type): [(bytes of codes, scales)]}` of integer tensors."""
    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    graph = model.Subgraphs(0)
    found = []
    for i in range(graph.TensorsLength()):
        tensor = graph.Tensors(i)
        data = model.Buffers(tensor.Buffer()).DataAsNumpy()
        kinds = schema.TensorType
        if tensor.Type() not in (kinds.INT2, kinds.INT4, kinds.INT8):
            continue
        if not isinstance(data, np.ndarray):
            continue
        found.append(
            (
                tuple(tensor.ShapeAsNumpy()),
                tensor.Type(),
                data.tobytes(),
                tensor.Quantization().ScaleAsNumpy().tobytes(),
            )
        )
    return sorted(found)


@pytest.fixture(scope="module")
def twins():
    """A Keras 3 model and a tf_keras one, of equal weights and bits."""
    plain = architecture(keras)
    randomize(plain)
    old = architecture(tf_keras)
    for layer in plain.layers:
        old.get_layer(layer.name).set_weights(layer.get_weights())
    qmodel = msq_tf.quantize_model(plain)
    scheme = msq.MSQQuantizeScheme(activation_bits=None)
    view = view_at(msq.quantize_model(old, scheme))
    qmodel.set_bits(view.bits)
    assert qmodel.bits == view.bits
    assert len(set(view.bits.values())) == 7
    return qmodel, view


@pytest.mark.slow
def test_both_say_the_same_of_every_weight(twins):
    for a, b in zip(*(t.quantized_weights() for t in twins), strict=True):
        assert (a.path, a.layer, a.bits) == (b.path, b.layer, b.bits)
        assert (a.layout, a.channel_axes) == (b.layout, b.channel_axes)
        np.testing.assert_array_equal(a.codes, b.codes)
        np.testing.assert_array_equal(a.step, b.step)
    texts = [str(msq_tf.precision_report(t)) for t in twins]
    assert texts[0] == texts[1]


@pytest.mark.first(1)
@pytest.mark.parametrize("target", ["cpu_float", "min_size", "cpu_int8"])
def test_both_end_in_the_same_bytes(twins, target, tmp_path):
    x = images(12, 12, 3)
    files, reports = [], []
    for k, model in enumerate(twins):
        files.append(tmp_path / f"{k}.tflite")
        reports.append(
            export(model, files[-1], target=target, representative_data=x)
        )
    ours, theirs = map(weights_in_file, files)
    assert len(ours) >= 8
    assert ours == theirs
    names = [{t.name: t.container for t in r.tensors} for r in reports]
    assert names[0] == names[1]


@pytest.fixture(scope="module")
def with_ranges(data):
    """A view of a model that was trained with integer activations."""
    model = new_model()
    randomize(model)
    fit(model, data, epochs=1)
    msq.calibrate(model, data[0])
    return view_at(model, (4, 8, 3))


@pytest.mark.slow
def test_trained_ranges_go_into_the_file(with_ranges, data, tmp_path):
    """Every operator and the whole file agree with what was trained."""
    report = export(
        with_ranges,
        tmp_path / "m.tflite",
        target="cpu_int8",
        representative_data=data[0][:32],
    )
    assert "0 on calibrated" in report.activations
    ran = [check for check in report.checks if check.ran]
    assert [check.kernels for check in ran[:2]] == ["xnnpack", "builtin"]
    assert all(check.operator_units <= 1 for check in ran)
    (note,) = [n for n in report.notes if "trained ranges" in n]
    units = re.search(r"differs by up to (\d+) unit", note)
    assert units is not None and int(units[1]) <= 1


@pytest.mark.slow
def test_mixed_precision_trains_float32_codes(data, tmp_path):
    """Weights read as float16 in layers; codes and files do not."""
    policy = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = new_model(activation_bits=None)
        callback = msq.MSQCallback(budget(), data, interval=2)
        fit(model, data, callback, epochs=2)
        view = msq.ModelView(model)
        assert view.compression >= 8.0
        ((weight, quantizer, variables),) = model.layers[0]._weight_vars
        np.testing.assert_array_equal(
            quantizer(weight, False, weights=variables),
            view.quantized_weights()[0].values,
        )
        plain = msq.bake(model)
        assert plain.layers[0].compute_dtype == "float32"
        np.testing.assert_allclose(plain(data[0]), model(data[0]), atol=5e-3)
        for target in ("min_size", "cpu_int8"):
            export(
                view,
                tmp_path / "m.tflite",
                target=target,
                representative_data=data[0],
            )
        assert tf_keras.mixed_precision.global_policy().name == "mixed_float16"
    finally:
        tf_keras.mixed_precision.set_global_policy(policy)


def test_ranges_need_no_data(with_ranges, tmp_path):
    """They were trained; without representative data random inputs check."""
    report = export(with_ranges, tmp_path / "m.tflite", target="cpu_int8")
    assert report.inputs != "given"


def test_float_activations_need_data_for_integers(tmp_path):
    view = msq.ModelView(new_model(activation_bits=None))
    with pytest.raises(ExportError, match="needs activation ranges"):
        export(view, tmp_path / "m.tflite", target="cpu_int8")
    assert not list(tmp_path.iterdir())


def test_another_width_is_refused(data, tmp_path):
    view = msq.ModelView(new_model())
    with pytest.raises(ExportError, match="trained with 8-bit activations"):
        export(
            view,
            tmp_path / "m.tflite",
            target="cpu_int16",
            representative_data=data[0],
        )


def test_a_diverged_model_is_refused(data, tmp_path):
    model = compile_model(new_model())
    view = msq.ModelView(model)
    view.kernels[0].assign(view.kernels[0] * np.nan)
    with pytest.raises(ValueError, match="'conv' is not finite"):
        export(view, tmp_path / "m.tflite", representative_data=data[0])
    assert not list(tmp_path.iterdir())

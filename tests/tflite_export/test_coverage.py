"""One layer or operation each, from training to a file that runs."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest

import msq_tf
from benchmarks.harness import layer_cases
from msq_tf.core import layer_registry
from msq_tf.keras3 import target_checks
from tests.tflite_export.integer.test_float_islands import types
from tflite_export import ExportError
from tflite_export import export
from tflite_export import inspect_file
from tflite_export import targets
from tflite_export.devices import ethos_u
from tflite_export.devices import micro
from tflite_export.devices import qualcomm_tools
from tflite_export.flatbuffer import model as fb
from tools import layers_page

L = keras.layers
# What is different from all that other tests export, or new.
SOME = (
    *("Embedding", "Embedding, float tokens", "Rescaling, uint8", "LSTM"),
    *("Conv3D", "UnitNormalization", "activation softplus", "activation selu"),
    *("activation hard_tanh", "ops.absolute", "ops.exp", "ops.sign"),
    *("ops.negative", "ops.square", "ops.divide", "ops.where"),
    *("mask by comparison", "ops.sum", "ops.cumsum", "squared difference"),
    *("ops.rsqrt", "ops.log", "ops.sqrt", "ELU"),
)
PAGE = layers_page.on_page()
ON_MCU = (
    *("Embedding", "Rescaling, uint8", "UpSampling1D", "UpSampling2D"),
    *("RepeatVector", "activation softplus", "activation mish", "ops.sin"),
    *("activation hard_tanh", "ops.sum", "mask by comparison", "ops.where"),
)


@pytest.fixture(autouse=True)
def _without_arenas(monkeypatch):
    """The smallest arena has tests of its own, and takes a dozen processes."""
    monkeypatch.setattr(micro, "smallest_arena", lambda data, x, most: most)


def trained(model, **config):
    keras.utils.set_random_seed(0)
    x = layer_cases.samples(model)
    x = x if len(x) > 1 else x[0]
    config = {"activation_bits": 8, **config}
    qmodel = msq_tf.quantize_model(model, msq_tf.MSQConfig(**config))
    qmodel(x, training=True)
    return qmodel, x


def ops(path):
    return [name.split()[0] for name in inspect_file(path).ops]


def _exports(name, target, path):
    qmodel, x = trained(layer_cases.CASES[name]())
    report = export(qmodel, path, target, x)
    assert any("with its trained ranges" in note for note in report.notes)


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
def test_layers_run_as_trained(name, tmp_path):
    _exports(name, "cpu_int8", tmp_path / "m")


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_MCU)
def test_layers_run_on_microcontrollers_as_trained(name, tmp_path):
    _exports(name, "mcu", tmp_path / "m")


@pytest.mark.slow
def test_hard_swish_runs_on_an_edge_tpu_as_trained(tmp_path):
    path = tmp_path / "m"
    _exports("activation hard_silu", "edgetpu", path)
    assert {"ADD", "MUL"} <= set(ops(path)) and "HARD_SWISH" not in ops(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", layer_cases.CASES)
def test_every_cell_of_the_page(name, tmp_path):
    """What the page says is exported is, and runs; the rest is refused."""
    qmodel, x = trained(layer_cases.CASES[name]())
    for target in ("cpu_int8", "mcu", "edgetpu", "cpu_float", "min_size"):
        # What computes in float runs all of them.
        cell = PAGE[name].get(target)
        path = tmp_path / f"{target}.tflite"
        if cell == "-":
            with pytest.raises(ExportError):
                export(qmodel, path, target, x)
        else:
            export(qmodel, path, target, x)
            written = fb.load(path.read_bytes())
            assert cell in (None, layers_page.spelled(written)), target


@pytest.mark.slow
@pytest.mark.parametrize("name", layer_cases.CASES)
def test_every_cell_of_the_npu(name, root, monkeypatch, tmp_path):
    """Its compiler takes what the page says, and the emulator agrees."""
    monkeypatch.setenv(qualcomm_tools.ENVIRONMENT, str(root / ".venv-qnn"))
    if qualcomm_tools.folder() is None:
        pytest.skip("no .venv-qnn; `make setup-qnn` makes it")
    if PAGE[name]["qualcomm_npu"] == "-":
        pytest.skip("refused")
    qmodel, x = trained(layer_cases.CASES[name]())
    report = export(
        qmodel,
        tmp_path / "m",
        "qualcomm_npu",
        x,
        device_options={"socs": ["SM8650"]},
        verbose=False,
    )
    units = report.device["socs"]["SM8650"]["max_units"]
    told = any("on the emulated NPU" in note for note in report.notes)
    assert units <= 2 or told


@pytest.mark.slow
def test_one_model_goes_everywhere(tmp_path, monkeypatch):
    monkeypatch.setattr(ethos_u, "finish", lambda *_, **__: _nothing())
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            L.Conv2D(8, 3, activation="relu"),
            L.UpSampling2D(2),
            L.BatchNormalization(),
            L.GlobalAveragePooling2D(),
            L.Dense(5),
        ]
    )
    qmodel, x = trained(
        model, targets=("mcu", "edgetpu", "ethos_u", "cpu_int8", "web")
    )
    qmodel.set_bits(dict.fromkeys(qmodel.bits, 4))
    for target in (
        *("cpu_float", "min_size", "cpu_int8", "web"),
        *("mcu", "ethos_u", "edgetpu"),
    ):
        export(qmodel, tmp_path / target, target, x)
    # A scale per channel, which the device's FULLY_CONNECTED hasn't.
    assert "FULLY_CONNECTED" not in ops(tmp_path / "edgetpu")
    for target in ("mcu", "edgetpu"):
        assert "TILE" not in ops(tmp_path / target)
        assert "RESIZE_NEAREST_NEIGHBOR" in ops(tmp_path / target)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convolutions", "tokens"])
def test_a_model_of_the_default_configuration_goes_everywhere(name, tmp_path):
    """A scale per channel in Dense and Embedding, and widths of all kinds."""
    layers = {
        "convolutions": [
            keras.Input((6, 6, 3)),
            L.Conv2D(8, 3, activation="relu"),
            L.Flatten(),
            L.Dense(8, activation="relu"),
            L.Dense(5),
        ],
        "tokens": [
            keras.Input((6,), dtype="int32"),
            L.Embedding(50, 8),
            L.GlobalAveragePooling1D(),
            L.Dense(5),
        ],
    }[name]
    keras.utils.set_random_seed(0)
    model = keras.Sequential(layers)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 6, 6, 3)).astype(np.float32)
    if name == "tokens":
        x = rng.integers(0, 50, (32, 6)).astype(np.int32)
    qmodel = msq_tf.quantize_model(model)
    qmodel.set_bits(dict(zip(qmodel.bits, (4, 2, 8), strict=False)))
    codes = {w.path: w.codes for w in qmodel.quantized_weights()}
    for target in targets.names():
        options = {}
        if target == "ethos_u":
            options["device_options"] = {"accelerators": []}
        elif target == "qualcomm_npu":
            options["device_options"] = {"socs": []}
        path = tmp_path / target
        if (name, target) == ("tokens", "edgetpu"):
            # There is no way to look a row up, and training says so.
            with pytest.raises(ExportError, match="GATHER"):
                export(qmodel, path, target, x)
            with pytest.raises(ValueError, match="look rows of a table up"):
                msq_tf.quantize_model(
                    model, msq_tf.MSQConfig(targets=(target,))
                )
            continue
        report = export(qmodel, path, target, x, verbose=False, **options)
        assert {t.name for t in report.tensors} == set(codes)
    # Nothing was trained again, nor changed.
    for weight in qmodel.quantized_weights():
        assert np.array_equal(weight.codes, codes[weight.path])


def _nothing():
    from tflite_export.devices.result import DeviceResult

    return DeviceResult()


def test_siamese_difference(tmp_path):
    encoder = keras.Sequential(
        [keras.Input((8,)), L.Dense(8, activation="relu")]
    )
    a, b = keras.Input((8,)), keras.Input((8,))
    apart = keras.ops.absolute(encoder(a) - encoder(b))
    qmodel, x = trained(keras.Model([a, b], L.Dense(1)(apart)))
    export(qmodel, tmp_path / "m", "cpu_int8", x)
    assert "ABS" in ops(tmp_path / "m")


@pytest.mark.slow
def test_functions_are_tables_on_microcontrollers(tmp_path):
    qmodel, x = trained(layer_cases.CASES["activation mish"]())
    export(qmodel, tmp_path / "m", "mcu", x)
    found = ops(tmp_path / "m")
    assert {"CAST", "GATHER"} <= set(found)
    assert not {"EXP", "LOG"} & set(found)


@pytest.mark.slow
def test_a_table_between_measured_ranges_has_the_range_of_its_results(
    tmp_path,
):
    """Far beyond 1, with activations that nobody trained."""
    inputs = keras.Input((8,))
    function = L.Activation("softplus")(L.Rescaling(20.0)(inputs))
    model = keras.Model(inputs, [function, L.Dense(2)(inputs)])
    qmodel, x = trained(model, activation_bits=None)
    export(qmodel, tmp_path / "m", "mcu", x)
    assert "GATHER" in ops(tmp_path / "m")
    model = fb.load((tmp_path / "m").read_bytes())
    graph = model.subgraphs[0]
    (table,) = (
        graph.tensors[fb.outputs(op)[0]]
        for op in graph.operators
        if fb.op_name(model, op) == "GATHER"
    )
    assert 255 * table.quantization.scale[0] > 20


@pytest.mark.slow
@pytest.mark.parametrize("bits", [8, 4])
def test_a_table_that_makes_the_scores_too_stands_in_the_file_once(
    bits, tmp_path
):
    qmodel, x = trained(layer_cases.CASES["Embedding, tied"]())
    table = next(path for path in qmodel.bits if "embedding" in path)
    qmodel.set_bits(dict.fromkeys(qmodel.bits, bits))
    path = tmp_path / "m"
    report = export(qmodel, path, "mcu", x)
    assert [t.name for t in report.tensors].count(table) == 2
    model = fb.load(path.read_bytes())
    graph = model.subgraphs[0]
    held = {
        graph.tensors[fb.inputs(op)[place]].buffer
        for op in graph.operators
        for name, place in (("GATHER", 0), ("FULLY_CONNECTED", 1))
        if fb.op_name(model, op) == name
        and fb.shape(graph.tensors[fb.inputs(op)[place]]) == (9, 4)
    }
    assert len(held) == 1
    # The scales are in two convolutions, behind the rows and before the scores.
    assert ops(path).count("DEPTHWISE_CONV_2D") == 1
    written = [fb.op_name(model, op) for op in graph.operators]
    assert written.count("DEPTHWISE_CONV_2D") == 2


@pytest.mark.slow
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_slopes_of_pixels_on_an_edge_tpu(sign, tmp_path):
    """With slopes beyond 0 to 1 the larger of two is not the result."""
    model = layer_cases.CASES["PReLU, a slope a pixel"]()
    (layer,) = (p for p in model.layers if isinstance(p, L.PReLU))
    layer.alpha.assign(sign * np.abs(layer.alpha.numpy() * 10) + 0.1)
    qmodel, x = trained(model)
    export(qmodel, tmp_path / "m", "edgetpu", x)
    assert "PRELU" not in ops(tmp_path / "m")


@pytest.mark.slow
def test_attention_without_reference_kernels_is_compared_all_the_same(
    tmp_path,
):
    """TILE on int8 is none of theirs, and TOSA differs by some units."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 4))
    x = L.Dense(8)(inputs)
    x = L.GroupQueryAttention(4, 4, 2)(x, x)
    model = keras.Model(inputs, L.Dense(5)(L.Flatten()(x)))
    data = np.random.default_rng(0).normal(size=(32, 8, 4)).astype(np.float32)
    qmodel = msq_tf.quantize_model(model)
    widths = (8, 4, 2, 3)
    qmodel.set_bits({p: widths[k % 4] for k, p in enumerate(qmodel.bits)})
    export(qmodel, tmp_path / "m", "cpu_int8", data, verbose=False)


def test_every_layer_with_codes_has_a_case():
    """Of the layers that are known by class, so that none is forgotten."""
    known = set()
    for make in layer_cases.CASES.values():
        model = make()
        known |= {type(layer).__name__ for layer in model._flatten_layers()}
    named = {*layer_registry._LAYERS, *layer_registry._DEPTHWISE}
    # The page has the convolution that a spectrogram is.
    named -= {"STFTSpectrogram"}
    assert named <= known, named - known


def test_training_refuses_what_the_page_has_no_operators_for():
    """All cases, and the targets that compute nothing in float."""
    for name, make in layer_cases.CASES.items():
        model = make()
        for target in ("mcu", "ethos_u", "edgetpu", "qualcomm_npu"):
            cell = PAGE[name][target]
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                try:
                    target_checks.check_model(model, (target,))
                except ValueError as error:
                    assert cell == "-", (name, target, str(error))
                    continue
            # Where not all devices run it, that is said.
            assert cell != "-" or told, (name, target)
            assert "U85" not in cell or told, (name, target)


@pytest.mark.slow
def test_tables_of_rows_keep_their_codes_and_scales(tmp_path):
    qmodel, x = trained(layer_cases.CASES["Embedding"]())
    report = export(qmodel, tmp_path / "m", "mcu", x)
    [weight] = qmodel.quantized_weights()
    assert len(np.unique(weight.step)) > 1
    assert report.tensors[0].unfolded
    assert "DEPTHWISE_CONV_2D" in ops(tmp_path / "m")


def test_token_inputs_of_floats_are_not_rounded():
    qmodel, _ = trained(layer_cases.CASES["Embedding, float tokens"]())
    assert "input" not in qmodel.activation_quantizers.sites


@pytest.mark.slow
def test_loops_are_float_in_an_integer_file(tmp_path):
    qmodel, x = trained(layer_cases.CASES["LSTM"]())
    path = tmp_path / "m"
    export(qmodel, path, "cpu_int8", x)
    assert types(path, "FULLY_CONNECTED") >= {"INT8"}
    assert "WHILE" in ops(path)
    model = fb.load(path.read_bytes())
    kinds = {
        fb.type_name(model.subgraphs[0].tensors[i])
        for i in fb.inputs(model.subgraphs[0])
    }
    assert kinds == {"FLOAT32"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("LayerNormalization", "Embedding", "ELU", "LSTM", "Conv3D"),
        *("Attention", "activation softplus", "Dense", "RepeatVector"),
        *("LeakyReLU", "UnitNormalization"),
    ],
)
def test_what_training_refuses_is_what_export_refuses(name):
    for target in ("mcu", "edgetpu"):
        qmodel, x = trained(layer_cases.CASES[name]())
        refused = False
        try:
            target_checks.check_model(qmodel.base, (target,))
        except ValueError:
            refused = True
        word = layers_page.cell(qmodel, layers_page.as_list(x), target)
        assert (word == "-") == refused, target

"""Files for Qualcomm's NPU, where `make setup-qnn` made its compiler."""

import json

import keras
import numpy as np
import pytest

import msq_tf
from benchmarks.harness import layer_cases
from msq_tf.rules import storage
from tflite_export import ExportError
from tflite_export import export
from tflite_export import inspect_file
from tflite_export import run
from tflite_export import targets
from tflite_export.devices import qualcomm
from tflite_export.devices import qualcomm_tools
from tflite_export.integer import narrow_weights
from tflite_export.runtime import ports
from train.data import datasets

L = keras.layers
IMAGES = np.random.default_rng(0).normal(size=(8, 12, 12, 3)).astype("f")


@pytest.fixture
def compiler(root, monkeypatch):
    monkeypatch.setenv(qualcomm_tools.ENVIRONMENT, str(root / ".venv-qnn"))
    if qualcomm_tools.folder() is None:
        pytest.skip("no .venv-qnn; `make setup-qnn` makes it")


def network(last=None):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3), name="image")
    x = L.Conv2D(8, 3, activation="relu")(inputs)
    x = L.DepthwiseConv2D(3, padding="same")(x)
    x = L.Conv2D(16, 1, activation="relu")(x)
    x = L.GlobalAveragePooling2D()(x)
    x = L.Dense(5)(x)
    qmodel = msq_tf.quantize_model(
        keras.Model(inputs, x if last is None else last(x))
    )
    qmodel.set_bits(dict(zip(qmodel.bits, (8, 4, 2, 4), strict=True)))
    return qmodel


def exported(path, socs, qmodel=None, **options):
    return export(
        qmodel or network(),
        path,
        "qualcomm_npu",
        IMAGES,
        device_options={"socs": socs, **options},
        verbose=False,
    )


def types(report):
    return [tensor.container for tensor in report.tensors]


@pytest.mark.slow
def test_a_file_is_compiled_emulated_and_written_beside(compiler, tmp_path):
    report = exported(tmp_path / "m.tflite", ["SM8650", "SM8750"])
    socs = report.device["socs"]
    assert list(socs) == ["SM8650", "SM8750"]
    for name, row in socs.items():
        assert row["max_units"] <= 2 and not row["cpu_operators"]
        assert 0 < row["context_bytes"] < row["compiled_bytes"]
        assert row["read_bytes"] > 0
        beside = tmp_path / f"m_{name}.tflite"
        assert beside.stat().st_size == row["compiled_bytes"]
        found = inspect_file(beside).ops
        assert len(found) == 1 and "DISPATCH_OP" in next(iter(found))
    assert types(report) == ["INT8", "INT8", "INT2", "INT4"]
    assert "SM8650" in str(report) and "INT2" in str(report)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("socs", "kinds"),
    [
        # INT2 would be stored as INT8 there, and so would INT4 on v69.
        (["SM8550", "SM8650"], ["INT8", "INT8", "INT4", "INT4"]),
        (["SM8450"], ["INT8"] * 4),
    ],
)
def test_no_type_that_a_soc_widens(socs, kinds, compiler, tmp_path):
    report = exported(tmp_path / "m.tflite", socs)
    assert types(report) == kinds
    assert {
        row["max_units"] <= 2 for row in report.device["socs"].values()
    } == {True}


@pytest.mark.slow
def test_real_images_keep_their_class(compiler, tmp_path):
    """A trained network: at most 2 units, and the class of 99 in 100."""
    data = datasets.load("fashion_mnist_mini", None, None, 2000, 200)
    x = np.asarray(data.train.images, np.float32) / 255
    y = np.asarray(data.train.labels)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            L.Conv2D(8, 3, strides=2, activation="relu"),
            L.Conv2D(16, 1, activation="relu"),
            L.Flatten(),
            L.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    model.fit(x, y, epochs=3, verbose=0)
    qmodel = msq_tf.quantize_model(model)
    qmodel.set_bits(dict(zip(qmodel.bits, (8, 4, 4), strict=True)))
    path = tmp_path / "m.tflite"
    export(
        qmodel,
        path,
        "qualcomm_npu",
        x[:64],
        device_options={"socs": ["SM8650"]},
        verbose=False,
    )
    shown = np.asarray(data.test.images, np.float32) / 255
    fed = ports.quantized(path.read_bytes(), [shown])[0]
    compiled = (tmp_path / "m_SM8650.tflite").read_bytes()
    got = qualcomm_tools.emulate(compiled, [[row[None]] for row in fed])
    got = np.concatenate([outputs[0] for outputs in got]).astype(int)
    wanted = np.asarray(run(path, fed)).astype(int)
    assert np.abs(got - wanted).max() <= 2
    assert (got.argmax(1) == wanted.argmax(1)).mean() >= 0.99


@pytest.mark.slow
def test_operators_left_to_the_cpu_are_refused_unless_allowed(
    compiler, tmp_path, monkeypatch
):
    """As if the policy had an operator that the compiler leaves alone."""
    target = targets.load("qualcomm_npu")
    row = targets.load("cpu_int8").operators["EXP"]
    monkeypatch.setitem(target.operators, "EXP", row)
    qmodel = network(keras.ops.exp)
    path = tmp_path / "m.tflite"
    with pytest.raises(ExportError, match="leaves operators.*EXP"):
        exported(path, ["SM8650"], qmodel)
    assert not list(tmp_path.iterdir())
    report = exported(path, ["SM8650"], qmodel, allow_cpu=True)
    found = report.device["socs"]["SM8650"]
    assert "EXP" in found["cpu_operators"][0] and found["max_units"] is None
    assert any("not emulated" in note for note in report.notes)


@pytest.mark.slow
def test_what_differs_there_is_refused(compiler, tmp_path, monkeypatch):
    """As if the NPU had a fault: it computes with other inputs."""
    real = qualcomm_tools.emulate
    monkeypatch.setattr(
        qualcomm_tools,
        "emulate",
        lambda data, batches: real(data, [[-x for x in b] for b in batches]),
    )
    with pytest.raises(
        ExportError, match="computes something else on the emulated NPU"
    ):
        exported(tmp_path / "m.tflite", ["SM8650"])


@pytest.mark.slow
def test_what_single_units_explain_is_accepted(compiler, tmp_path, monkeypatch):
    """As if no difference were accepted without looking inside."""
    monkeypatch.setattr(qualcomm, "_UNITS", -1)
    report = exported(tmp_path / "m.tflite", ["SM8650"])
    (note,) = (n for n in report.notes if "on the emulated NPU" in n)
    assert "values inside are off by a unit" in note
    # With a limit of the caller's own, nothing is explained.
    with pytest.raises(ExportError, match="emulated NPU"):
        export(
            network(),
            tmp_path / "m.tflite",
            "qualcomm_npu",
            -IMAGES,
            device_options={"socs": ["SM8650"]},
            max_units=0,
            verbose=False,
        )


def _fused():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3))
    x = L.Conv2D(8, 3, activation="hard_silu")(inputs)
    x = L.DepthwiseConv2D(3, activation="hard_silu")(x)
    x = L.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, L.Dense(5)(L.Dense(8, "hard_silu")(x)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fused", "LSTM, unrolled", "ops.split"])
def test_fused_operators_and_unread_pieces(
    name, compiler, tmp_path, monkeypatch
):
    """The last one is right to the bit; the others are looked into."""
    if name != "ops.split":
        monkeypatch.setattr(qualcomm, "_UNITS", -1)
    model = _fused() if name == "fused" else layer_cases.CASES[name]()
    (x,) = layer_cases.samples(model)
    report = export(
        msq_tf.quantize_model(model),
        tmp_path / "m.tflite",
        "qualcomm_npu",
        x,
        device_options={"socs": ["SM8650"]},
        verbose=False,
    )
    data = (tmp_path / "m.tflite").read_bytes()
    assert len(qualcomm._fused(data)) == (3 if name == "fused" else 0)
    told = [note for note in report.notes if "on the emulated NPU" in note]
    if name == "ops.split":
        assert report.device["socs"]["SM8650"]["max_units"] == 0 and not told
    else:
        assert len(told) == 1 and "each operator was compared" in told[0]


def _narrow(shape, *layers):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(shape), *layers])
    x = np.random.default_rng(0).normal(size=(8, *shape)).astype("f")
    qmodel = msq_tf.quantize_model(model)
    qmodel.set_bits(dict.fromkeys(qmodel.bits, 2))
    qmodel(x, training=True)
    return qmodel, x


NARROW = {
    "of an input": ((8,), lambda: [L.Dense(8)], "INT4"),
    "of rows of an input": ((3, 8), lambda: [L.Dense(8)], "INT4"),
    "of an input, reshaped": (
        (2, 4),
        lambda: [L.Flatten(), L.Dense(8)],
        "INT2",
    ),
    "hard swish": (
        (4, 4, 8),
        lambda: [L.ReLU(), L.Conv2D(8, 1, activation="hard_silu")],
        "INT4",
    ),
    "hard swish behind a reshape": (
        (3, 8),
        lambda: [L.ReLU(), L.Dense(8, activation="hard_silu")],
        "INT4",
    ),
    "hard swish of other channels": (
        (8,),
        lambda: [
            *(L.ReLU(), L.Dense(8), L.Reshape((4, 2))),
            L.Activation("hard_silu"),
        ],
        "INT2",
    ),
    "leaky relu": ((8,), lambda: [L.ReLU(), L.Dense(8), L.LeakyReLU()], "INT4"),
    "prelu": (
        (8,),
        lambda: [
            *(L.ReLU(), L.Dense(8)),
            L.PReLU(alpha_initializer=keras.initializers.Constant(0.2)),
        ],
        "INT4",
    ),
    "gelu": ((8,), lambda: [L.ReLU(), L.Dense(8, activation="gelu")], "INT2"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NARROW)
def test_two_bits_have_a_container_that_is_right(name, compiler, tmp_path):
    shape, layers, container = NARROW[name]
    qmodel, x = _narrow(shape, *layers())
    report = export(
        qmodel,
        tmp_path / "m.tflite",
        "qualcomm_npu",
        x,
        device_options={"socs": ["SM8650"]},
        verbose=False,
    )
    assert types(report) == [container]
    assert report.device["socs"]["SM8650"]["max_units"] <= 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name, case in NARROW.items() if case[2] == "INT4"]
)
def test_the_narrow_container_is_wrong_there(
    name, compiler, tmp_path, monkeypatch
):
    """Where it no longer is, the rule can go."""
    monkeypatch.setattr(narrow_weights, "avoid", lambda _, matches, __: matches)
    shape, layers, _ = NARROW[name]
    qmodel, x = _narrow(shape, *layers())
    with pytest.raises(ExportError, match="something else|compiler failed"):
        export(
            qmodel,
            tmp_path / "m.tflite",
            "qualcomm_npu",
            x,
            device_options={"socs": ["SM8650"]},
            verbose=False,
        )


@pytest.mark.slow
def test_a_file_that_the_compiler_fails_on_is_an_error(compiler, tmp_path):
    """Weights that a DEQUANTIZE unpacks, with a scale per channel."""
    path = tmp_path / "m.tflite"
    export(network(), path, "cpu_float", IMAGES, batch_size=1, verbose=False)
    with pytest.raises(ExportError, match="compiler failed for SM8650"):
        qualcomm_tools.compile_file(path.read_bytes(), "SM8650")


def test_without_a_compiler_it_is_said_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setenv(qualcomm_tools.ENVIRONMENT, str(tmp_path / "nowhere"))
    with pytest.raises(ExportError, match="make setup-qnn"):
        exported(tmp_path / "m.tflite", None)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_without_a_soc_nothing_is_compiled(tmp_path, monkeypatch):
    monkeypatch.setenv(qualcomm_tools.ENVIRONMENT, str(tmp_path / "nowhere"))
    report = exported(tmp_path / "m.tflite", [])
    assert "socs" not in report.device
    assert any("nothing was compiled" in note for note in report.notes)
    # It may still be compiled for those that the target is for.
    assert types(report) == ["INT8", "INT8", "INT4", "INT4"]


@pytest.mark.parametrize("wrong", ["SM8650", ["SM1"], [8650]])
def test_socs_that_are_none(wrong, tmp_path):
    with pytest.raises(ValueError, match="Unknown SoCs.*Received"):
        exported(tmp_path / "m.tflite", wrong)


def test_the_table_is_what_was_measured(root):
    """A type that a SoC has is stored in its width, and no other is."""
    path = root / "benchmarks" / "results" / "qualcomm.json"
    runs = json.loads(path.read_text())["results"]["runs"]
    known = qualcomm.known_socs()
    assert {run["soc"] for run in runs} == set(known)
    for soc, facts in known.items():
        assert {run["architecture"] for run in runs if run["soc"] == soc} == {
            facts["architecture"]
        }
        sizes = {
            run["bits"]: run["context_bytes"]
            for run in runs
            if run["soc"] == soc and run["model"] == "mobilenet_v2"
        }
        for bits in (4, 2):
            pays = f"INT{bits}" in facts["containers"]
            assert (sizes[bits] < 0.75 * sizes[8]) == pays, (soc, bits)


def test_a_search_uses_the_widths_that_pay_there():
    table = targets.load("qualcomm_npu")
    assert storage.device("qualcomm_npu").widths["dense"] == {8: 1, 4: 2}
    dense = storage.device("qualcomm_npu:SM8650").widths["dense"]
    assert dense == {8: 1, 4: 2, 2: 4}
    assert storage.device("qualcomm_npu:SM8550").widths["conv"] == {8: 1}
    for soc in table.options["default_socs"]:
        assert "INT4" in qualcomm.known_socs()[soc]["containers"]
    # Nothing gets smaller with the bits on those that widen every type.
    with pytest.raises(ValueError, match="get smaller with the bits"):
        storage.device("qualcomm_npu:SM8450")

"""Files in LiteRT.js on Node, where `make setup-web` installed it."""

import json

import keras
import numpy as np
import pytest

import msq_tf
from tflite_export import ExportError
from tflite_export import export
from tflite_export import lint
from tflite_export import quiet
from tflite_export import targets
from tflite_export.devices import web
from tflite_export.runtime import interpreter
from tflite_export.runtime import ports

IMAGES = np.random.default_rng(0).normal(size=(8, 12, 12, 3)).astype("f")


@pytest.fixture
def packages(root, monkeypatch):
    monkeypatch.setenv(web.ENVIRONMENT, str(root / ".venv-web"))
    if web.folder() is None:
        pytest.skip("no .venv-web, or no Node; `make setup-web` makes it")


def network(integer=True):
    inputs = keras.Input((12, 12, 3), name="image")
    x = keras.layers.Conv2D(8, 3, activation="relu", name="stem")(inputs)
    x = keras.layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = keras.layers.Conv2D(8, 1, activation="relu", name="point")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dense(8, activation="relu", name="dense")(x)
    model = keras.Model(inputs, keras.layers.Dense(5, name="scores")(x))
    qmodel = msq_tf.quantize_model(
        model, msq_tf.MSQConfig(activation_bits=8 if integer else None)
    )
    qmodel.set_bits(dict(zip(qmodel.bits, (8, 4, 2, 4, 8), strict=True)))
    if integer:
        msq_tf.calibrate(qmodel, IMAGES)
    return qmodel


@pytest.mark.slow
@pytest.mark.parametrize("target", ["web", "cpu_int8", "min_size", "cpu_float"])
def test_a_file_runs_on_every_build(target, packages, tmp_path):
    report = export(
        network(target in ("web", "cpu_int8")),
        tmp_path / "m.tflite",
        target,
        IMAGES,
        verify_on=("web",),
        verbose=False,
    )
    found = report.device["web"]
    assert found["samples"] == 4
    for build in web.KERNELS:
        assert found[build] <= (0.0 if targets.load(target).integer else 1e-6)
    assert found["fully_accelerated"] == (target != "min_size")
    # Only a file of the target has no open batch.
    assert ("batch" in found) == (target != "web")
    assert "relaxed SIMD" in str(report)


@pytest.mark.slow
def test_the_target_packs_and_is_closed(tmp_path):
    path = tmp_path / "m.tflite"
    report = export(network(), path, "web", IMAGES, verbose=False)
    stored = {t.name: t.container for t in report.tensors}
    assert stored == {
        "stem": "INT8",
        "depthwise": "INT8",
        "point": "INT2",
        "dense": "INT4",
        "scores": "INT8",
    }
    assert ports.inputs(path.read_bytes())[0].axes == (1, 12, 12, 3)
    assert not lint(path, "web")


@pytest.mark.slow
def test_what_no_page_can_load_is_refused(tmp_path):
    path = tmp_path / "m.tflite"
    with pytest.raises(ExportError, match="LiteRT.js.*'image': is INT8"):
        export(network(), path, "web", IMAGES, integer_io=True, verbose=False)
    assert not path.exists()
    export(network(), path, "cpu_int8", IMAGES, verbose=False)
    (finding,) = lint(path, "web")
    assert "open axis" in finding.message and finding.severe


@pytest.mark.slow
def test_an_input_that_is_an_output(packages, tmp_path):
    """`CompiledModel` gives wrong values then, for the other outputs, too."""
    inputs = keras.Input((6,), name="x")
    y = keras.layers.Dense(3)(inputs)
    qmodel = msq_tf.quantize_model(keras.Model(inputs, {"a": inputs, "y": y}))
    x = np.random.default_rng(0).normal(size=(8, 6)).astype("f")
    path = tmp_path / "m.tflite"
    report = export(
        qmodel, path, "cpu_float", x, verify_on=("web",), verbose=False
    )
    for place in ("compiled_model", "web"):
        assert "'x' is an output, too" in report.device[place]["skipped"]
    # Were they right, the rule could go.
    data = web.closed(path.read_bytes())
    wanted = interpreter.Session(data, "xnnpack")([x[:1]])
    for (outputs,), _ in web.run(data, [[x[:1]]]).values():
        assert np.abs(outputs[1] - wanted[1]).max() > 0.01
    # In integers, it comes as a copy.
    report = export(qmodel, path, "web", x, verify_on=("web",), verbose=False)
    assert report.device["compiled_model"]["difference"] == 0.0
    assert report.device["web"]["SIMD"] == 0.0


@pytest.mark.slow
def test_a_file_of_another_target_is_not_run_where_it_cannot(
    packages, tmp_path
):
    report = export(
        network(),
        tmp_path / "m.tflite",
        "cpu_int8",
        IMAGES,
        integer_io=True,
        verify_on=("web",),
        verbose=False,
    )
    assert "no tensors of int8" in report.device["web"]["skipped"]


@pytest.mark.slow
def test_what_differs_there_is_refused(packages, tmp_path, monkeypatch):
    """As if LiteRT.js had a fault: it computes with other inputs."""
    path = tmp_path / "m.tflite"
    export(network(), path, "web", IMAGES, verbose=False)
    real = web.run

    def run(data, batches):
        return real(data, [[-x for x in batch] for batch in batches])

    monkeypatch.setattr(web, "run", run)
    with pytest.raises(ExportError, match="LiteRT.js .relaxed.*something else"):
        web.verify(path.read_bytes(), [IMAGES], targets.load("web"))


@pytest.mark.slow
def test_several_inputs_and_outputs_keep_their_order(packages, tmp_path):
    a = keras.Input((3,), name="z_first")
    b = keras.Input((5,), dtype="int32", name="a_second")
    table = keras.layers.Embedding(7, 4, name="table")(b)
    x = keras.layers.Flatten()(table)
    one = keras.layers.Dense(2, name="one")(a)
    two = keras.layers.Dense(6, name="two")(x)
    qmodel = msq_tf.quantize_model(keras.Model([a, b], [two, one]))
    rng = np.random.default_rng(0)
    x = [
        rng.normal(size=(8, 3)).astype("f"),
        rng.integers(0, 7, (8, 5)).astype("int32"),
    ]
    path = tmp_path / "m.tflite"
    export(qmodel, path, "cpu_float", x, batch_size=2, verbose=False)
    data = path.read_bytes()
    session = interpreter.Session(data, "xnnpack")
    fed = ports.quantized(data, x)
    batches = list(interpreter.chunks(fed, 2, session))
    wanted = [session(batch) for batch in batches]
    for outputs, _ in web.run(data, batches).values():
        for ours, theirs in zip(outputs, wanted, strict=True):
            for got, expected in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_words_of_litert_js_are_passed_on(packages):
    """It runs a file on inputs of its shape alone."""
    batches = [[np.ones((2, 2), np.float32)]]
    with pytest.raises(ExportError, match="LiteRT.js can't run.*Received: re"):
        web.run(bytes(quiet._sum()), batches)


def test_without_a_package_it_is_said_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setenv(web.ENVIRONMENT, str(tmp_path / "nowhere"))
    with pytest.raises(ExportError, match="make setup-web"):
        export(network(False), tmp_path / "m.tflite", verify_on=("web",))
    assert not list(tmp_path.iterdir())


def test_without_node_it_is_said(root, tmp_path, monkeypatch):
    monkeypatch.setenv(web.ENVIRONMENT, str(root / ".venv-web"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExportError, match="Received: no node"):
        web.installed()


def test_the_lock_has_one_version_of_the_package(root):
    """The one that the table of the target names."""
    wanted = json.loads((root / "tools" / "web" / "package.json").read_text())
    version = wanted["dependencies"]["@litertjs/core"]
    lock = json.loads(
        (root / "tools" / "web" / "package-lock.json").read_text()
    )
    found = lock["packages"]["node_modules/@litertjs/core"]
    assert found["version"] == version and found["integrity"]
    source = targets.load("web").options["rules"]["source"]
    assert f"@litertjs/core {version}" in source


@pytest.mark.slow
def test_a_loop_runs_there(packages, tmp_path):
    """Its condition is a boolean, which no tensor of LiteRT.js holds."""
    layers = [keras.Input((5, 4)), keras.layers.GRU(6), keras.layers.Dense(3)]
    x = np.random.default_rng(0).normal(size=(8, 5, 4)).astype("f")
    path = tmp_path / "m.tflite"
    report = export(
        msq_tf.quantize_model(keras.Sequential(layers)),
        *(path, "web", x),
        verify_on=("web",),
        verbose=False,
    )
    assert report.device["web"]["SIMD"] == 0.0
    assert not [f for f in lint(path, "web") if f.severe]

"""Files on emulated ARM cores, where `make setup-arm` made them."""

import keras
import numpy as np
import pytest

import msq_tf
from tests.tflite_export.integer import one_operator
from tflite_export import ExportError
from tflite_export import export
from tflite_export import targets
from tflite_export.devices import arm
from tflite_export.runtime import interpreter
from tflite_export.verification import float_twin
from tflite_export.verification import integer_outputs
from tflite_export.verification import per_operator

IMAGES = np.random.default_rng(0).normal(size=(8, 12, 12, 3)).astype("f")


@pytest.fixture
def machine(root, monkeypatch):
    monkeypatch.setenv(arm.ENVIRONMENT, str(root / ".venv-arm"))
    if arm.folder() is None:
        pytest.skip("no .venv-arm; `make setup-arm` makes it")


def network(integer):
    inputs = keras.Input((12, 12, 3), name="image")
    x = keras.layers.Conv2D(8, 3, activation="relu", name="stem")(inputs)
    x = keras.layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = keras.layers.Conv2D(8, 3, activation="relu", name="wide")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, keras.layers.Dense(5, name="scores")(x))
    qmodel = msq_tf.quantize_model(
        model, msq_tf.MSQConfig(activation_bits=8 if integer else None)
    )
    qmodel.set_bits(dict(zip(qmodel.bits, (8, 4, 2, 4), strict=True)))
    if integer:
        msq_tf.calibrate(qmodel, IMAGES)
    return qmodel


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cpu_int8", "min_size"])
def test_a_file_is_run_on_every_core_and_kernel(target, machine, tmp_path):
    report = export(
        network(target == "cpu_int8"),
        tmp_path / "m.tflite",
        target,
        IMAGES,
        verify_on=("arm",),
        verbose=False,
    )
    found = report.device["arm"]
    assert found.pop("samples") == 4
    assert set(found) == {
        f"{core} {kernels}"
        for core in arm.CORES
        for kernels in interpreter.KERNELS
    }
    for name, apart in found.items():
        if target == "min_size":
            assert apart < 1e-6
        elif "builtin" not in name:
            assert apart == 0.0, name
        else:
            assert apart <= 3.0
    assert "cortex-a53" in str(report)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernels", "words"),
    [
        ("xnnpack", "ARM .*computes something"),
        ("builtin", "on ARM .*at most 1"),
    ],
)
def test_what_differs_there_is_refused(
    kernels, words, machine, tmp_path, monkeypatch
):
    """As if kernels of ARM had a fault: they compute with other inputs."""
    path = tmp_path / "m.tflite"
    export(network(True), path, "cpu_int8", IMAGES, verbose=False)
    real = arm.run

    def run(files, batches, core):
        found = real(files, batches, core)
        wrong = real(
            {kernels: files[kernels]}, [[-x for x in b] for b in batches], core
        )
        return found | wrong

    monkeypatch.setattr(arm, "run", run)
    with pytest.raises(ExportError, match=words):
        arm.verify(path.read_bytes(), [IMAGES], targets.load("cpu_int8"))


@pytest.mark.slow
def test_an_export_on_arm_accepts_right_files(machine, tmp_path, monkeypatch):
    """The product's own check, with ARM's builtin kernels for those here."""
    path = tmp_path / "m.tflite"
    export(network(True), path, "cpu_int8", IMAGES, verbose=False)
    data = path.read_bytes()
    files = (data, float_twin.probe(data))
    here = interpreter.Session

    class Emulated(here):
        """Computes on a core of ARM what it is asked."""

        def __init__(self, data, kernels, *args, **options):
            super().__init__(data, kernels, *args, **options)
            self.asked, self.kernels, self.found = data, kernels, None

        def __call__(self, arrays):
            if self.asked not in files or self.kernels != "builtin":
                return super().__call__(arrays)
            super().__call__(arrays)
            (batch,) = arm.run({"builtin": self.asked}, [arrays], "cortex-a76")[
                "builtin"
            ]
            places = [detail["index"] for detail in self.outputs]
            self.found = dict(zip(places, batch, strict=True))
            return batch

        def tensor(self, index):
            if self.found and index in self.found:
                return self.found[index]
            return super().tensor(index)

    monkeypatch.setattr(interpreter, "Session", Emulated)
    monkeypatch.setattr(per_operator.platform, "machine", lambda: "aarch64")
    checks, rows, _ = integer_outputs.check(
        data, [IMAGES], targets.load("cpu_int8")
    )
    units = {check.kernels: check.max_units for check in checks}
    assert units["builtin"] <= 2
    # The arithmetic is another than the one of x86.
    assert any(row.units for row in rows if row.kernels == "builtin")


@pytest.mark.slow
def test_depthwise_convolutions_that_round_coarsely(machine):
    """Factors beyond 1, at both sides of a power of two; each core the same."""
    data = one_operator.depthwise(np.geomspace(0.2, 7.0, 16))
    codes = np.random.default_rng(1).integers(-12, 5, (4, 4, 4, 16))
    found = arm.verify(
        data, [codes * np.float32(0.02)], targets.load("cpu_int8")
    )
    assert "cortex-a76 builtin" in found and found["max reference"] == 0.0
    (name,) = found["rounds coarsely"]
    assert name.startswith("DEPTHWISE_CONV_2D")
    assert 2 <= found["rounds coarsely"][name] <= 4


def test_without_a_machine_it_is_said_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setenv(arm.ENVIRONMENT, str(tmp_path / "nowhere"))
    with pytest.raises(ExportError, match="make setup-arm"):
        export(network(False), tmp_path / "m.tflite", verify_on=("arm",))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", ["arm", ("mips",), [3], None, [["arm"]]])
def test_places_that_are_none(wrong, tmp_path):
    with pytest.raises(ValueError, match="`verify_on` must be.*Received"):
        export(network(False), tmp_path / "m.tflite", verify_on=wrong)

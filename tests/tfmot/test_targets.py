"""What can't run on a target is said before the training."""

import numpy as np
import pytest

from msq_tf import extras
from tests.tfmot.samples import export
from tests.tfmot.samples import layers
from tests.tfmot.samples import msq
from tests.tfmot.samples import quantization
from tests.tfmot.samples import tf_keras
from tflite_export import ExportError
from tflite_export import targets
from tflite_export.devices import micro

SCALES = np.logspace(-3, 4, 8)


def model_of(*parts, shape=(6, 4)):
    return tf_keras.Sequential([layers.Input(shape), *parts])


@pytest.mark.parametrize("names", ["mcu", ("mcu", "arduino"), (8,)])
def test_unknown_targets(names):
    with pytest.raises(ValueError, match=r"Expected some of .*Received"):
        msq.MSQQuantizeScheme(targets=names)


def test_bits_of_activations():
    with pytest.raises(ValueError, match="Expected activation_bits=16, or"):
        msq.MSQQuantizeScheme(targets=("cpu_int16",))
    msq.MSQQuantizeScheme(activation_bits=None, targets=["cpu_int16"])


@pytest.mark.first(2)
@pytest.mark.parametrize(
    ("layer", "names", "reason"),
    [
        (lambda: layers.LayerNormalization(name="odd"), ("mcu",), "BatchNorm"),
        (lambda: layers.LSTM(3, name="odd"), ("ethos_u",), "unroll=True"),
        (
            lambda: layers.Bidirectional(layers.GRU(3), name="odd"),
            ("cpu_int8", "mcu"),
            "loops run in float",
        ),
        (
            lambda: layers.Activation("softplus", name="odd"),
            ("edgetpu",),
            "use relu",
        ),
        (
            lambda: layers.Dense(3, activation="elu", name="odd"),
            ("edgetpu", "mcu"),
            "no such operator",
        ),
    ],
)
def test_layers(layer, names, reason):
    scheme = msq.MSQQuantizeScheme(targets=names)
    inner = model_of(layer(), layers.Dense(2))
    said = f"'odd.* on '{names[0]}': .*{reason}"
    if names[0] == "cpu_int8":
        said = f"'odd.* on '{names[1]}': .*{reason}"
    for model in (inner, model_of(layers.Dense(4), inner)):
        with pytest.raises(ValueError, match=said):
            msq.quantize_model(model, scheme)


def test_tfmots_own_steps_are_held_to_targets():
    model = model_of(layers.Dense(4), layers.LayerNormalization(name="odd"))
    annotated = msq.annotate_model(model)
    scheme = msq.MSQQuantizeScheme(targets=("mcu",))
    with quantization.quantize_scope():
        with pytest.raises(ValueError, match="'odd' .LayerNormalization. on"):
            quantization.quantize_apply(annotated, scheme=scheme)


def test_what_runs_everywhere_is_not_refused():
    names = [name for name in targets.names() if name != "cpu_int16"]
    model = model_of(
        layers.Conv1D(3, 2, activation="relu"),
        layers.UpSampling1D(2),
        layers.Flatten(),
        layers.Dense(2),
    )
    msq.quantize_model(model, msq.MSQQuantizeScheme(targets=names))


def test_tools_that_are_missing_are_told_of(monkeypatch):
    monkeypatch.setitem(extras.MODULES, "mcu", ("no_such_module",))
    scheme = msq.MSQQuantizeScheme(targets=("mcu", "min_size"))
    with pytest.warns(UserWarning, match="'mcu' needs no_such_module"):
        msq.quantize_model(model_of(layers.Dense(2)), scheme)


@pytest.mark.parametrize("bits", [8, None])
def test_an_input_that_a_device_cannot_normalize(bits, recwarn):
    norm = layers.Normalization(mean=np.zeros(8), variance=SCALES**2)
    scheme = msq.MSQQuantizeScheme(
        activation_bits=bits, targets=("mcu", "cpu_int8")
    )
    msq.quantize_model(model_of(norm, layers.Dense(2), shape=(8,)), scheme)
    said = [str(w.message) for w in recwarn if "Columns" in str(w.message)]
    assert len(said) == (bits is not None)
    assert all("'mcu' can't normalize" in s and "of input 0" in s for s in said)


def test_tokens_that_are_floats_are_not_rounded():
    qat_model = msq.quantize_model(LAYERS["Embedding"]())
    names = [layer.name for layer in qat_model.layers]
    assert not any("quantize_layer" in name for name in names)


LAYERS = {
    "Dense": lambda: model_of(layers.Dense(4)),
    "Conv1D": lambda: model_of(layers.Conv1D(3, 2)),
    "LayerNormalization": lambda: model_of(
        layers.Dense(4), layers.LayerNormalization()
    ),
    "LSTM": lambda: model_of(layers.LSTM(3), layers.Dense(2)),
    "GRU": lambda: model_of(layers.GRU(3), layers.Dense(2)),
    "LSTM unrolled": lambda: model_of(
        layers.LSTM(3, unroll=True), layers.Dense(2)
    ),
    "Conv3D": lambda: model_of(
        layers.Conv3D(3, 2), layers.Flatten(), shape=(4, 4, 4, 2)
    ),
    "Embedding": lambda: model_of(
        layers.Embedding(8, 4), layers.Flatten(), layers.Dense(2), shape=(6,)
    ),
    "ELU": lambda: model_of(layers.Dense(4), layers.ELU(), layers.Dense(2)),
    "softplus": lambda: model_of(
        layers.Dense(4, activation="softplus"), layers.Dense(2)
    ),
    "LeakyReLU": lambda: model_of(
        layers.Dense(4), layers.LeakyReLU(), layers.Dense(2)
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_what_training_refuses_is_what_export_refuses(
    name, tmp_path, monkeypatch
):
    monkeypatch.setattr(micro, "smallest_arena", lambda data, x, most: most)
    model = LAYERS[name]()
    x = np.random.default_rng(0).normal(size=(16, *model.input_shape[1:]))
    x = np.abs(np.round(x)) if name == "Embedding" else x
    x = x.astype(np.float32)
    qat_model = msq.quantize_model(model)
    msq.calibrate(qat_model, x)
    for target in ("cpu_int8", "mcu", "edgetpu"):
        refused = exports = False
        try:
            scheme = msq.MSQQuantizeScheme(targets=(target,))
            msq.quantize_model(model, scheme)
        except ValueError:
            refused = True
        try:
            export(
                msq.ModelView(qat_model),
                tmp_path / "m",
                target=target,
                representative_data=x,
            )
            exports = True
        except ExportError:
            pass
        assert exports != refused, target

"""What can't run on a target is said before the training."""

from __future__ import annotations

import keras
import pytest

import msq_tf
from msq_tf.rules import storage
from msq_tf.rules import target_limits
from tflite_export import targets
from tools import target_facts

L = keras.layers


def model(*layers):
    return keras.Sequential([keras.Input((6, 4)), L.Dense(4), *layers])


def test_the_facts_are_those_of_the_exporters_tables(root):
    """`python -m tools.target_facts` writes them anew."""
    assert (root / target_facts.FILE).read_text("utf-8") == target_facts.text()
    assert sorted(target_limits.TARGETS) == targets.names()
    assert set(target_limits._OWN) < set(targets.names())


@pytest.mark.parametrize("end", ["inputs", "outputs"])
def test_booleans_at_the_ends_are_refused_before_the_training(end):
    inputs = keras.Input((6, 4))
    mask = keras.Input((6, 1), dtype="bool", name="mask")
    x = L.Dense(4)(inputs)
    if end == "inputs":
        given = keras.Model([inputs, mask], keras.ops.where(mask, x, 0.0))
    else:
        given = keras.Model(inputs, [x, x > 0.5])
    msq_tf.quantize_model(given, msq_tf.MSQConfig(targets=("cpu_int8", "mcu")))
    with pytest.raises(ValueError, match=f"booleans.*web.*Received: .*{end}"):
        msq_tf.quantize_model(given, msq_tf.MSQConfig(targets=("web",)))


def test_what_the_facts_say():
    limits = target_limits.TARGETS
    bits = {name: limit.activation_bits for name, limit in limits.items()}
    assert (bits["min_size"], bits["mcu"], bits["cpu_int16"]) == (None, 8, 16)
    assert limits["cpu_int8"].float_regions and not limits["mcu"].float_regions
    # Kernels that unpack weights take whole bytes of a row.
    packed, whole = {8: 1, 4: 2, 2: 4}, {8: 1}
    assert storage.device("cpu_int8").widths == {
        "dense": packed,
        "one_output": whole,
        "pointwise": packed,
        "strided_pointwise": whole,
        "conv": whole,
        "depthwise": whole,
        "other": whole,
    }
    # It takes strides apart, see `tflite_export.integer.for_gpu`.
    assert storage.device("web").widths == {
        **storage.device("cpu_int8").widths,
        "strided_pointwise": packed,
    }
    assert storage.device("mcu").widths == {
        "dense": whole,
        "one_output": {8: 1, 4: 1},
        "pointwise": {8: 1, 4: 1},
        "strided_pointwise": {8: 1, 4: 1},
        "conv": {8: 1, 4: 1},
        "depthwise": {8: 1, 4: 1},
        "other": whole,
    }
    for widths in storage.device("min_size").widths.values():
        assert widths == {8: 1, 4: 1, 2: 1}
    for widths in storage.device("ethos_u").widths.values():
        assert widths == dict.fromkeys(range(8, 1, -1), 1)


@pytest.mark.parametrize("names", ["mcu", ("mcu", "arduino"), (8,)])
def test_unknown_targets(names):
    with pytest.raises(ValueError, match=r"Expected some of .*Received"):
        msq_tf.MSQConfig(targets=names)


@pytest.mark.parametrize(
    ("bits", "names"), [(16, ("mcu",)), (8, ("cpu_int16",)), (4, ("cpu_int8",))]
)
def test_bits_of_activations(bits, names):
    with pytest.raises(ValueError, match="Expected activation_bits="):
        msq_tf.MSQConfig(activation_bits=bits, targets=names)
    msq_tf.MSQConfig(activation_bits=None, targets=names)
    msq_tf.MSQConfig(activation_bits=bits, targets=("cpu_float",))


@pytest.mark.parametrize(
    ("layer", "names", "reason"),
    [
        (L.LayerNormalization(name="odd"), ("mcu", "cpu_int8"), "'odd'.*'mcu'"),
        (L.LSTM(3, name="odd"), ("ethos_u",), "'odd'.*unroll=True"),
        (L.Activation("softplus", name="odd"), ("edgetpu",), "'odd'.*relu"),
        (
            L.Dense(3, activation="elu", name="odd"),
            ("edgetpu", "mcu"),
            "'odd' .Dense. on 'edgetpu'",
        ),
        (L.Activation("gelu", name="odd"), ("ethos_u",), "'odd'.*no such"),
        (L.Activation("mish", name="odd"), ("qualcomm_npu",), "'odd'.*expon"),
        (
            L.TimeDistributed(L.Dense(3), name="odd"),
            ("edgetpu", "mcu"),
            None,
        ),
        (
            L.Bidirectional(L.GRU(3), name="odd"),
            ("mcu",),
            "'odd.*loops run in float",
        ),
    ],
)
def test_layers(layer, names, reason):
    config = msq_tf.MSQConfig(activation_bits=8, targets=names)
    if reason is None:
        msq_tf.quantize_model(model(layer), config)
        return
    with pytest.raises(ValueError, match=reason):
        msq_tf.quantize_model(model(layer), config)


@pytest.mark.parametrize(
    ("layer", "shape", "reason"),
    [
        (L.Conv2D(3, 3, dilation_rate=(1, 2)), (8, 8, 2), "same dilation"),
        (L.Conv2D(3, (1, 3), dilation_rate=(1, 2)), (8, 8, 2), None),
        (L.Conv1D(3, 3, dilation_rate=2), (8, 2), None),
        (L.TimeDistributed(L.Conv2D(3, 3)), (3, 6, 6, 2), "three axes"),
        (L.ReLU(threshold=0.5), (8,), "can't compare"),
    ],
)
def test_what_is_asked_of_a_layer(layer, shape, reason):
    base = keras.Sequential(
        [keras.Input(shape), layer, L.Flatten(), L.Dense(2)]
    )
    config = msq_tf.MSQConfig(targets=("edgetpu",))
    if reason is None:
        msq_tf.quantize_model(base, config)
        return
    with pytest.raises(ValueError, match=f"{reason}.*"):
        msq_tf.quantize_model(base, config)


def test_what_one_accelerator_runs_is_said():
    base = keras.Sequential([keras.Input((4,)), L.Dense(3, activation="selu")])
    with pytest.warns(UserWarning, match="'dense.*only U85.*accelerators"):
        msq_tf.quantize_model(base, msq_tf.MSQConfig(targets=("ethos_u",)))
    tokens = keras.Sequential([keras.Input((4,)), L.Embedding(9, 3)])
    with pytest.warns(UserWarning, match="'embedding.*allow_cpu"):
        msq_tf.quantize_model(tokens, msq_tf.MSQConfig(targets=("ethos_u",)))


def test_what_runs_everywhere_is_not_refused():
    names = tuple(n for n in targets.names() if n != "cpu_int16")
    config = msq_tf.MSQConfig(activation_bits=8, targets=names)
    base = model(
        L.Conv1D(3, 2, activation="relu"), L.UpSampling1D(2), L.Flatten()
    )
    msq_tf.quantize_model(base, config)
    msq_tf.quantize_model(
        model(L.LSTM(3, unroll=True), L.LayerNormalization()),
        msq_tf.MSQConfig(activation_bits=8, targets=("cpu_int8",)),
    )

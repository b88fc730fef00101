"""A model that is converted in parts is the model converted at once."""

from __future__ import annotations

import dataclasses
import types

import keras
import numpy as np
import pytest

import msq_tf
from tests.tflite_export.samples import quantized
from tflite_export import export
from tflite_export import float_tflite
from tflite_export.conversion import float_file
from tflite_export.conversion import in_parts as parts
from tflite_export.conversion import weight_groups
from tflite_export.conversion.converter import Converter
from tflite_export.conversion.source import from_model
from tflite_export.flatbuffer import model as fb
from train.models import vit


def residual() -> keras.Model:
    """Filters, normalization, and a shortcut that is used before its own."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", name="stem")(inputs)
    x = keras.layers.BatchNormalization()(x)
    y = keras.layers.Conv2D(16, 3, padding="same", name="main")(x)
    z = keras.layers.Conv2D(16, 1, name="shortcut")(x)
    z = keras.layers.BatchNormalization()(z)
    y = keras.layers.BatchNormalization()(y)
    x = keras.layers.ReLU(6.0)(keras.layers.add([y, z]))
    # Keras has it compiled by itself, in a function.
    x = keras.layers.Conv2D(16, 3, groups=2, padding="same")(x)
    x = keras.layers.DepthwiseConv2D(3, use_bias=False)(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.SeparableConv2D(12, 3, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(5, name="head")(x))


def transformer() -> keras.Model:
    config = vit.ViTConfig(patch=4, width=24, depth=2, heads=2, distilled=False)
    return vit.vision_transformer((8, 8, 3), 5, config, "vit")


def embedding() -> keras.Model:
    inputs = keras.Input((6,), dtype="int32")
    x = keras.layers.Embedding(20, 12)(inputs)
    x = keras.layers.Dense(12, activation="gelu")(x)
    x = keras.layers.Conv1D(7, 2)(x)
    return keras.Model(inputs, keras.layers.Dense(4)(x[:, 0]))


NETWORKS = {f.__name__: f for f in (residual, transformer, embedding)}


def trained(build) -> msq_tf.MSQModel:
    keras.utils.set_random_seed(0)
    model = build()
    rng = np.random.default_rng(0)
    for weight in model.weights:
        # Nothing is all zeros or ones after training.
        if len(weight.shape) == 1 and weight.dtype == "float32":
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    return quantized(model)


@pytest.fixture
def in_parts(monkeypatch):
    """Has every model converted in parts; counts the conversions."""
    runs = []
    original = Converter.convert

    def spied(self, shown=None):
        runs.append(shown)
        return original(self, shown)

    monkeypatch.setattr(parts, "LEAST", 1)
    monkeypatch.setattr(parts, "_LEAST_PART", 1)
    monkeypatch.setattr(Converter, "convert", spied)
    return runs


def same_but_for_places(one: bytes, other: bytes) -> None:
    """Asserts that two files have the same operators and constants."""
    first, second = fb.load(one), fb.load(other)
    parts._check_alike(first, second)
    places = list(parts._places(first))
    assert places
    for place in places:
        assert parts._same(
            first,
            parts._tensor(first, place),
            second,
            parts._tensor(second, place),
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_it_has_the_operators_and_constants_of_the_whole(name, in_parts):
    model = trained(NETWORKS[name])
    source, weights = from_model(model), model.quantized_weights()
    found = float_file.to_float_file(source, weights)
    # A table is not given to the converter at all.
    assert in_parts[0] == () and len(in_parts) > 4 - (name == "embedding")
    assert None not in in_parts  # not at once in the end
    parts.LEAST = 1 << 30
    wanted = float_file.to_float_file(source, weights)
    assert in_parts[-1] is None
    same_but_for_places(wanted.data, found.data)
    assert abs(len(found.data) - len(wanted.data)) < 500
    assert not found.constants or name == "transformer"


def test_every_weight_is_shown_once(in_parts):
    model = trained(residual)
    traced, _ = float_file._trace(from_model(model))
    converter = Converter(traced)
    found = parts.parts(converter)
    assert 4 < len(found) <= parts._SHARE + 2
    assert sum(map(len, found)) == len(converter.weights)
    assert set().union(*found) == set(converter.weights)


@pytest.mark.slow
def test_a_plain_model_is_converted_in_parts_too(in_parts):
    model = residual()
    found = float_tflite(model)
    assert None not in in_parts
    parts.LEAST = 1 << 30
    same_but_for_places(float_tflite(model), found)


@pytest.mark.slow
def test_where_parts_touch_it_is_converted_at_once(in_parts, monkeypatch):
    model = trained(residual)
    # Normalization apart from the filters that it is folded into.
    monkeypatch.setattr(
        Converter, "groups", lambda self: [[name] for name in self.weights]
    )
    found = float_tflite(model)
    assert in_parts[-1] is None and len(in_parts) > 2
    parts.LEAST = 1 << 30
    assert found == float_tflite(model)


@pytest.mark.slow
def test_other_operators_are_noticed():
    files = [fb.load(float_tflite(residual())) for _ in range(2)]
    parts._check_alike(*files)
    operator = files[1].subgraphs[0].operators[0]
    operator.builtinOptions.strideW = 2
    with pytest.raises(parts._Unlike):
        parts._check_alike(*files)
    operator.builtinOptions.strideW = 1
    graph = files[1].subgraphs[0]
    # Read from another tensor of the same shape.
    adding = next(
        op for op in graph.operators if fb.op_name(files[1], op) == "ADD"
    )
    adding.inputs = adding.inputs[::-1].copy()
    with pytest.raises(parts._Unlike):
        parts._check_alike(*files)


@pytest.mark.slow
def test_the_export_is_the_same(in_parts, tmp_path):
    model = trained(residual)
    images = np.random.default_rng(1).normal(size=(8, 8, 8, 3))
    reports = []
    for least in (1, 1 << 30):
        parts.LEAST = least
        for target in ("min_size", "cpu_int8"):
            report = export(
                model,
                tmp_path / f"{target}.tflite",
                target=target,
                representative_data=images.astype(np.float32),
            )
            reports.append(dataclasses.asdict(report))
    for one, other in zip(reports[:2], reports[2:], strict=True):
        for key, value in one.items():
            if key.endswith("_bytes"):  # tensors lie in another order
                assert abs(value - other[key]) < 100, key
            elif key == "tensors":
                assert sorted(value, key=str) == sorted(other[key], key=str)
            else:
                assert value == other[key], key


def node(name: str, op: str, *reads: str) -> types.SimpleNamespace:
    return types.SimpleNamespace(name=name, op=op, input=list(reads))


def test_a_vector_joins_the_matrix_before_it():
    nodes = [
        node("x", "Placeholder"),
        node("eps", "Const"),
        *(node(n, "Const") for n in ("w1", "bias", "gamma", "var", "w2")),
        node("late", "Const"),
        node("conv:1", "Conv2D", "x", "w1"),
        node("add", "BiasAdd", "conv:1", "bias"),
        node("rsqrt", "Rsqrt", "shifted"),
        node("shifted", "AddV2", "var", "eps"),
        node("scale", "Mul", "gamma", "rsqrt:0"),
        node("norm", "Mul", "add", "scale"),
        node("dense", "MatMul", "norm", "w2", "^add"),
        node("shift", "AddV2", "dense", "late"),
        # An order says nothing.
        node("end", "NoOp", "^shift", "^norm"),
    ]
    nodes[8].name = "conv"
    for each in nodes:
        each.input = [read.replace("conv:1", "conv:0") for read in each.input]
    shapes = dict.fromkeys(("bias", "gamma", "var", "late"), (4,))
    shapes = {"w1": (3, 4), **shapes, "w2": (4, 4)}
    assert weight_groups.groups(nodes, shapes) == [
        ["w1", "bias", "gamma", "var"],
        ["late", "w2"],
    ]


def test_what_is_made_of_constants_is_one_group():
    nodes = [
        node("a", "Const"),
        node("b", "Const"),
        node("c", "Const"),
        node("x", "Placeholder"),
        node("ab", "MatMul", "a", "b"),
        node("y", "MatMul", "x", "ab"),
        node("z", "MatMul", "y", "c"),
    ]
    shapes = dict.fromkeys("abc", (4, 4))
    assert weight_groups.groups(nodes, shapes) == [["a", "b"], ["c"]]

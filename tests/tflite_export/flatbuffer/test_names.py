"""Every tensor has a name, which costs next to nothing."""

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import msq_tf
from tflite_export import export
from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer import names


def named(width, subclassed=False):
    """A small network of named layers, one of them nested."""
    block = keras.Sequential(
        [
            keras.layers.Dense(width, "relu", name="wide"),
            keras.layers.Dense(8, name="narrow_1"),
        ],
        name="block",
    )
    head = keras.layers.Dense(4, name="head")
    inputs = keras.Input((16,), name="x")
    if not subclassed:
        x = keras.layers.Activation("sigmoid", name="gate")(block(inputs))
        return keras.Model(inputs, head(x), name="net")

    class Net(keras.Model):
        def __init__(self):
            super().__init__(name="net")
            self.block, self.head = block, head

        def call(self, x):
            return self.head(keras.ops.sigmoid(self.block(x)))

    return Net()


def file_of(model, path, target):
    x = np.random.default_rng(0).normal(size=(8, 16)).astype("f")
    model(x)
    config = msq_tf.MSQConfig(
        activation_bits=8 if target == "cpu_int8" else None
    )
    qmodel = msq_tf.quantize_model(model, config, example_inputs=x[:1])
    if target == "cpu_int8":
        msq_tf.calibrate(qmodel, x)
    export(qmodel, path, target, x, verbose=False)
    return path.read_bytes()


def texts(data):
    return [
        fb.name(tensor)
        for graph in fb.read(data).subgraphs
        for tensor in graph.tensors
    ]


@pytest.mark.parametrize("target", ["min_size", "cpu_int8"])
def test_all_have_one_and_no_two_the_same(target, tmp_path):
    found = texts(file_of(named(16), tmp_path / "m.tflite", target))
    assert all(found) and len(set(found)) == len(found)
    assert {"x", "block/wide", "block/narrow_1", "head"} < set(found)
    # A small file has numbers.
    own = {"x", "output", "block/wide", "block/narrow_1", "head"}
    rest = set(found) - own
    assert rest and all(name.startswith("#") for name in rest)


@pytest.mark.parametrize("subclassed", [False, True])
def test_a_large_file_has_layers(subclassed, tmp_path):
    data = file_of(named(5_000, subclassed), tmp_path / "m.tflite", "min_size")
    found = texts(data)
    assert len(set(found)) == len(found)
    layers = {name.rpartition("/#")[0] for name in found if "#" in name}
    assert {"block/wide", "block/narrow_1", "head"} <= layers
    assert ("gate" in layers) != subclassed
    model = fb.load(data)
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if not names.own(tensor):
                tensor.name = None
    assert 0 < len(data) - len(fb.dump(model)) <= 0.005 * len(data)


def test_names_that_are_taken():
    """An input, an output, a weight and a number of one name."""

    def tensor(name):
        made = schema.TensorT()
        made.name, made.shape = name.encode(), np.array([1], np.int32)
        return made

    graph = schema.SubGraphT()
    texts = ("a", "a", "b/c/d", "#2", "#2:2", "a")
    graph.tensors = [tensor(n) for n in texts]
    graph.inputs = np.array([5, 3], np.int32)
    graph.outputs = np.array([4, 1], np.int32)
    graph.operators = []
    model = schema.ModelT()
    model.subgraphs, model.buffers = [graph], [schema.BufferT()]
    names.give(model, {(0, 0)})
    assert [fb.name(t) for t in graph.tensors] == [
        "a:3",
        "a:2",
        "#2:3",
        "#2",
        "#2:2",
        "a",
    ]
    assert names.own(graph.tensors[0]) == "a:3"


@pytest.mark.parametrize(
    ("name", "own"),
    [("#3", ""), ("a/#3", ""), ("a/#1.3", ""), ("a#3", "a#3"), ("3", "3")],
)
def test_a_number_is_no_name_of_its_own(name, own):
    tensor = schema.TensorT()
    tensor.name = name.encode()
    assert names.own(tensor) == own

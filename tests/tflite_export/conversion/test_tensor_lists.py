"""Lists that an unrolled loop writes."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tests.tflite_export.samples import quantized
from tflite_export import export
from tflite_export import run
from tflite_export.conversion import tensor_lists


def graph_of(function):
    spec = tf.TensorSpec((None, 3), tf.float32)
    traced = tf.function(function, input_signature=[spec], autograph=False)
    return traced.get_concrete_function().graph.as_graph_def()


def written(places, size=3):
    def function(x):
        array = tf.TensorArray(tf.float32, size=size)
        for place in places:
            array = array.write(place, x + float(place))
        return array.stack()

    return function


def operations(graph):
    return {node.op for node in graph.node}


def test_a_list_that_is_written_is_a_stack():
    graph = graph_of(written([2, 0, 1]))
    assert not tensor_lists.pack(graph)
    (pack,) = [node for node in graph.node if node.op == "Pack"]
    assert len(pack.input) == 3
    assert "TensorListStack" not in operations(graph)


def test_a_list_with_a_gap_stays_one():
    graph = graph_of(written([0, 2]))
    assert tensor_lists.pack(graph)
    assert "TensorListStack" in operations(graph)


def test_a_list_of_a_loop_stays_one():
    def loop(x):
        return tf.map_fn(lambda row: row * 2.0, x)

    assert tensor_lists.pack(graph_of(loop))


class Recurrence(keras.layers.Layer):
    """Keeps a state, as KerasHub's RWKV-7 does."""

    def call(self, x):
        array = tf.TensorArray(x.dtype, size=x.shape[1])
        state = keras.ops.zeros_like(x[:, 0])
        for place in range(x.shape[1]):
            state = 0.5 * state + x[:, place]
            array = array.write(place, state)
        return keras.ops.transpose(array.stack(), (1, 0, 2))


def test_the_batch_stays_open(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 3))
    model = keras.Model(
        inputs, keras.layers.Dense(2)(Recurrence(name="state")(inputs))
    )
    qmodel = quantized(model)
    x = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)
    path = tmp_path / "m.tflite"
    report = export(qmodel, path, "min_size", representative_data=x)
    assert not any("batch size" in note for note in report.notes)
    for rows in (1, 5):
        np.testing.assert_allclose(
            run(path, x[:rows]), qmodel(x[:rows]), atol=1e-5
        )

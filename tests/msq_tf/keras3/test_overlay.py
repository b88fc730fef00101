"""The private parts of Keras that the overlay rests on.

If a test here fails after an upgrade of Keras, `msq_tf/keras3/overlay.py` is
the file to mend; nothing else in the package touches these.
"""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from msq_tf.keras3 import overlay


def test_reads_of_a_variable_give_the_tensor_laid_over_it():
    layer = keras.layers.Dense(2, use_bias=False)
    layer.build((None, 3))
    stored = layer.kernel.numpy()
    with overlay.Overlay([(layer.kernel, tf.ones((3, 2)))]):
        y = layer(np.ones((1, 3), np.float32))
        np.testing.assert_array_equal(
            overlay.read_float32(layer.kernel), np.ones((3, 2))
        )
    np.testing.assert_array_equal(y, [[3.0, 3.0]])
    np.testing.assert_array_equal(layer.kernel, stored)


def test_updates_are_written_through():
    counter = keras.Variable(1.0)
    with overlay.Overlay([]):
        counter.assign(5.0)
    assert float(counter.numpy()) == 5.0


def test_updates_go_to_an_enclosing_scope():
    counter = keras.Variable(1.0)
    with keras.StatelessScope() as outer:
        with overlay.Overlay([]):
            counter.assign(5.0)
            assert float(counter.value) == 5.0
        assert float(outer.get_current_value(counter)) == 5.0
    assert float(counter.numpy()) == 1.0


def test_losses_are_collected():
    layer = keras.layers.ActivityRegularization(l2=1.0)
    with overlay.Overlay([]) as scope:
        layer(np.ones((1, 2), np.float32))
    assert len(scope.losses) == 1


def test_read_float32_ignores_autocasting():
    variable = keras.Variable(np.float32(1.0 + 2.0**-12))
    with keras.src.backend.AutocastScope("float16"):
        assert variable.value.dtype == tf.float16
        value = overlay.read_float32(variable)
    assert float(value) == 1.0 + 2.0**-12


def test_children_and_variables_of_layers():
    inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    outer = keras.Sequential([keras.Input((2,)), inner])
    assert inner in overlay.child_layers(outer)
    assert overlay.own_variables(outer) == []
    assert len(overlay.own_variables(inner.layers[0])) == 2
    normalization = keras.layers.BatchNormalization()
    normalization.build((None, 3))
    assert len(overlay.own_variables(normalization)) == 4


@pytest.mark.slow
def test_another_backend_is_refused_at_import():
    """In its own process: a backend is chosen once."""
    code = (
        "import sys, types\n"
        "import keras\n"
        "keras.backend.backend = lambda: 'jax'\n"
        "import msq_tf\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        check=False,
    )
    assert result.returncode != 0
    assert "needs the TensorFlow backend" in result.stderr
    assert "Received: 'jax'" in result.stderr


def test_exclusions_from_decay_add_up():
    a, b, c, d = (keras.Variable(1.0, name=name) for name in "abcd")
    optimizer = keras.optimizers.SGD(0.5, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_list=[a], var_names=["b"])
    optimizer.build([a, b, c, d])
    zeros = [tf.constant(0.0)] * 4
    optimizer.apply(zeros, [a, b, c, d])
    overlay.exclude_from_decay(optimizer, [c])
    optimizer.apply(zeros, [a, b, c, d])
    values = [float(v.numpy()) for v in (a, b, c, d)]
    assert values == [1.0, 1.0, 0.75, 0.75**2]

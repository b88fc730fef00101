"""Hessian traces through the quantizers of TFMOT's activations."""

import numpy as np
import pytest
import tensorflow as tf

from msq_tf.sensitivity.hessian import BlockHessian
from tests.tfmot.samples import compile_model
from tests.tfmot.samples import fit
from tests.tfmot.samples import layers
from tests.tfmot.samples import msq
from tests.tfmot.samples import tf_keras


def small_model(x):
    """Two layers, few enough weights for whole Hessians."""
    model = tf_keras.Sequential(
        [
            layers.Input((5,)),
            layers.Dense(4, activation="relu", name="a"),
            layers.Dense(3, name="b"),
        ]
    )
    model = compile_model(msq.quantize_model(model))
    msq.calibrate(
        model, 0.7 * x
    )  # so that some leave the ranges, none by a hair
    return model


def test_hessians_are_those_of_the_network():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 5)).astype(np.float32)
    y = rng.integers(0, 3, 32)
    view = msq.ModelView(small_model(x))
    values = [tf.constant(w.values) for w in view.quantized_weights()]

    def loss(*values):
        return view.loss_at(values, (tf.constant(x), tf.constant(y), None))

    for k, value in enumerate(values):
        with tf.GradientTape(persistent=True) as outer:
            outer.watch(value)
            with tf.GradientTape() as inner:
                inner.watch(value)
                given = [*values[:k], value, *values[k + 1 :]]
                result = loss(*given)
            first = inner.gradient(result, value)
        hessian = outer.jacobian(first, value, experimental_use_pfor=False)
        hessian = hessian.numpy().reshape(value.shape.num_elements(), -1)
        expected = reference(view, values, k, x)
        np.testing.assert_allclose(hessian, expected, rtol=1e-3, atol=1e-5)


def reference(view, values, k, x):
    """J' H J in float64, with straight-through Jacobians of the network.

    It is piecewise linear up to the logits, so this is the whole Hessian.
    """
    ranges = {
        v.name.split("/")[-1].split(":")[0]: v.numpy().astype(np.float64)
        for layer in view.model.layers
        for v in layer.weights
        if v.name.endswith(("_min:0", "_max:0")) and "quant_b" not in v.name
    }
    a = view.model.layers[-2]
    bias_a = a.layer.bias.numpy().astype(np.float64)
    bias_b = view.model.layers[-1].layer.bias.numpy().astype(np.float64)
    b_min, b_max = (
        float(v.numpy())
        for v in view.model.layers[-1].weights
        if v.name.endswith(("_min:0", "_max:0"))
    )
    inputs = sorted(n for n in ranges if n.startswith("quantize_layer"))
    x_max, x_min = (ranges[name] for name in inputs)
    h_max, h_min = ranges["post_activation_max"], ranges["post_activation_min"]
    w, v = (value.numpy().astype(np.float64) for value in values)

    def grid(z, low, high):
        low, high, step = nudged(low, high)
        inside = (z >= low) & (z <= high)
        return np.round((np.clip(z, low, high) - low) / step) * step + low, (
            inside
        )

    q, _ = grid(x.astype(np.float64), x_min, x_max)
    z = q @ w + bias_a
    relu = z > 0
    h, inside_h = grid(np.maximum(z, 0), h_min, h_max)
    logits, inside_l = grid(h @ v + bias_b, b_min, b_max)
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    total = 0.0
    for i in range(len(x)):
        jacobian_h = v * (relu & inside_h)[i][:, None]  # (hidden, outputs)
        if k == 0:
            j = np.einsum("a,ho->aho", q[i], jacobian_h)
        else:
            j = np.einsum("h,op->hop", h[i], np.eye(3))
        j = j.reshape(-1, 3) * inside_l[i]
        total += j @ (np.diag(p[i]) - np.outer(p[i], p[i])) @ j.T
    return total / len(x)


def nudged(low, high):
    """The grid that TensorFlow makes of a range: zero is one of its points."""
    step = (high - low) / 255
    zero = np.clip(np.round(-low / step), 0, 255)
    return -zero * step, (255 - zero) * step, step


def test_the_searchs_traces_are_finite_and_agree():
    """Hutchinson's estimate, through the view as the search takes it."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 5)).astype(np.float32)
    y = rng.integers(0, 3, 32)
    view = msq.ModelView(small_model(x))
    values = [tf.constant(w.values) for w in view.quantized_weights()]
    batch = (tf.constant(x), tf.constant(y), None)
    estimate = BlockHessian(view.loss_at).traces(
        values, [batch], max_probes=300, tolerance=0.0
    )
    for k in range(2):
        exact = np.trace(reference(view, values, k, x))
        assert abs(estimate.trace[k] - exact) < 5 * estimate.error[k] + 1e-6
        assert np.isfinite(estimate.trace[k]) and exact > 0


@pytest.mark.slow
def test_metrics_of_fit_do_not_change():
    x = np.random.default_rng(0).normal(size=(32, 5)).astype(np.float32)
    y = np.arange(32) % 3
    model = small_model(x)
    fit(model, (x, y), epochs=1)
    before = {m.name: float(m.result()) for m in model.metrics}
    view = msq.ModelView(model)
    view.loss_at(
        view.quantized_values(), (tf.constant(x), tf.constant(y), None)
    )
    assert {m.name: float(m.result()) for m in model.metrics} == before

"""The training step's operations against `round_clamp`, to the bit."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf

from msq_tf.quantizers import batched
from msq_tf.quantizers import uniform

SHAPES = ((3, 3, 2, 4), (5, 3), (3, 3, 6, 1), (4,))
AXES = ((3,), None, (2, 3), (0,))
LAYOUT = batched.ScaleLayout(SHAPES, AXES)
laws = hypothesis.settings(deadline=None, max_examples=20)
quantizers = st.sampled_from(uniform.QUANTIZERS)
widths = st.lists(st.integers(2, 8), min_size=4, max_size=4)


def draw(seed):
    """Weights of all sizes, the last channel of the first one dead."""
    rng = np.random.default_rng(seed)
    weights = [
        (rng.normal(size=shape) * 10.0 ** rng.integers(-3, 4)).astype("f4")
        for shape in SHAPES
    ]
    weights[0][..., -1] = 0.0
    return [tf.constant(w) for w in weights]


def of_each(weights):
    return [
        uniform.max_scale(w, axes)
        for w, axes in zip(weights, AXES, strict=True)
    ]


@laws
@hypothesis.given(st.integers(0, 999))
def test_scales(seed):
    weights = draw(seed)
    found = LAYOUT.split(LAYOUT.max_scales(weights))
    for got, want in zip(found, of_each(weights), strict=True):
        assert got.shape == want.shape
        # A dead channel takes a mean, which may be summed in another order.
        np.testing.assert_allclose(got, want, rtol=1e-6)


@laws
@hypothesis.given(st.integers(0, 999), widths, quantizers)
def test_values_and_their_gradient(seed, bits, quantizer):
    weights = draw(seed)
    scales = LAYOUT.max_scales(weights)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        values = batched.values(
            LAYOUT, weights, scales, tf.constant(bits), quantizer
        )
        loss = sum(
            tf.reduce_sum(value * (i + 2.0)) for i, value in enumerate(values)
        )
    for value, w, scale, n in zip(
        values, weights, LAYOUT.split(scales), bits, strict=True
    ):
        want = uniform.quantize(w, scale, n, 0, quantizer).value
        np.testing.assert_array_equal(value, want)
    for i, gradient in enumerate(tape.gradient(loss, weights)):
        np.testing.assert_array_equal(gradient, np.full(SHAPES[i], i + 2.0))


@laws
@hypothesis.given(
    st.integers(0, 999),
    widths,
    st.lists(st.integers(0, 6), min_size=4, max_size=4),
    quantizers,
)
def test_penalty_and_its_gradient(seed, bits, lsb, quantizer):
    weights = draw(seed)
    lsb = [min(k, n - 2) for n, k in zip(bits, lsb, strict=True)]
    scales = LAYOUT.max_scales(weights)
    upstream = [w + 1.0 for w in weights]

    def reference(weights):
        penalty = tf.constant(0.0)
        for w, scale, n, k in zip(
            weights, LAYOUT.split(scales), bits, lsb, strict=True
        ):
            low = uniform.quantize(w, scale, n, k, quantizer).lsb
            penalty += uniform.lsb_penalty(low, scale, n, k, quantizer)
        return weights, penalty

    def penalized(weights):
        return batched.penalized(
            LAYOUT,
            weights,
            scales,
            tf.constant(bits),
            tf.constant(lsb),
            quantizer,
        )

    found = []
    for function in (reference, penalized):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            same, penalty = function(weights)
            loss = 0.5 * penalty + sum(
                tf.reduce_sum(w * d)
                for w, d in zip(same, upstream, strict=True)
            )
        found.append((penalty, tape.gradient(loss, weights)))
    (want, wanted), (got, gradients) = found
    np.testing.assert_allclose(got, want, rtol=1e-5)
    for a, b in zip(gradients, wanted, strict=True):
        np.testing.assert_array_equal(a, b)
    if not any(lsb):
        assert got == 0.0


@pytest.mark.parametrize("large", [True, False])
def test_one_weight_is_pulled_after_the_other(large, monkeypatch):
    """Else what is computed on the way is there for all of them at once."""
    monkeypatch.setattr(batched, "ORDERED", LAYOUT.size + (not large))
    weights = draw(0)

    @tf.function(autograph=False)
    def step(bits, lsb):
        scales = LAYOUT.max_scales(weights)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            same, penalty = batched.penalized(
                LAYOUT, weights, scales, bits, lsb, "round_clamp"
            )
            loss = penalty + sum(map(tf.reduce_sum, same))
        return tape.gradient(loss, weights)

    ints = tf.TensorSpec((4,), tf.int32)
    graph = step.get_concrete_function(ints, ints).graph.as_graph_def()
    branches = [
        function
        for function in graph.library.function
        if any(node.op == "Round" for node in function.node_def)
    ]
    assert len(branches) == 2  # of the penalty, and of its gradient
    for branch in branches:
        # Each begins with a division by its step; all but one wait.
        waiting = [
            node
            for node in branch.node_def
            if node.op == "RealDiv" and any(i[0] == "^" for i in node.input)
        ]
        assert len(waiting) == large * (len(weights) - 1)


@pytest.mark.parametrize("jit", [False, True])
def test_in_a_graph_without_retracing(jit):
    weights = draw(0)
    traces = []

    @tf.function(jit_compile=jit, autograph=False)
    def step(bits, lsb):
        traces.append(1)
        scales = LAYOUT.max_scales(weights)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            same, penalty = batched.penalized(
                LAYOUT, weights, scales, bits, lsb, "round_clamp"
            )
            values = batched.values(LAYOUT, same, scales, bits, "round_clamp")
            loss = penalty + sum(map(tf.reduce_sum, values))
        return values, penalty, tape.gradient(loss, weights)

    for bits, lsb in (([8, 4, 2, 3], [1, 2, 0, 0]), ([5, 5, 5, 5], [0] * 4)):
        bits, lsb = tf.constant(bits), tf.constant(lsb)
        values, penalty, gradients = step(bits, lsb)
        scales = LAYOUT.split(LAYOUT.max_scales(weights))
        for value, w, scale, n in zip(
            values, weights, scales, bits.numpy(), strict=True
        ):
            want = uniform.quantize(w, scale, n).value
            np.testing.assert_array_equal(value, want)
        moved = any((g.numpy() != 1.0).any() for g in gradients)
        assert (penalty > 0) == moved == bool(lsb.numpy().any())
    assert len(traces) == 1

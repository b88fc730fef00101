"""Hutchinson's estimate on losses whose Hessians are known."""

import numpy as np
import pytest
import tensorflow as tf

from msq_tf.sensitivity import hessian
from msq_tf.sensitivity.hessian import BlockHessian


def test_exact_for_a_quadratic():
    """Rademacher probes have no variance on a diagonal Hessian."""
    a, b = tf.constant([1.0, 2.0, 3.0]), tf.constant([[5.0]])

    def loss(values, scale):
        return scale * (
            tf.reduce_sum(a * values[0] ** 2)
            + tf.reduce_sum(b * values[1] ** 2)
        )

    estimate = BlockHessian(loss).traces(
        [tf.ones(3), tf.ones((1, 1))],
        [tf.constant(1.0), tf.constant(3.0)],
        max_probes=8,
    )
    np.testing.assert_allclose(estimate.trace, [24.0, 20.0])
    np.testing.assert_allclose(estimate.error, 0.0, atol=1e-6)
    assert estimate.converged
    assert estimate.probes == 2


def test_cross_terms_vanish_in_the_mean():
    rng = np.random.default_rng(0)
    full = rng.normal(size=(6, 6))
    full = tf.constant(full + full.T, tf.float32)

    def loss(values, _):
        w = tf.concat(values, 0)
        return 0.5 * tf.tensordot(w, tf.linalg.matvec(full, w), 1)

    estimate = BlockHessian(loss).traces(
        [tf.zeros(2), tf.zeros(4)], [tf.zeros(())], max_probes=400, tolerance=0
    )
    diagonal = np.diag(full.numpy())
    want = [diagonal[:2].sum(), diagonal[2:].sum()]
    assert (np.abs(estimate.trace - want) <= 3 * estimate.error).all()
    assert not estimate.converged
    assert estimate.probes == 400


def test_same_seed_same_probes():
    def loss(values, _):
        return tf.reduce_sum(values[0][:-1] * values[0][1:])

    hessian = BlockHessian(loss)
    options = {"max_probes": 3, "tolerance": 0.0}
    first, again, other = (
        hessian.traces([tf.ones(50)], [tf.zeros(())], seed=seed, **options)
        for seed in (7, 7, 8)
    )
    np.testing.assert_array_equal(first.trace, again.trace)
    assert first.trace != other.trace


def test_a_block_without_influence_has_trace_zero():
    estimate = BlockHessian(
        lambda values, _: tf.reduce_sum(values[0] ** 2) + 0.0
    ).traces([tf.ones(2), tf.ones(3)], [tf.zeros(())])
    np.testing.assert_allclose(estimate.trace, [4.0, 0.0])


def test_a_downward_curvature_has_a_negative_trace():
    estimate = BlockHessian(
        lambda values, _: tf.reduce_sum(values[0] ** 2 - values[1] ** 2)
    ).traces([tf.ones(3), tf.ones(3)], [()])
    np.testing.assert_allclose(estimate.trace, [6.0, -6.0])
    assert estimate.converged


def test_a_flat_loss_converges_to_zero():
    """No curvature anywhere: the relative error is 0 of 0."""
    estimate = BlockHessian(
        lambda values, _: tf.reduce_sum(values[0]) - tf.reduce_sum(values[1])
    ).traces([tf.ones(3), tf.ones(2)], [()], min_probes=3, tolerance=0.0)
    np.testing.assert_array_equal(estimate.trace, [0.0, 0.0])
    np.testing.assert_array_equal(estimate.error, [0.0, 0.0])
    assert estimate.converged
    assert estimate.probes == 3


def noise(values):
    """Its Hessian has off-diagonal entries only."""
    return sum(2.0 * value[0] * value[1] for value in values)


def test_a_block_near_zero_need_not_be_known_to_its_own_tolerance():
    hessian = BlockHessian(
        lambda values, _: (
            1e3 * tf.reduce_sum(values[0] ** 2) + noise(values[1:])
        )
    )
    estimate = hessian.traces(
        [tf.ones(10), tf.ones(2)], [()], tolerance=0.01, max_probes=50
    )
    assert estimate.converged
    assert estimate.probes == 2


@pytest.mark.slow
def test_noise_of_many_blocks_does_not_pass_for_a_result():
    estimate = BlockHessian(lambda values, _: noise(values)).traces(
        [tf.ones(2)] * 50, [()], max_probes=16, tolerance=0.2
    )
    assert not estimate.converged
    assert estimate.probes == 16
    # Each is zero within its error, and the errors are those of +-4 noise.
    assert np.mean(np.abs(estimate.trace) <= 2 * estimate.error) > 0.85
    np.testing.assert_allclose(estimate.error.mean(), 1.0, rtol=0.1)


def test_probing_stops_at_the_tolerance():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(30, 30))
    full = tf.constant(root @ root.T, tf.float32)
    hessian = BlockHessian(
        lambda values, _: (
            0.5 * tf.tensordot(values[0], tf.linalg.matvec(full, values[0]), 1)
        )
    )
    probes = []
    for tolerance in (0.1, 0.02):
        estimate = hessian.traces(
            [tf.ones(30)],
            [()],
            min_probes=4,
            max_probes=1000,
            tolerance=tolerance,
        )
        assert estimate.converged
        assert estimate.error[0] <= tolerance * estimate.trace[0]
        want = np.trace(full.numpy())
        assert abs(estimate.trace[0] - want) <= 3 * estimate.error[0]
        probes.append(estimate.probes)
    # The error falls with the root of the probes: 25 times as many.
    assert 4 < 8 * probes[0] < probes[1] < 1000


def test_a_single_probe_has_no_error_to_tell():
    estimate = BlockHessian(lambda values, _: noise(values)).traces(
        [tf.ones(2)], [()], max_probes=1, min_probes=1
    )
    assert np.isinf(estimate.error).all()
    assert not estimate.converged


def test_a_loss_that_is_not_finite_is_refused():
    hessian = BlockHessian(lambda values, x: x * tf.reduce_sum(values[0] ** 2))
    with pytest.raises(ValueError, match="not finite.*learning rate.*nan"):
        hessian.traces([tf.ones(2)], [tf.constant(1.0), tf.constant(np.nan)])


@pytest.mark.parametrize(
    ("names", "named"), [(None, "1: -inf"), (["a", "b"], "b: -inf")]
)
def test_a_second_derivative_that_is_not_finite_is_refused(names, named):
    hessian = BlockHessian(
        lambda values, _: (
            tf.reduce_sum(values[0] ** 2) + tf.reduce_sum(tf.sqrt(values[1]))
        ),
        names,
    )
    with pytest.raises(ValueError, match=f"hessian=False.*Received: {named}$"):
        hessian.traces([tf.ones(2), tf.zeros(2)], [()])


def test_bad_arguments():
    hessian = BlockHessian(lambda values, _: tf.reduce_sum(values[0]))
    with pytest.raises(ValueError, match="at least one batch"):
        hessian.traces([tf.ones(2)], [])
    with pytest.raises(ValueError, match="Received: min_probes=5"):
        hessian.traces([tf.ones(2)], [()], min_probes=5, max_probes=4)
    with pytest.raises(ValueError, match="Received: tolerance=-1"):
        hessian.traces([tf.ones(2)], [()], tolerance=-1.0)


def test_groups_are_thirds_of_many_weights_in_order():
    assert hessian.groups([10, 20, 30]) == [range(3)]
    million = 1 << 20
    sizes = [n * million for n in (12, 4, 4, 4, 8, 4)]
    parts = hessian.groups(sizes)
    assert [i for part in parts for i in part] == list(range(len(sizes)))
    assert all(
        len(part) == 1 or sum(sizes[i] for i in part) <= sum(sizes) / 3
        for part in parts
    )
    assert hessian.groups([36 * million, 5]) == [range(1), range(1, 2)]


def test_a_probe_in_groups_estimates_the_same_traces(monkeypatch):
    """Without the cross terms between groups, which have zero mean."""
    a = tf.constant([[4.0, 1.0], [1.0, 6.0]])

    def loss(values, batch):
        x = tf.concat(values, 0)
        return 0.5 * tf.reduce_sum(x * tf.linalg.matvec(a, x)) * batch[0]

    values, batches = [tf.ones(1), tf.ones(1)], [(2.0,), (4.0,)]
    whole = BlockHessian(loss).traces(
        values, batches, max_probes=4, min_probes=4, tolerance=0.0
    )
    assert whole.error.min() > 0.0  # the cross terms
    monkeypatch.setattr(hessian, "_GROUPED", 1)
    parts = BlockHessian(loss).traces(
        values, batches, max_probes=4, min_probes=4, tolerance=0.0
    )
    np.testing.assert_allclose(parts.trace, [12.0, 18.0])
    np.testing.assert_array_equal(parts.error, [0.0, 0.0])


def test_a_table_that_is_looked_up_has_a_trace():
    """Its gradient is a few rows; row 2 is looked up twice, row 1 never."""
    table = tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])

    def loss(values, batch):
        return tf.reduce_sum(tf.gather(values[0], batch) ** 2)

    rows = tf.constant([0, 2, 2])
    found = BlockHessian(loss).traces([table], [rows], max_probes=2)
    np.testing.assert_allclose(found.trace, [2 * 2 * 3])

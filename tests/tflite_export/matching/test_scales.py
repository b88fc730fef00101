from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from tflite_export.matching import input_scales
from tflite_export.matching import scales as fitting


def folded(codes, step, gamma):
    """What a converter makes of a weight: float32 products."""
    value = codes.astype(np.float32) * np.float32(step)
    return value * np.asarray(gamma, np.float32)


@pytest.fixture
def codes():
    return np.random.default_rng(0).integers(-7, 8, (5, 3, 3, 4))


def test_trained_step_is_kept_bit_for_bit(codes):
    step = np.linspace(0.01, 0.09, 5, dtype=np.float32).reshape(5, 1, 1, 1)
    found = fitting.fit(
        folded(codes, step, 1), codes, np.broadcast_to(step, codes.shape)
    )
    assert found.exact and found.axis == 0
    np.testing.assert_array_equal(found.scale, step.ravel())


def test_negative_factors_flip_signs(codes):
    gamma = np.array([0.3, -2.0, 1e-4, -0.7, 5.0]).reshape(5, 1, 1, 1)
    found = fitting.fit(folded(codes, 0.037, gamma), codes, None)
    np.testing.assert_array_equal(found.signs, np.sign(gamma).ravel())
    np.testing.assert_allclose(
        found.scale, 0.037 * np.abs(gamma).ravel(), rtol=1e-6
    )


def test_dead_channel_gets_the_median_of_the_others(codes):
    codes[2] = 0
    gamma = np.array([1, 2, 3, 4, 9]).reshape(5, 1, 1, 1)
    found = fitting.fit(folded(codes, 1, gamma), codes, None)
    assert found.dead == 1
    assert found.scale[2] == 3.0


def test_all_dead_takes_the_trained_step():
    zeros = np.zeros((2, 3))
    found = fitting.fit(zeros.astype(np.float32), zeros, np.full((2, 3), 0.5))
    assert found.scale == 0.5 and found.dead == 1


def test_zero_factor_mutes_a_channel_and_keeps_its_codes(codes):
    gamma = np.array([1, 0, 2, 3, -1]).reshape(5, 1, 1, 1)
    found = fitting.fit(folded(codes, 0.1, gamma), codes, None)
    assert found.muted == 1
    assert found.scale[1] == fitting.MUTED_SCALE


def test_one_code_per_channel():
    codes = np.array([[3, -1, 0, 7]])
    found = fitting.fit(folded(codes, 0.1, [[1, -2, 5, 0.5]]), codes, None)
    np.testing.assert_array_equal(found.signs, [1, -1, 1, 1])


@pytest.mark.parametrize("wrong", [1, -1])
def test_near_miss_fails(codes, wrong):
    tensor = folded(codes, 0.1, 1)
    near = codes.copy()
    near[0, 0, 0, 0] = codes[0, 0, 0, 0] + wrong
    assert fitting.fit(tensor, near, None) is None


def test_zero_code_needs_a_zero_weight(codes):
    tensor = folded(codes, 0.1, 1)
    tensor[codes == 0] = 1e-20
    assert fitting.fit(tensor, codes, None) is None


def test_lost_precision_fails(codes):
    tensor = folded(codes, 0.1, 1).astype(np.float16).astype(np.float32)
    assert fitting.fit(tensor, codes, None) is None


@given(seed=st.integers(0, 2**32 - 1), bits=st.integers(2, 8))
@settings(max_examples=50)
def test_any_folding_is_found_and_any_other_code_refused(seed, bits):
    rng = np.random.default_rng(seed)
    top = 2 ** (bits - 1) - 1
    codes = rng.integers(-top, top + 1, (4, 6))
    codes[:, :2] = 1, -1
    gamma = rng.normal(size=(4, 1)) * 10.0 ** rng.integers(-4, 5, (4, 1))
    gamma = np.where(gamma == 0, 1, gamma)
    tensor = folded(codes, 0.013, gamma)
    found = fitting.fit(tensor, codes, None)
    rebuilt = codes * found.along(found.signs * found.scale, 2)
    np.testing.assert_allclose(rebuilt, tensor, rtol=1e-6)
    codes[rng.integers(4), rng.integers(6)] += 1
    assert fitting.fit(tensor, codes, None) is None


@given(seed=st.integers(0, 2**32 - 1), zeros=st.floats(0, 0.9))
@settings(max_examples=50)
def test_factors_along_rows_and_columns(seed, zeros):
    rng = np.random.default_rng(seed)
    codes = rng.integers(-3, 4, (7, 9)) * (rng.random((7, 9)) >= zeros)
    codes[0, 0] = 1
    rows = rng.uniform(0.1, 3, (7, 1)) * rng.choice([-1, 1], (7, 1))
    columns = rng.uniform(0.1, 3, (1, 9)) * rng.choice([-1, 0, 1], (1, 9))
    columns[0, 0] = 1
    tensor = folded(folded(codes, 1, rows), 1, columns)
    found = input_scales.fit_rows_and_columns(tensor, codes)
    rebuilt = codes * found.along(found.signs * found.scale, 2) * found.columns
    np.testing.assert_allclose(rebuilt, tensor, rtol=2e-6)


def test_rows_and_columns_refuse_a_wrong_code():
    rng = np.random.default_rng(0)
    codes = rng.integers(1, 4, (7, 9))
    tensor = folded(codes, rng.uniform(1, 2, (7, 1)), rng.uniform(1, 2, (1, 9)))
    codes[3, 4] += 1
    assert input_scales.fit_rows_and_columns(tensor, codes) is None


@settings(max_examples=60)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    axis=st.integers(-1, 3),
    at_once=st.sampled_from([1, 3, 7, 1 << 20]),
    known_step=st.booleans(),
    seed=st.integers(0, 999),
)
def test_parts_of_a_large_tensor_are_one_fit(
    shape, axis, at_once, known_step, seed
):
    rng = np.random.default_rng(seed)
    axis = axis if 0 <= axis < len(shape) else None
    lengths = [n if k == axis else 1 for k, n in enumerate(shape)]
    step = rng.uniform(0.01, 1, lengths).astype(np.float32)
    codes = rng.integers(-3, 4, shape)
    right = codes.astype(np.float32) * step
    wrong = right.copy()
    wrong.ravel()[-1] *= 1.01
    steps = np.broadcast_to(step, shape) if known_step else None
    with pytest.MonkeyPatch().context() as patched:
        patched.setattr(fitting, "_AT_ONCE", at_once)
        parts = [
            fitting.fit_axis(t, codes, steps, axis) for t in (right, wrong)
        ]
    whole = [fitting.fit_axis(t, codes, steps, axis) for t in (right, wrong)]
    assert parts[0].exact == known_step
    assert parts[0].dead == (~codes.any(axis=_other(axis, codes.ndim))).sum()
    for one, other in zip(parts, whole, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(one.scale, other.scale, rtol=1e-6)
            np.testing.assert_array_equal(one.signs, other.signs)
            assert (one.exact, one.dead, one.muted, one.axis) == (
                *(other.exact, other.dead, other.muted, other.axis),
            )


def _other(axis, rank):
    return tuple(k for k in range(rank) if k != axis)

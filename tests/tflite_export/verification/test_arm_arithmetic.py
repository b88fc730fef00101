"""The one kernel of ARM that rounds more coarsely than an operator may."""

import hypothesis
import hypothesis.strategies as st
import numpy as np

from tests.tflite_export.integer import one_operator
from tflite_export.flatbuffer import model as fb
from tflite_export.verification import arm_arithmetic
from tflite_export.verification import fixed_point
from tflite_export.verification.per_operator import Recorded

SUMS = st.integers(-(2**20), 2**20)


@hypothesis.given(SUMS, st.floats(1e-6, 0.999))
def test_below_a_factor_of_one_it_rounds_as_others_do(total, real):
    own = arm_arithmetic.rescale(np.array([total]), np.array([real]))
    other = fixed_point.rescale(np.array([total]), np.array([real]), True)
    np.testing.assert_array_equal(own, other)


@hypothesis.given(SUMS, st.floats(1.0, 32.0))
def test_beyond_it_results_are_multiples_of_a_power_of_two(total, real):
    (own,) = arm_arithmetic.rescale(np.array([total]), np.array([real]))
    _, exponent = np.frexp(real)
    step = 2 ** int(exponent)
    assert own % step == 0
    # The factor has 31 bits.
    assert abs(own - total * real) <= step / 2 + abs(total) * step * 2.0**-31


def _recorded(factor, units=0):
    """A depthwise convolution as that kernel computes it, off by `units`."""
    data = one_operator.depthwise(np.full(8, factor))
    model = fb.read(data)
    graph = model.subgraphs[0]
    x = np.random.default_rng(1).integers(-12, 5, (1, 4, 4, 8)).astype(np.int8)
    given, result = fb.inputs(graph)[0], fb.outputs(graph)[0]
    sums = fixed_point.sums(model, graph.operators[0], {given: x})
    got = sums.codes(arm_arithmetic.rescale(sums.total, sums.real))
    got[0, 0, 0, 0] += units
    return data, {given: x, result: got}


def test_its_results_are_explained_to_the_bit_and_no_others():
    data, recorded = _recorded(5.0)
    (found,) = Recorded(data, arm=True)(recorded)
    assert found.units == 4 and not found.unexplained
    # Other kernels have no such arithmetic.
    (found,) = Recorded(data)(recorded)
    assert found.unexplained == found.units == 4
    (found,) = Recorded(data, arm=True)(_recorded(5.0, units=1)[1])
    assert found.unexplained == found.units >= 4
    data, recorded = _recorded(0.7)
    (found,) = Recorded(data, arm=True)(recorded)
    assert found.unexplained == found.units <= 1

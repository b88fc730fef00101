from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tflite_export.flatbuffer import packing

SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=7)


@pytest.mark.parametrize("bits", packing.CONTAINER_BITS)
@given(data=st.data())
def test_round_trip(bits, data):
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    codes = data.draw(
        hnp.arrays(np.int8, SHAPES, elements=st.integers(low, high))
    )
    packed = packing.pack(codes, bits)
    assert packed.dtype == np.uint8
    assert packed.size == packing.packed_size(codes.size, bits)
    back = packing.unpack(packed, bits, codes.size)
    np.testing.assert_array_equal(back, codes.ravel())


def test_first_code_is_in_the_lowest_bits():
    np.testing.assert_array_equal(
        packing.pack(np.array([1, -1, 7]), 4), [0xF1, 0x07]
    )
    np.testing.assert_array_equal(
        packing.pack(np.array([1, -1, 0, 1, -1]), 2), [0b01001101, 0b11]
    )


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="do not fit"):
        packing.pack(np.array([8]), 4)
    with pytest.raises(ValueError, match="No such container"):
        packing.pack(np.array([1]), 3)
    with pytest.raises(ValueError, match="wrong length"):
        packing.unpack(np.zeros(2, np.uint8), 4, 5)

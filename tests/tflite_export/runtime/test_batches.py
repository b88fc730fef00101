"""Outputs of batches behind each other."""

import hypothesis
import hypothesis.strategies as st
import numpy as np

from tflite_export.runtime import batches


@hypothesis.given(
    st.integers(1, 12), st.integers(1, 5), st.integers(1, 3), st.booleans()
)
def test_what_filled_up_the_last_batch_is_left_out(rows, size, each, fills):
    """Outputs of one row a sample, of several, and of one number a batch."""
    size = size if fills else next(n for n in (size, 1) if rows % n == 0)
    count = -(-rows // size)
    samples = np.minimum(np.arange(count * size), rows - 1)
    results = [
        [
            batch,
            np.repeat(batch, each),
            np.array(float(batch[0])),
        ]
        for batch in samples.reshape(count, size)
    ]
    one, several, whole = batches.joined(results, rows, count * size)
    np.testing.assert_array_equal(one, np.arange(rows))
    np.testing.assert_array_equal(several, np.repeat(np.arange(rows), each))
    assert len(whole) == count

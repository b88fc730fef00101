"""Weights that a search stores and brings back."""

import numpy as np
import pytest

from msq_tf.search.kept_states import KeptStates


@pytest.fixture(params=[False, True])
def states(request, tmp_path):
    return KeptStates(str(tmp_path) if request.param else None)


def test_what_was_made_since_stays_as_it_is(states):
    """As the slots of a second optimizer, which come last."""
    weights, slots = np.arange(6.0).reshape(2, 3), np.ones(4, "float32")
    states.save(0, [weights])
    found = states.load(0, [weights + 1, slots])
    np.testing.assert_array_equal(found[0], weights)
    np.testing.assert_array_equal(found[1], slots)
    assert states.holds(0, [weights, slots])
    assert not states.holds(0, [weights + 1, slots])


def test_more_than_the_model_has_is_of_another(tmp_path):
    states = KeptStates(str(tmp_path))
    states.save(3, [np.ones(2), np.ones(2)])
    with pytest.raises(ValueError, match="cannot be read.*Received: .*2 arr"):
        states.load(3, [np.ones(2)])

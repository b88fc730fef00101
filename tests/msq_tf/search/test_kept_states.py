"""Weights that a search stores and brings back."""

import keras
import numpy as np
import pytest

from msq_tf.search.kept_states import KeptStates
from msq_tf.search.kept_states import give_back


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


def test_means_of_squares_go_on_while_they_are_sound():
    now = [[1.0, 2.0], [0.0, 3.0], [0.0, 0.0], [np.nan, 1.0]]
    variables = [keras.Variable(value) for value in now]
    arrays = [np.array([5.0, 6.0], "float32")] * 4
    give_back(variables, arrays, variables[1:])
    found = [variable.numpy().tolist() for variable in variables]
    assert found == [[5.0, 6.0], [0.0, 3.0], [5.0, 6.0], [5.0, 6.0]]

"""Statistics take hardly more memory than the training they belong to."""

import pytest

from benchmarks.harness import child
from tests.msq_tf import statistics_memory


@pytest.mark.slow
@pytest.mark.parametrize("network", list(statistics_memory.NETWORKS))
def test_statistics_stay_within_the_memory_of_a_step(network):
    found = child.measured(statistics_memory.__name__, network)
    # Of the process, graphs and TensorFlow's own included.
    assert found["first_mib"] < 1.2 * found["step_mib"]
    assert found["later_mib"] < 1.2 * found["step_mib"]

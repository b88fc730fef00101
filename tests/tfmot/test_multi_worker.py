"""tf_keras's `fit` runs over several workers, and so does a search in it."""

import ast
import sys

import numpy as np
import pytest

from tests.launching import PATIENCE
from tests.launching import launched
from tests.launching import outputs


@pytest.mark.slow
@pytest.mark.timeout(2 * PATIENCE)
def test_two_workers_search_as_one(root):
    def run(count):
        command = [sys.executable, "-m", "tests.tfmot.worker", str(count)]
        with launched([command] * count, root) as processes:
            texts = outputs(processes)
        assert [p.returncode for p in processes] == [0] * count, texts
        lines = [text.rpartition("RESULT ")[2] for text in texts]
        return [ast.literal_eval(line.splitlines()[0]) for line in lines]

    (one,) = run(1)
    first, second = run(2)
    assert first[:4] == second[:4]
    for *_, (early, *_, late) in (first, second):
        # A thread for each exchange would be one a step, and more.
        assert late <= early + 8
    changes, bits, losses, norms, _ = one
    assert first[:2] == [changes, bits]
    assert len(changes) > 6
    np.testing.assert_allclose(first[2], losses, rtol=1e-5)
    np.testing.assert_allclose(first[3], norms, rtol=1e-5)

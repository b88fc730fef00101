"""Memory of Hessian probes, in a process of its own."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("resource")

from tests.msq_tf import hessian_memory


@pytest.mark.slow
def test_memory_is_a_few_copies_of_the_weights_and_does_not_grow(root):
    result = subprocess.run(
        [sys.executable, "-m", hessian_memory.__name__, "wide"],
        cwd=root,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    copies = json.loads(result.stdout.splitlines()[-1])["copies"]
    # The probe, the gradient, the product, and what a process takes anyway.
    assert copies["probe"] < 4
    # Eleven more probes that stayed alive would be eleven copies at least.
    assert copies["probes"] - copies["probe"] < 1

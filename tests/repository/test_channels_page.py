"""The page on channels has an example that runs."""

import pytest

from tests.repository.test_documentation import run_blocks


@pytest.mark.slow
def test_the_page_runs(root, capsys):
    names = run_blocks(root / "docs/channels.md")
    sizes = [kernel.shape[-1] for kernel in names["smaller"].kernels]
    assert sizes == [13, 32, 4]
    assert "can go" in capsys.readouterr().out

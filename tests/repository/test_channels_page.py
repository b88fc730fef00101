"""The page on channels has an example that runs."""

import pytest

from tests.repository.test_documentation import python_blocks


@pytest.mark.slow
def test_the_page_runs(root, capsys):
    names = {}
    for block in python_blocks(root / "docs/channels.md"):
        exec(compile(block, "channels.md", "exec"), names)
    sizes = [kernel.shape[-1] for kernel in names["smaller"].kernels]
    assert sizes == [13, 32, 4]
    assert "can go" in capsys.readouterr().out

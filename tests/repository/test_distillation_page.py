"""The page on distillation has an example that runs."""

import pytest

from tests.repository.test_documentation import python_blocks


@pytest.mark.slow
def test_the_page_runs(root, capsys):
    names = {}
    for block in python_blocks(root / "docs/distillation.md"):
        exec(compile(block, "distillation.md", "exec"), names)
    assert names["qmodel"].compression >= 8.0
    assert "msq_distillation" in capsys.readouterr().out

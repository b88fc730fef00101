"""The page on distillation has an example that runs."""

import pytest

from tests.repository.test_documentation import run_blocks


@pytest.mark.slow
def test_the_page_runs(root, capsys):
    names = run_blocks(root / "docs/distillation.md")
    assert names["qmodel"].compression >= 8.0
    assert "msq_distillation" in capsys.readouterr().out

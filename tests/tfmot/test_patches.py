"""TFMOT is mended once, whatever is imported first."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys

import pytest

import tests.tfmot.samples  # noqa: F401 (imports TFMOT, or skips)
from msq_tf.tfmot.compat import patches


def state():
    return [
        inspect.getattr_static(owner, name)
        for owner, name, _ in patches.PATCHES
    ]


def test_one_patch_a_symbol():
    symbols = [(owner, name) for owner, name, _ in patches.PATCHES]
    assert len(set(symbols)) == len(symbols)
    assert state() == [replacement for *_, replacement in patches.PATCHES]


def test_a_second_call_changes_nothing():
    before = state()
    patches.apply_patches()
    assert state() == before


def test_nothing_else_is_replaced_on_import(root):
    """No module sets what another one holds."""
    wrong = [
        f"{path.relative_to(root)}: {ast.unparse(node)}"
        for path in sorted((root / "msq_tf").rglob("*.py"))
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Attribute) for target in node.targets)
    ]
    assert not wrong


@pytest.mark.slow
@pytest.mark.parametrize(
    "first",
    [
        "msq_tf.tfmot.compat.ranges",
        "msq_tf.tfmot.compat.patches",
        "msq_tf.tfmot.model_view",
        "msq_tf.tfmot.strip",
    ],
)
def test_the_order_of_imports_does_not_matter(first, root):
    code = (
        f"import {first}, inspect\n"
        "from msq_tf.tfmot.compat import patches\n"
        "for owner, name, new in patches.PATCHES:\n"
        "    assert inspect.getattr_static(owner, name) is new, name\n"
        "from msq_tf.tfmot.compat import fake_quant, ranges\n"
        "for plain in (fake_quant._plain, ranges._plain_average,\n"
        "              ranges._plain_extremes):\n"
        "    assert plain.__module__.startswith('tensorflow_model'), plain\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr

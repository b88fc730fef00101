"""Public docstrings: how they begin, and the names in their examples."""

from __future__ import annotations

import ast
import importlib
import re

from tools import imports

PACKAGES = ("msq_tf", "tflite_export", "train")
EXAMPLE = re.compile(r"```python\n(.*?)```", re.DOTALL)
NAME = re.compile(r"\b((?:msq_tf|tflite_export)(?:\.\w+)+)")
# Words of clauses, which are read twice.
CLAUSES = ("That", "What", "Where", "Who", "Whose")


def test_no_docstring_begins_with_a_clause(root):
    wrong = []
    for path in imports.source_files(root):
        if path.parts[0] not in PACKAGES:
            continue
        for node in ast.walk(ast.parse((root / path).read_text())):
            if not isinstance(
                node, ast.Module | ast.ClassDef | ast.FunctionDef
            ):
                continue
            text = ast.get_docstring(node)
            private = getattr(node, "name", "").startswith("_")
            if text and not private and text.split()[0] in CLAUSES:
                wrong.append(f"{path}: {text.splitlines()[0]}")
    assert not wrong


def test_examples_of_docstrings_use_names_that_exist(root):
    named = {}
    for path in imports.source_files(root):
        if path.parts[0] not in PACKAGES:
            continue
        for example in EXAMPLE.findall((root / path).read_text()):
            for name in NAME.findall(example):
                named.setdefault(name, path)
    assert len(named) > 20
    wrong = [f"{path}: {name}" for name, path in named.items() if not _is(name)]
    assert not wrong


def _is(name):
    """Whether a dotted name is that of a module or of a public object."""
    found, *rest = name.split(".")
    value = importlib.import_module(found)
    for part in rest:
        found = f"{found}.{part}"
        if not hasattr(value, part):
            try:
                importlib.import_module(found)
            except ModuleNotFoundError:
                return False
        value = getattr(value, part)
    return True

"""A public docstring begins with a verb or names a thing."""

from __future__ import annotations

import ast

from tools import imports

PACKAGES = ("msq_tf", "tflite_export", "train")
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

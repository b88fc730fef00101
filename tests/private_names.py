"""Finds what code takes from other packages that they do not promise."""

from __future__ import annotations

import ast
import pathlib
from collections.abc import Sequence

# Part of the public interface of a named tuple.
_NAMED_TUPLE = {"_asdict", "_fields", "_make", "_replace"}
# Modules whose names are promised only at the top of their package.
_INNER = ("keras.src", "tf_keras.src", "tensorflow.python")


def private_names(
    root: pathlib.Path, paths: Sequence[pathlib.Path]
) -> dict[str, list[str]]:
    """Private names that are read or set on anything but `self` and `cls`.

    Args:
        root: Root of the repository.
        paths: Python files, relative to it.

    Returns:
        The files that use each name, by name. An inner module, such as
        `keras.src`, is a name too.
    """
    found: dict[str, list[str]] = {}
    for path in paths:
        tree = ast.parse((root / path).read_bytes())
        for name in sorted({n for node in ast.walk(tree) for n in _of(node)}):
            found.setdefault(name, []).append(str(path))
    return found


def _of(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom) and node.module:
        return [m for m in _INNER if f"{node.module}.".startswith(f"{m}.")]
    if isinstance(node, ast.Attribute):
        dotted = ast.unparse(node)
        if dotted in _INNER:
            return [dotted]
        own = ast.unparse(node.value) in ("self", "cls")
        return [] if own else _private(node.attr)
    if (
        isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("getattr", "hasattr", "setattr")
        and isinstance(node.args[1], ast.Constant)
    ):
        return _private(str(node.args[1].value))
    return []


def _private(name: str) -> list[str]:
    if name in _NAMED_TUPLE or name.startswith("__"):
        return []
    return [name] if name.startswith("_") else []

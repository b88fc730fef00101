"""Reads which project modules and distributions each source file imports."""

from __future__ import annotations

import ast
import pathlib
import sys
from collections.abc import Iterator

PACKAGES = (
    "msq_tf",
    "tflite_export",
    "train",
    "benchmarks",
    "examples",
    "tools",
    "tests",
)

# What statements are, or stand in.
_HOLDERS = (ast.stmt, ast.excepthandler, ast.match_case)


def source_files(root: pathlib.Path) -> list[pathlib.Path]:
    """Returns every Python file of the project, relative to `root`."""
    return sorted(
        path.relative_to(root)
        for package in PACKAGES
        for path in (root / package).rglob("*.py")
    )


def module_path(root: pathlib.Path, module: str) -> pathlib.Path | None:
    """Returns the file of a project module, None where there is none."""
    stem = pathlib.Path(*module.split("."))
    for path in (stem.with_suffix(".py"), stem / "__init__.py"):
        if (root / path).is_file():
            return path
    return None


def imported_modules(
    root: pathlib.Path, path: pathlib.Path, inside: bool = True
) -> set[str]:
    """Returns the dotted names of all modules that a file imports.

    `from package import name` gives `package.name` where that is a module of
    the project, and `package` where it is not. The standard library is left
    out, and what is imported under `if TYPE_CHECKING`, because nothing runs it.

    Args:
        root: Root of the repository.
        path: The file, relative to `root`.
        inside: Whether imports inside functions count.

    Returns:
        Names of project modules in full, and of other modules as written.
    """
    names: set[str] = set()
    for node in _running(ast.parse((root / path).read_bytes()), inside):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(path, node)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                names.add(full if module_path(root, full) else base)
    return {
        name
        for name in names
        if name.partition(".")[0] not in sys.stdlib_module_names
    }


def _running(tree: ast.AST, inside: bool) -> Iterator[ast.AST]:
    yield tree
    for child in ast.iter_child_nodes(tree):
        # An import is a statement, and expressions hold none.
        if not isinstance(child, _HOLDERS):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith(
            "TYPE_CHECKING"
        ):
            continue
        if inside or not isinstance(
            child, ast.FunctionDef | ast.AsyncFunctionDef
        ):
            yield from _running(child, inside)


def _absolute(path: pathlib.Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = path.parts[:-1][: len(path.parts) - node.level]
    return ".".join((*package, *filter(None, [node.module])))

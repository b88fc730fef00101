"""The reference has the public names, and no others."""

from __future__ import annotations

import ast
import re

import pytest

PAGES = {
    "msq_tf": "msq_tf",
    "msq_tf.quantizers": "quantizers",
    "msq_tf.rules": "rules",
    "msq_tf.sensitivity": "sensitivity",
    "msq_tf.tfmot": "tfmot",
    "tflite_export": "tflite_export",
    "tflite_export.targets": "targets",
}
# Rooms whose names are for the rooms above them.
INSIDE = {"tflite_export.devices"}


def exported(root, package):
    """`__all__`, without importing anything."""
    path = root.joinpath(*package.split("."), "__init__.py")
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and [
            target.id for target in node.targets
        ] == ["__all__"]:
            return ast.literal_eval(node.value)
    raise AssertionError(f"{package} has no __all__")


def documented(root, page):
    text = (root / "docs" / "reference" / f"{page}.md").read_text()
    return re.findall(r"^::: (\S+)$", text, re.MULTILINE)


@pytest.mark.parametrize(("package", "page"), PAGES.items(), ids=PAGES)
def test_a_page_has_the_public_names(root, package, page):
    names = [f"{package}.{name}" for name in exported(root, package)]
    # A package inside has a page of its own.
    names = [name for name in names if name not in PAGES]
    found = documented(root, page)
    assert len(found) == len(set(found))
    assert set(found) == set(names)


def test_every_package_with_public_names_has_a_page(root):
    found = {
        ".".join(path.parent.relative_to(root).parts)
        for package in ("msq_tf", "tflite_export")
        for path in (root / package).rglob("__init__.py")
        if "\n__all__ = " in path.read_text()
    }
    assert found - INSIDE == set(PAGES)
    pages = {p.stem for p in (root / "docs/reference").glob("*.md")}
    assert pages == {"README", *PAGES.values()}

"""The page on the house says what the code has."""

from __future__ import annotations

import ast
import re

import pytest

from tests.repository.test_imports import FLOORS

WAYS = ("weight", "decision", "tolerance", "range")


def section(root, heading):
    text = (root / "docs" / "architecture.md").read_text()
    (found,) = re.findall(
        rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.M | re.S
    )
    return found


@pytest.mark.parametrize("package", ["msq_tf", "tflite_export"])
def test_rooms_are_those_of_the_code_from_the_ground_up(root, package):
    rows = re.findall(
        r"^\| `(\w+)` \| (.+) \|$",
        section(root, f"Rooms of `{package}`"),
        re.MULTILINE,
    )
    assert tuple(name for name, _ in rows) == FLOORS[package]
    sentences = [sentence for _, sentence in rows]
    assert len(set(sentences)) == len(sentences)


def defined(tree, name):
    """Whether a module defines `function`, `Class` or `Class.method`."""
    body = tree.body
    for part in name.split("."):
        kinds = (ast.FunctionDef, ast.ClassDef)
        found = [n for n in body if isinstance(n, kinds) and n.name == part]
        if not found:
            return False
        body = found[0].body
    return True


@pytest.mark.parametrize("way", WAYS)
def test_each_step_names_functions_that_exist(root, way):
    text = section(root, f"The way of a {way}")
    steps = re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |\Z)", text, re.M | re.S)
    assert [int(number) for number, _ in steps] == [*range(1, len(steps) + 1)]
    assert len(steps) >= 10
    wrong = []
    for number, step in steps:
        named = re.findall(r"\[`([\w.]+)`\]\(\.\./([\w/]+\.py)\)", step)
        assert named, f"step {number} names no function"
        for name, path in named:
            file = root / path
            if not file.exists() or not defined(
                ast.parse(file.read_text()), name
            ):
                wrong.append(f"{number}: {path} has no {name}")
    assert not wrong


def test_a_name_that_is_gone_is_found():
    tree = ast.parse("class A:\n    def b(self): ...\ndef c(): ...\n")
    assert defined(tree, "A.b") and defined(tree, "c")
    assert not defined(tree, "A.c") and not defined(tree, "b")

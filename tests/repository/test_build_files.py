"""BUILD files state the real import graph."""

from __future__ import annotations

import ast
import pathlib

import pytest

from tools import build_files
from tools import imports


@pytest.fixture(scope="module")
def generated(root):
    return build_files.build_files(root)


@pytest.mark.slow
def test_build_files_are_those_of_the_imports(root, generated):
    stale = [
        str(path)
        for path, text in generated.items()
        if not (root / path).exists() or (root / path).read_text() != text
    ]
    assert not stale, "run `make build-files`"


def test_no_build_file_is_left_over(root, generated):
    found = {
        path.relative_to(root)
        for package in imports.PACKAGES
        for path in (root / package).rglob("BUILD")
    }
    assert found == set(generated)


def test_every_source_file_is_in_one_target(root, generated):
    listed = [
        path.parent / source
        for path, text in generated.items()
        for target in _targets(text)
        for source in target["srcs"]
    ]
    assert len(listed) == len(set(listed))
    runner = pathlib.Path(build_files.TEST_RUNNER)
    assert {*listed, runner} == set(imports.source_files(root))


def test_every_dependency_is_a_target(root, generated):
    targets = {
        f"//{path.parent}:{target['name']}"
        for path, text in generated.items()
        for target in _targets(text)
    }
    pinned = {
        line.partition("==")[0].replace("-", "_").replace(".", "_")
        for line in (root / "requirements.txt").read_text().splitlines()
        if "==" in line
    }
    for path, text in generated.items():
        for target in _targets(text):
            for dep in target.get("deps", []):
                if dep.startswith("@pip//"):
                    assert dep.removeprefix("@pip//") in pinned
                else:
                    assert _absolute(dep, path.parent) in targets


def _targets(text: str) -> list[dict]:
    """Reads the targets of a BUILD file, whose syntax is that of Python."""
    return [
        {
            keyword.arg: ast.literal_eval(keyword.value)
            for keyword in node.value.keywords
            if keyword.arg in ("name", "srcs", "deps")
        }
        for node in ast.parse(text).body
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and any(keyword.arg == "srcs" for keyword in node.value.keywords)
    ]


def _absolute(dep: str, folder: pathlib.Path) -> str:
    if dep.startswith(":"):
        return f"//{folder}{dep}"
    return dep if ":" in dep else f"{dep}:{dep.rpartition('/')[2]}"

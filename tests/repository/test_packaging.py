"""What is published: versions, dependencies, files of the wheel."""

from __future__ import annotations

import re
import tomllib

import pytest


@pytest.fixture(scope="module")
def project(root):
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


def names(requirements):
    return {
        re.split(r"[\[<>=!; ]", line)[0].lower().replace("_", "-")
        for line in requirements
    }


def test_every_dependency_is_pinned(root, project):
    lines = [
        line
        for line in (root / "requirements.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    extras = project["optional-dependencies"]
    optional = [extras[k] for k in ("dev", "ethos", "mcu", "train")]
    wanted = names(sum(optional, project["dependencies"])) - {"msq-tf"}
    assert wanted <= names(lines)


@pytest.mark.parametrize("peer", ["hgq2", "qkeras"])
def test_peers_are_pinned_to_the_same_tensorflow_and_keras(root, peer):
    lines = (root / "requirements.txt").read_text().splitlines()
    path = root / "benchmarks" / f"requirements-{peer}.txt"
    pins = [line for line in path.read_text().splitlines() if "==" in line]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pins)
    for package in ("tensorflow", "keras", "numpy"):
        (pin,) = (p for p in pins if p.startswith(f"{package}=="))
        assert pin in lines


def test_what_builds_the_site_is_pinned(root):
    lines = (root / "requirements.txt").read_text().splitlines()
    text = (root / "requirements-docs.txt").read_text()
    pins = [p for p in text.splitlines() if p and not p.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    # It lays out signatures as `make format` does the code.
    assert [p for p in pins if p.startswith("ruff==")] == [
        line for line in lines if line.startswith("ruff==")
    ]


def test_lower_bounds_are_what_is_tested(root, project):
    """By `make compatibility`, and the page says so."""
    pins = (root / "requirements-oldest.txt").read_text().splitlines()
    lines = [line for line in pins if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    page = (root / "docs" / "compatibility.md").read_text()
    newest = (root / "requirements.txt").read_text().splitlines()
    pairs = []
    for versions in (lines, newest):
        found = [
            line.partition("==")[2]
            for package in ("tensorflow", "keras")
            for line in versions
            if line.startswith(f"{package}==")
        ]
        pairs.append(found)
        assert f"| {found[0]} | {found[1]} |" in page
    bounds = project["dependencies"]
    for package, pinned in zip(("tensorflow", "keras"), pairs[0], strict=True):
        (bound,) = (b for b in bounds if b.startswith(f"{package}>="))
        low = bound.partition(">=")[2]
        assert pinned == low or pinned == f"{low}.0"


def test_the_version_is_one(root, project):
    version = project["version"]
    assert f'version = "{version}"' in (root / "MODULE.bazel").read_text()
    assert f"version: {version}\n" in (root / "CITATION.cff").read_text()


def test_the_licence_is_whole(root):
    text = (root / "LICENSE").read_text()
    assert "Apache License" in text
    assert text.rstrip().endswith("limitations under the License.")


@pytest.mark.parametrize("package", ["msq_tf", "tflite_export"])
def test_a_package_states_that_it_is_typed(root, package):
    assert (root / package / "py.typed").exists()

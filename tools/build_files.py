"""Writes the BUILD files from the imports of the source files.

    python -m tools.build_files          # write
    python -m tools.build_files --check  # exit 1 where a file would change

A room of a library is one target; of everything else one BUILD file stands at
the top and takes the folders below. `__main__.py` is the binary `main`. The
output has the form that buildifier gives it.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import re
import sys
from collections.abc import Mapping

from tools import imports

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Top-level modules whose distribution has another name.
DISTRIBUTIONS = {
    "absl": "absl_py",
    "vl_convert": "vl_convert_python",
    "yaml": "pyyaml",
}

# Modules in environments of their own: of peers, of the site and of devices.
ELSEWHERE = (
    *("griffe", "hgq", "markdown", "mkdocs", "qkeras"),
    *("onnx", "onnxruntime", "onnxruntime_qnn"),
)

# Packages of which each folder is a target, so that Bazel holds the order of
# their rooms.
LIBRARIES = ("msq_tf", "tflite_export")
# Targets that other repositories may use; they bring the rooms with them.
PUBLIC = ("msq_tf", "msq_tf/tfmot", "tflite_export")

# What a folder needs that no import shows.
EXTRA_DEPS = {
    # An undeclared dependency of tensorflow-datasets.
    "train": ["@pip//importlib_resources"],
    # The kernel that runs the notebook.
    "tests/examples": ["@pip//ipykernel"],
    # Started as a command.
    "tflite_export/devices": ["@pip//ethos_u_vela"],
}
DATA = {
    "msq_tf": '["py.typed"]',
    "msq_tf/rules": '["target_facts.json"]',
    "msq_tf/page": 'glob(["assets/*"])',
    "tests/saved": 'glob(["*.*"])',
    "tflite_export": '["py.typed"]',
    "tflite_export/devices": '["web_worker.mjs"]',
    "tflite_export/latency": '["x86_64.json"]',
    "tflite_export/targets": 'glob(["tables/*.json"])',
    "train": 'glob(["data/fashion_mnist_mini/**"])',
}
# Modules of a folder that its subfolders stand on are a target of this name.
GROUND = "ground"
# Tests that read the tree itself do not run in a sandbox that hides it.
LOCAL_TESTS = "tests/repository"
TEST_RUNNER = pathlib.Path("tests/run_pytest.py")

_Imports = Mapping[pathlib.Path, set[pathlib.Path]]


@dataclasses.dataclass(frozen=True)
class Target:
    """A target of a BUILD file, or all tests of one.

    Attributes:
        folder: The folder of the BUILD file, relative to the root.
        name: Name of the target.
        rule: Name of the rule.
        files: Source files, relative to the root.
        deps: Labels of what they import.
    """

    folder: pathlib.Path
    name: str
    rule: str
    files: tuple[pathlib.Path, ...]
    deps: frozenset[str] = frozenset()

    @property
    def label(self) -> str:
        """The absolute label."""
        short = self.name == self.folder.name
        return f"//{self.folder}" + ("" if short else f":{self.name}")


def home(path: pathlib.Path) -> pathlib.Path:
    """Returns the folder whose BUILD file has a source file.

    A BUILD file hides its folder from the patterns of those above it. Hence
    either all folders of a package have one, or only the one at the top.
    """
    if path.parts[0] in LIBRARIES:
        return path.parent
    depth = 2 if path.parts[0] == "tests" else 1
    return pathlib.Path(*path.parent.parts[:depth])


@functools.cache
def targets(root: pathlib.Path) -> tuple[Target, ...]:
    """Returns the targets of all source files.

    A test that others import is in the library of its folder, too. Importing
    `a.b` from outside `a` runs `a/__init__.py`, so that is a dependency.

    Raises:
        ValueError: If an imported module is of no distribution that
            requirements.txt has, or is one of the project and does not exist.
    """
    files = [p for p in imports.source_files(root) if p != TEST_RUNNER]
    project = {path: _project(root, path) for path in files}
    imported = {path for paths in project.values() for path in paths}
    found: list[Target] = []
    for folder in sorted(set(map(home, files))):
        own = [path for path in files if home(path) == folder]
        ground = _ground(folder, own, project)
        mains = {path for path in own if path.name == "__main__.py"}
        tests = {path for path in own if path.name.startswith("test_")}
        library = set(own) - mains - ground - (tests - imported)
        found += [
            Target(folder, name, rule, tuple(sorted(paths)))
            for name, rule, paths in (
                ("main", "py_binary", mains),
                (GROUND, "py_library", ground),
                (folder.name, "py_library", library),
                ("tests", "pytest_test", tests),
            )
            if paths
        ]
    labels = {
        path: t.label
        for t in found
        if t.rule != "pytest_test"
        for path in t.files
    }
    found = [
        dataclasses.replace(t, deps=_deps(root, t, project, labels))
        for t in found
    ]
    _check_pinned(root, found)
    return tuple(found)


def written_deps(target: Target, graph: Mapping[str, Target]) -> list[str]:
    """Returns the labels that a BUILD file names, as buildifier sorts them.

    Rooms of a library name all that they import. What stands on the libraries
    would name each of their rooms: it names its own folder's targets, and what
    no other of its dependencies brings.
    """
    own = f"//{target.folder}"
    deps = set(target.deps)
    if target.folder.parts[0] not in LIBRARIES:
        brought = {d for dep in deps for d in reached(dep, graph)}
        deps -= {d for d in brought if d.partition(":")[0] != own}
    short = {own: f":{target.folder.name}", f"{own}:{GROUND}": f":{GROUND}"}
    return sorted((short.get(d, d) for d in deps), key=_buildifier_order)


def reached(label: str, graph: Mapping[str, Target]) -> set[str]:
    """Returns all that a target depends on, itself left out."""
    found: set[str] = set()
    ahead = [label]
    while ahead:
        target = graph.get(ahead.pop())
        new = (target.deps if target else set()) - found
        found |= new
        ahead += new
    return found


def build_files(root: pathlib.Path = ROOT) -> dict[pathlib.Path, str]:
    """Returns the text of every generated BUILD file, by relative path."""
    by_folder: dict[pathlib.Path, list[Target]] = {}
    found = targets(root)
    for target in found:
        by_folder.setdefault(target.folder, []).append(target)
    graph = {target.label: target for target in found}
    return {
        folder / "BUILD": _build_file(folder, own, graph)
        for folder, own in by_folder.items()
    }


def main(argv: list[str]) -> int:
    """Writes the BUILD files, or with `--check` only compares them."""
    stale = []
    for path, text in build_files().items():
        file = ROOT / path
        if not file.exists() or file.read_text() != text:
            stale.append(path)
            if "--check" not in argv:
                file.write_text(text)
    if stale and "--check" in argv:
        print("BUILD files differ from the imports; run `make build-files`:")
        print("\n".join(f"  {path}" for path in stale))
        return 1
    return 0


def _project(root: pathlib.Path, path: pathlib.Path) -> set[pathlib.Path]:
    """Project files that a file imports."""
    found = set()
    for module in imports.imported_modules(root, path):
        top = module.partition(".")[0]
        if top not in imports.PACKAGES:
            continue
        own = imports.module_path(root, module)
        if own is None:
            raise ValueError(
                "A source file imports a project module that does not exist. "
                f"Received: {module} in {path}"
            )
        found.add(own)
        package = pathlib.Path(top, "__init__.py")
        if path.parts[0] != top and (root / package).exists():
            found.add(package)
    return found - {path}


def _ground(
    folder: pathlib.Path, own: list[pathlib.Path], project: _Imports
) -> set[pathlib.Path]:
    """Files of a library's folder that import nothing of its subfolders."""
    below = {p for p in project if folder in p.parent.parents}
    if folder.parts[0] not in LIBRARIES or not below:
        return set()
    above = {p for p in own if p.name == "__init__.py"} | below
    while more := {p for p in own if p not in above and above & project[p]}:
        above |= more
    return set(own) - above


def _deps(
    root: pathlib.Path,
    target: Target,
    project: _Imports,
    labels: Mapping[pathlib.Path, str],
) -> frozenset[str]:
    deps = {labels[found] for path in target.files for found in project[path]}
    if target.rule == "pytest_test":
        # `conftest.py` files, which pytest loads.
        deps |= {
            labels[path]
            for path in labels
            if path.name == "conftest.py"
            and home(path) in (target.folder, target.folder.parent)
        }
    if target.rule != "py_binary":
        deps.update(EXTRA_DEPS.get(target.folder.as_posix(), []))
    modules = {
        module.partition(".")[0]
        for path in target.files
        for module in imports.imported_modules(root, path)
    }
    for module in modules - {*imports.PACKAGES, *ELSEWHERE}:
        deps.add(f"@pip//{DISTRIBUTIONS.get(module, module)}")
    return frozenset(deps - {target.label})


def _check_pinned(root: pathlib.Path, found: list[Target]) -> None:
    lines = (root / "requirements.txt").read_text().splitlines()
    names = {line.partition("==")[0] for line in lines if "==" in line}
    pinned = {re.sub("[-.]", "_", f"@pip//{name}") for name in names}
    for target in found:
        unknown = {d for d in target.deps if d[0] == "@"} - pinned
        if unknown:
            raise ValueError(
                "A source file imports a module of no known distribution. "
                "Expected a line in requirements.txt and, where its name is "
                "another, an entry in `DISTRIBUTIONS`. Received: "
                f"{sorted(unknown)} in {target.label}"
            )


def _build_file(
    folder: pathlib.Path, own: list[Target], graph: Mapping[str, Target]
) -> str:
    """The text of the BUILD file of one folder."""
    loads = [
        f'load("@rules_python//python:{rule}.bzl", "{rule}")\n'
        for rule in sorted({t.rule for t in own} - {"pytest_test"})
    ]
    if any(t.rule == "pytest_test" for t in own):
        loads.append('load("//tools:pytest_test.bzl", "pytest_test")\n')
    parts = ["".join(loads)]
    everything = sorted(path for t in own for path in t.files)
    if folder == TEST_RUNNER.parent:
        parts.append(f'exports_files(["{TEST_RUNNER.name}"])\n')
        everything = [*everything, TEST_RUNNER]
    parts += [_rule(t, everything, written_deps(t, graph)) for t in own]
    return "\n".join(parts)


def _rule(
    target: Target, everything: list[pathlib.Path], deps: list[str]
) -> str:
    folder = target.folder.as_posix()
    tests = target.rule == "pytest_test"
    library = target.name == target.folder.name and not tests
    rows = {
        "name": 'file.removesuffix(".py")' if tests else f'"{target.name}"',
        "srcs": "[file]" if tests else _sources(target, everything),
    }
    if library and folder in DATA:
        rows["data"] = DATA[folder]
    if target.rule == "py_binary":
        rows["main"] = f'"{target.files[0].name}"'
    if folder == LOCAL_TESTS and tests:
        rows["tags"] = '["local"]'
    if library and folder in PUBLIC:
        rows["visibility"] = '["//visibility:public"]'
    if deps:
        rows["deps"] = _list(deps)
    body = "".join(f"    {key} = {value},\n" for key, value in rows.items())
    if not tests:
        return f"{target.rule}(\n{body})\n"
    pattern = _pattern(everything, "test_*.py")
    return f'[pytest_test(\n{body}) for file in glob(["{pattern}"])]\n'


def _sources(target: Target, everything: list[pathlib.Path]) -> str:
    """The source files of a target: a pattern, or a list where that is short.

    Tests that others import stand beside the pattern, which has no tests.
    """
    names = {path: str(path.relative_to(target.folder)) for path in everything}
    own = [names[path] for path in target.files]
    if len(own) <= 3 or target.name == GROUND:
        return _list(own)
    tests = {path for path in everything if path.name.startswith("test_")}
    exclude = {names[p] for p in {*names} - tests - {*target.files}}
    if tests:
        exclude.add(_pattern(everything, "test_*.py"))
    text = f'["{_pattern(everything, "*.py")}"]'
    if exclude:
        listed = _list(sorted(exclude)).replace("\n", "\n    ")
        text = f"\n        {text},\n        exclude = {listed},\n    "
    imported = [names[p] for p in target.files if p in tests]
    return f"glob({text})" + (f" + {_list(imported)}" if imported else "")


def _pattern(everything: list[pathlib.Path], name: str) -> str:
    """A pattern that reaches the folders below, where there are some."""
    deep = len({path.parent for path in everything}) > 1
    return f"**/{name}" if deep else name


def _buildifier_order(dep: str) -> tuple[int, list[str]]:
    phase = next(
        number
        for number, prefix in enumerate((":", "//", "@", ""))
        if dep.startswith(prefix)
    )
    return phase, dep.replace(":", ".").split(".")


def _list(values: list[str]) -> str:
    if len(values) == 1:
        return f'["{values[0]}"]'
    return "[\n" + "".join(f'        "{v}",\n' for v in values) + "    ]"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

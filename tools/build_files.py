"""Writes the BUILD files from the imports of the source files.

    python -m tools.build_files          # write
    python -m tools.build_files --check  # exit 1 where a file would change

A folder is one library, its tests one target a file, `__main__.py` the binary
`main`. The output has the form that buildifier gives it.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Mapping
from collections.abc import Sequence

from tools import imports

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Top-level module -> target in the hub of pip packages.
DISTRIBUTIONS = {
    "absl": "absl_py",
    "ai_edge_litert": "ai_edge_litert",
    "flatbuffers": "flatbuffers",
    "h5py": "h5py",
    "hypothesis": "hypothesis",
    "keras": "keras",
    "matplotlib": "matplotlib",
    "nbclient": "nbclient",
    "nbformat": "nbformat",
    "numpy": "numpy",
    "pytest": "pytest",
    "rich": "rich",
    "tensorflow": "tensorflow",
    "tensorflow_datasets": "tensorflow_datasets",
    "playwright": "playwright",
    "vl_convert": "vl_convert_python",
    "yaml": "pyyaml",
    "tensorflow_model_optimization": "tensorflow_model_optimization",
    "tf_keras": "tf_keras",
    "tflite_micro": "tflite_micro",
}

# Modules in environments of their own: of peers and of the site.
ELSEWHERE = ("griffe", "hgq", "markdown", "mkdocs", "qkeras")

# What a folder needs that no import shows.
EXTRA_DEPS = {
    # An undeclared dependency of tensorflow-datasets.
    "train/data": ["@pip//importlib_resources"],
    # The kernel that runs the notebook.
    "tests/examples": ["@pip//ipykernel"],
    # Started as a command.
    "tflite_export/devices": ["@pip//ethos_u_vela"],
}
DATA = {
    "msq_tf": '["py.typed"]',
    "msq_tf/rules": '["target_facts.json"]',
    "msq_tf/page": 'glob(["assets/*"])',
    "tests/saved": """glob(
        ["*"],
        exclude = [
            "*.py",
            "BUILD",
        ],
    )""",
    "tflite_export": '["py.typed"]',
    "tflite_export/targets": 'glob(["tables/*.json"])',
    "train/data": 'glob(["fashion_mnist_mini/**"])',
}
# Modules of a folder that its subfolders stand on are a target of this name.
GROUND = "ground"
# Tests that read the tree itself do not run in a sandbox that hides it.
LOCAL_TESTS = "tests/repository"
PUBLIC = ("msq_tf", "tflite_export")
TEST_RUNNER = "tests/run_pytest.py"


@dataclasses.dataclass(frozen=True)
class Target:
    """One target of a BUILD file.

    Attributes:
        folder: The folder, relative to the root.
        name: Name of the target.
        rule: Name of the rule.
        files: Source files, relative to the root.
        folder_files: All source files of the folder.
    """

    folder: pathlib.Path
    name: str
    rule: str
    files: tuple[pathlib.Path, ...]
    folder_files: tuple[pathlib.Path, ...]

    @property
    def label(self) -> str:
        """The absolute label."""
        short = self.name == self.folder.name
        return f"//{self.folder}" + ("" if short else f":{self.name}")


def targets(root: pathlib.Path) -> list[Target]:
    """Returns the targets of all source files.

    A folder is a library. Its tests are one target a file, `__main__.py` is
    the binary `main`, and modules that subfolders stand on are a library of
    their own: a package exports from above what stands on the ground below.
    """
    found = []
    files = imports.source_files(root)
    for folder in sorted({path.parent for path in files}):
        everything = [path for path in files if path.parent == folder]
        own = [path for path in everything if str(path) != TEST_RUNNER]
        ground = _ground(root, folder, own)
        named: dict[tuple[str, str], list[pathlib.Path]] = {}
        for path in own:
            if path.name == "__main__.py":
                key = ("main", "py_binary")
            elif path.name.startswith("test_"):
                key = (path.stem, "pytest_test")
            elif path in ground:
                key = (GROUND, "py_library")
            else:
                key = (folder.name, "py_library")
            named.setdefault(key, []).append(path)
        found += [
            Target(folder, name, rule, tuple(paths), tuple(everything))
            for (name, rule), paths in sorted(named.items())
        ]
    return found


def _ground(
    root: pathlib.Path, folder: pathlib.Path, own: list[pathlib.Path]
) -> set[pathlib.Path]:
    """Files of a folder that import nothing of its subfolders."""
    if folder.parts[0] == "tests" or not any((root / folder).glob("*/*.py")):
        return set()
    above = {
        path
        for path in own
        if path.name == "__init__.py"
        or any(folder in p.parent.parents for p in _project(root, path))
    }
    while more := {
        path
        for path in own
        if path not in above and above & _project(root, path)
    }:
        above |= more
    return set(own) - above


def _project(root: pathlib.Path, path: pathlib.Path) -> set[pathlib.Path]:
    """Project files that a file imports."""
    return {
        found
        for module in imports.imported_modules(root, path)
        if module.partition(".")[0] in imports.PACKAGES
        for found in _project_files(root, path, module)
        if found != path
    }


def dependencies(
    root: pathlib.Path,
    target: Target,
    labels: Mapping[pathlib.Path, str],
) -> list[str]:
    """Returns the labels that a target depends on, sorted.

    Importing `a.b` from outside `a` runs `a/__init__.py` too, so that is a
    dependency. Inside `a` it would be a cycle.

    Args:
        root: Root of the repository.
        target: The target.
        labels: The label of each source file's target.

    Returns:
        Labels, relative ones (`:name`) for the same folder, in the order
        that buildifier gives them.

    Raises:
        ValueError: If an imported module belongs to no known distribution.
    """
    deps = set(EXTRA_DEPS.get(target.folder.as_posix(), []))
    for path in target.files:
        deps.update(labels[found] for found in _project(root, path))
        if target.rule == "pytest_test":
            deps.update(_conftests(root, path, labels))
        for module in imports.imported_modules(root, path):
            top = module.partition(".")[0]
            if top in imports.PACKAGES or top in ELSEWHERE:
                continue
            if top not in DISTRIBUTIONS:
                raise ValueError(
                    "A source file imports a module of no known distribution. "
                    "Expected an entry in `DISTRIBUTIONS` and a line in "
                    f"requirements.txt. Received: {module} in {path}"
                )
            deps.add(f"@pip//{DISTRIBUTIONS[top]}")
    deps.discard(target.label)
    return sorted(
        (_relative(dep, target.folder) for dep in deps), key=_buildifier_order
    )


def build_file(
    root: pathlib.Path,
    folder: pathlib.Path,
    found: Sequence[Target],
    labels: Mapping[pathlib.Path, str],
) -> str:
    """Returns the text of the BUILD file of one folder."""
    tests = [t for t in found if t.rule == "pytest_test"]
    others = [t for t in found if t.rule != "pytest_test"]
    rules = {t.rule for t in others}
    loads = [
        f'load("@rules_python//python:{rule}.bzl", "{rule}")\n'
        for rule in sorted(rules)
    ]
    if tests:
        loads.append('load("//tools:pytest_test.bzl", "pytest_test")\n')
    visibility = (
        "//visibility:public"
        if folder.parts[0] in PUBLIC
        else "//:__subpackages__"
    )
    head = "".join(loads)
    head += f'\npackage(default_visibility = ["{visibility}"])\n'
    if folder / "run_pytest.py" == pathlib.Path(TEST_RUNNER):
        head += '\nexports_files(["run_pytest.py"])\n'
    bodies = [_rule(t, dependencies(root, t, labels)) for t in others]
    if tests:
        every = {d for t in tests for d in dependencies(root, t, labels)}
        bodies.append(_tests(folder, sorted(every, key=_buildifier_order)))
    return head + "".join("\n" + text for text in bodies)


def build_files(root: pathlib.Path = ROOT) -> dict[pathlib.Path, str]:
    """Returns the text of every generated BUILD file, by relative path."""
    found = targets(root)
    labels = {path: t.label for t in found for path in t.files}
    return {
        folder / "BUILD": build_file(
            root, folder, [t for t in found if t.folder == folder], labels
        )
        for folder in sorted({t.folder for t in found})
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


def _project_files(
    root: pathlib.Path, path: pathlib.Path, module: str
) -> list[pathlib.Path]:
    own = imports.module_path(root, module)
    if own is None:
        raise ValueError(
            "A source file imports a project module that does not exist. "
            f"Received: {module} in {path}"
        )
    found = [own]
    top = pathlib.Path(module.partition(".")[0])
    if path.parts[0] != top.name and (root / top / "__init__.py").exists():
        found.append(top / "__init__.py")
    return found


def _relative(absolute: str, folder: pathlib.Path) -> str:
    own = f"//{folder}"
    if absolute == own:
        return f":{folder.name}"
    if absolute.startswith(own + ":"):
        return absolute.removeprefix(own)
    return absolute


def _buildifier_order(dep: str) -> tuple[int, list[str]]:
    phase = next(
        number
        for number, prefix in enumerate((":", "//", "@", ""))
        if dep.startswith(prefix)
    )
    return phase, dep.replace(":", ".").split(".")


def _rule(target: Target, deps: list[str]) -> str:
    rows = [("name", f'"{target.name}"')]
    rows.append(("srcs", _sources(target)))
    if target.name == target.folder.name and str(target.folder) in DATA:
        rows.append(("data", DATA[str(target.folder)]))
    if target.rule == "py_binary":
        rows.append(("main", f'"{target.files[0].name}"'))
    if deps:
        rows.append(("deps", _list(deps)))
    body = "".join(f"    {key} = {value},\n" for key, value in rows)
    return f"{target.rule}(\n{body})\n"


def _sources(target: Target) -> str:
    names = [path.name for path in target.files]
    rest = {path.name for path in target.folder_files} - set(names)
    tests = {name for name in rest if name.startswith("test_")}
    others = sorted(rest - tests)
    if len(names) <= 3 or target.name == GROUND:
        return _list(names)
    exclude = [*others, *(["test_*.py"] if tests else [])]
    if not exclude:
        return 'glob(["*.py"])'
    listed = _list(exclude).replace("\n", "\n    ")
    return f'glob(\n        ["*.py"],\n        exclude = {listed},\n    )'


def _tests(folder: pathlib.Path, deps: list[str]) -> str:
    tags = '    tags = ["local"],\n' if str(folder) == LOCAL_TESTS else ""
    return (
        "[pytest_test(\n"
        '    name = file.removesuffix(".py"),\n'
        "    srcs = [file],\n"
        f"{tags}"
        f"    deps = {_list(deps)},\n"
        ') for file in glob(["test_*.py"])]\n'
    )


def _list(values: list[str]) -> str:
    if len(values) == 1:
        return f'["{values[0]}"]'
    return "[\n" + "".join(f'        "{v}",\n' for v in values) + "    ]"


def _conftests(
    root: pathlib.Path,
    path: pathlib.Path,
    labels: Mapping[pathlib.Path, str],
) -> list[str]:
    """Labels of the `conftest.py` files that pytest loads for a test."""
    files = [folder / "conftest.py" for folder in path.parents]
    return [labels[file] for file in files if (root / file).exists()]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

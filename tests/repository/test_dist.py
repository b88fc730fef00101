"""What `make dist` builds, installed alone and used."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile

import pytest

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
PROGRAM = """
import pathlib, sys, tempfile
import keras, numpy as np, msq_tf, tflite_export
for package in (msq_tf, tflite_export):
    assert package.__file__.startswith(sys.prefix), package.__file__
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
qmodel = msq_tf.quantize_model(model)
qmodel.set_bits(dict.fromkeys(qmodel.bits, 4))
path = pathlib.Path(tempfile.mkdtemp(), "m.tflite")
report = tflite_export.export(qmodel, path, target="min_size")
assert report.tensors[0].container == "INT4", report
x = np.ones((2, 8), np.float32)
np.testing.assert_allclose(
    tflite_export.run(path, x), qmodel.predict(x, verbose=0), atol=1e-5
)
print("exported")
"""
# What pip says where there is no network.
OFFLINE = ("NewConnectionError", "name resolution", "ConnectTimeout")


def ran(*command, **options):
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, **options
    )


@pytest.fixture(scope="module")
def dist(root, tmp_path_factory):
    """The folder of a wheel and an sdist, built from a copy of the tree."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("msq_tf", "tflite_export"):
        shutil.copytree(
            root / name,
            tree / name,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, tree)
    code = "from setuptools import build_meta as b; "
    code += "b.build_sdist('dist'); b.build_wheel('dist')"
    done = ran(sys.executable, "-c", code, cwd=tree)
    assert done.returncode == 0, done.stderr
    return tree / "dist"


@pytest.mark.slow
def test_a_wheel_holds_what_it_needs_and_no_more(dist):
    (wheel,) = dist.glob("*.whl")
    (_,) = dist.glob("*.tar.gz")
    names = zipfile.ZipFile(wheel).namelist()
    assert "tflite_export/targets/tables/min_size.json" in names
    assert {"msq_tf/py.typed", "tflite_export/py.typed"} <= set(names)
    tops = {name.split("/")[0] for name in names}
    assert tops == {"msq_tf", "tflite_export", "msq_tf-0.1.0.dist-info"}


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_a_wheel_works_alone(dist, version, tmp_path):
    python = sys.executable if version == HERE else f"python{version}"
    if ran("sh", "-c", f"{python} --version").returncode:
        pytest.skip(f"Python {version} is not installed")
    done = ran(python, "-m", "venv", tmp_path / "venv")
    assert done.returncode == 0, done.stderr
    inside = tmp_path / "venv" / "bin" / "python"
    (wheel,) = dist.glob("*.whl")
    install = [inside, "-m", "pip", "install", "--quiet", wheel]
    if version == HERE:
        # Its requirements are here: without a network.
        install += ["--no-deps", "--no-index"]
        packages = sysconfig.get_path("purelib", vars={"base": sys.prefix})
        found = ran(
            inside,
            "-c",
            "import sysconfig; print(sysconfig.get_path('purelib'))",
        ).stdout.strip()
        with open(f"{found}/requirements.pth", "w") as file:
            file.write(packages + "\n")
    done = ran(*install)
    if done.returncode and any(word in done.stderr for word in OFFLINE):
        pytest.skip(f"no network for what Python {version} needs")
    assert done.returncode == 0, done.stderr
    done = ran(
        inside,
        "-c",
        PROGRAM,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "KERAS_BACKEND": "tensorflow"},
    )
    assert done.stdout == "exported\n", done.stderr[-2000:]

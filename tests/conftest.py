"""What all tests share."""

from __future__ import annotations

import collections
import gc
import os
import pathlib
import zlib
from collections.abc import Iterator

# Before anything imports TensorFlow or matplotlib.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("MPLBACKEND", "agg")
# Tables follow the terminal, which processes of tests see or do not see.
os.environ["COLUMNS"] = "110"

import hypothesis
import keras
import pytest
import tensorflow as tf
from tensorflow.python.framework import config

# Seconds say nothing where other work takes the cores. And a run of CI judges
# the change, not the luck of its draw.
hypothesis.settings.register_profile(
    "msq_tf", deadline=None, derandomize=bool(os.environ.get("CI"))
)
hypothesis.settings.load_profile("msq_tf")

# For tf.distribute; has to come before TensorFlow starts its runtime.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)

ROOT = pathlib.Path(__file__).resolve().parent.parent


# TFMOT makes `tf.keras` the old Keras for its whole process, so its tests run
# in one of their own.
ALONE = ROOT / "tests" / "tfmot"


def pytest_ignore_collect(
    collection_path: pathlib.Path, config: pytest.Config
) -> bool | None:
    """Leaves out what has to be asked for by its path."""
    if collection_path != ALONE:
        return None
    asked = [
        (config.invocation_params.dir / arg.partition("::")[0]).resolve()
        for arg in config.args
    ]
    return None if any(path.is_relative_to(ALONE) for path in asked) else True


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--part`."""
    parser.addoption(
        "--part",
        default="1/1",
        help="of the slow tests, run one of several parts, as 2/4; a test is "
        "always in the same one",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Marks what `first` leaves to the slow tests, and takes a part of them."""
    seen: collections.Counter[str] = collections.Counter()
    for item in items:
        first = item.get_closest_marker("first")
        function = item.nodeid.partition("[")[0]
        if first is not None and seen[function] >= first.args[0]:
            item.add_marker(pytest.mark.slow)
        seen[function] += 1
    part, parts = map(int, config.getoption("--part").split("/"))

    def is_in(item: pytest.Item) -> bool:
        if item.get_closest_marker("slow") is None:
            return True
        return zlib.crc32(item.nodeid.encode()) % parts == part % parts

    config.hook.pytest_deselected(items=[i for i in items if not is_in(i)])
    items[:] = filter(is_in, items)


def pytest_collection_finish() -> None:
    """Spares what is imported by now, TensorFlow, from garbage collections.

    They go through millions of its objects otherwise, test after test.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Every test draws the same random numbers, alone or among others."""
    keras.utils.set_random_seed(0)
    yield
    # No public function ends it, and Keras compiles no XLA while it lasts.
    config.disable_op_determinism()


@pytest.fixture
def deterministic_sums() -> None:
    """Sums of several threads do not differ in the last bit."""
    tf.config.experimental.enable_op_determinism()


@pytest.fixture
def graphs_as_written(deterministic_sums: None) -> Iterator[None]:
    """The same operations give the same bits, in whichever graph they are.

    TensorFlow rewrites each graph in its own way, and a last bit that differs
    can move a weight over the edge of a code.
    """
    options = {"disable_meta_optimizer": True}
    tf.config.optimizer.set_experimental_options(options)
    yield
    options["disable_meta_optimizer"] = False
    tf.config.optimizer.set_experimental_options(options)


@pytest.fixture(scope="session")
def root() -> pathlib.Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def data_dir(root: pathlib.Path) -> pathlib.Path:
    """A folder of prepared TFDS data sets that are not embedded."""
    folder = pathlib.Path(
        os.environ.get("MSQ_TF_DATA_DIR", root.parent / "shared" / "tfds")
    )
    if not folder.is_dir():
        pytest.skip(
            "no prepared data sets; MSQ_TF_DATA_DIR names a folder of them"
        )
    return folder

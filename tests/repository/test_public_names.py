"""What completion in a notebook offers."""

import types

import pytest

import msq_tf
import tflite_export


def test_both_packages_say_their_version():
    assert tflite_export.__version__ == msq_tf.__version__


@pytest.mark.parametrize("package", [msq_tf, tflite_export])
def test_completion_shows_what_is_public(package):
    import msq_tf.keras3.planning  # noqa: F401  # a module inside, loaded
    import tflite_export.cli  # noqa: F401

    names = dir(package)
    assert set(package.__all__) < set(names)
    modules = {
        name
        for name in names
        if isinstance(getattr(package, name), types.ModuleType)
    }
    assert modules <= {
        *("quantizers", "rules", "sensitivity", "targets", "tfmot")
    }
    # All that the package gives a name of its own is public.
    own = {
        name
        for name, value in vars(package).items()
        if not name.startswith("_")
        and not isinstance(value, types.ModuleType)
        and getattr(value, "__module__", "").startswith(package.__name__)
    }
    assert own <= set(package.__all__)

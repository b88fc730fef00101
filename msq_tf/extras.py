"""Packages that are no requirement, and how to install them.

The only place that says so: the package is not published yet, and `.[mcu]`
works where it was cloned.
"""

from __future__ import annotations

import importlib.util

# Modules of the extras of pyproject.toml.
MODULES = {
    "ethos": ("ethosu",),
    "hub": ("keras_hub",),
    "mcu": ("tflite_micro",),
    "tensorboard": ("tensorboard",),
    "tfmot": ("tensorflow_model_optimization", "tf_keras"),
    "train": ("tensorflow_datasets",),
}


def install(extra: str) -> str:
    """The command that installs an extra, for messages."""
    return f"pip install '.[{extra}]' in a clone of the project"


def missing(extra: str) -> list[str]:
    """The modules of an extra that are not installed."""
    return [
        name
        for name in MODULES[extra]
        if importlib.util.find_spec(name) is None
    ]

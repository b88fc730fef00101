"""Optional packages, and how to install them.

Only this module builds such messages. This package is not published:
`msq-tf[mcu]` works nowhere and `.[mcu]` only in a clone. But the packages that
the metadata lists for an extra can be installed everywhere.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re

_PROJECT = "msq-tf"
# A requirement of an extra in the metadata of a package.
_OF_EXTRA = r"""([^;]+?)\s*;\s*extra\s*==\s*["'](\w+)["']"""
# Modules of the extras of pyproject.toml.
MODULES = {
    "ethos": ("ethosu",),
    "hub": ("keras_hub",),
    "look": ("vl_convert",),
    "mcu": ("tflite_micro",),
    "tensorboard": ("tensorboard",),
    "tfmot": ("tensorflow_model_optimization", "tf_keras"),
    "train": ("tensorflow_datasets",),
}


def install(extra: str) -> str:
    """The command that installs an extra, for messages."""
    wanted = [
        match[1]
        for line in _requirements()
        if (match := re.fullmatch(_OF_EXTRA, line)) and match[2] == extra
    ]
    if not wanted:
        return f"pip install '.[{extra}]' in a clone of the project"
    return " ".join(["pip install", *(f"'{name}'" for name in wanted)])


def _requirements() -> list[str]:
    """What the installed package requires; nothing where it only lies there."""
    try:
        return importlib.metadata.requires(_PROJECT) or []
    except importlib.metadata.PackageNotFoundError:
        return []


def missing(extra: str) -> list[str]:
    """The modules of an extra that are not installed."""
    return [
        name
        for name in MODULES[extra]
        if importlib.util.find_spec(name) is None
    ]

"""Names of tf_keras variables."""

from __future__ import annotations

from typing import Any


def weight_name(variable: Any) -> str:
    """The last part of a variable's name: `"kernel"` of `"conv/kernel:0"`."""
    return variable.name.split(":")[0].split("/")[-1]

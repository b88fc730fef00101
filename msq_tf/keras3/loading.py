"""Saved models from anyone, loaded without running code in them."""

from __future__ import annotations

import os
import re
import stat
from typing import Any

import keras

# What Keras says of all code in a file.
_UNSAFE = "safe_mode=False"
_LONGEST = 500


def load_model(path: str | os.PathLike[str]) -> Any:
    """Loads a Keras model from a file that someone else may have made.

    Code in the file, such as that of a `Lambda` layer, is refused, unless the
    process called `keras.config.enable_unsafe_deserialization`; nothing in this
    package calls it.

    Args:
        path: A `.keras` file, or a legacy `.h5` one.

    Returns:
        The model, not compiled.

    Raises:
        ValueError: If it can't be loaded, with the reason.
    """
    _check_file(path)
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    # A damaged archive raises errors of Keras, h5py, zipfile, json and of
    # whatever class its configuration names.
    except Exception as error:
        text = str(error)
        if _UNSAFE in text:
            raise ValueError(
                "The model cannot be loaded: it holds Python code, such as "
                "that of a `Lambda` layer, and code from a file is not run. "
                "Expected a model of registered layer classes. Received: "
                f"{path}"
            ) from error
        unknown = re.search(r"Could not locate class '(\w+)'", text)
        if unknown is not None:
            raise ValueError(
                "The model cannot be loaded: nothing registered its class "
                f"'{unknown[1]}'. Expected that the module with the class was "
                "imported before (`msq-export --modules=`). Received: "
                f"{path}"
            ) from error
        # Keras puts what its parts said behind line breaks.
        reason = " ".join(text.split())[:_LONGEST]
        raise ValueError(
            "The model cannot be loaded. Expected a whole Keras model in a "
            f".keras or .h5 file. Received: {path} "
            f"({type(error).__name__}: {reason})"
        ) from error


def _check_file(path: str | os.PathLike[str]) -> None:
    """Refuses what is there and is no file; opening a pipe would not end."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return  # Keras says it
    if not stat.S_ISREG(mode):
        raise ValueError(
            "The model cannot be loaded. Expected a .keras or .h5 file. "
            f"Received: a folder, pipe, socket or device, {path}"
        )

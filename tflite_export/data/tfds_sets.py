"""Data sets of TensorFlow Datasets: their names, and how to get one."""

from __future__ import annotations

from typing import Any

# With a configuration: never a path.
NAME = r"\w+(?:/[\w.+-]*\w[\w.+-]*)?"


def prepare(builder: Any, name: str, data_dir: str | None) -> None:
    """Downloads a data set that is not there yet, but to no folder of a user.

    Args:
        builder: The builder of TFDS.
        name: Its name, for messages.
        data_dir: The folder that a user gave; `None` for TFDS's own.

    Raises:
        ValueError: If it is not in that folder, or can't be downloaded.
    """
    if builder.is_prepared():
        return
    if data_dir is not None:
        raise ValueError(
            "The data set is not prepared in this folder. Expected "
            f"{builder.data_dir}; leave out --data_dir to download it. "
            f"Received: dataset={name}, data_dir={data_dir}"
        )
    try:
        builder.download_and_prepare()
    except Exception as error:  # noqa: B902 - whatever the network raises
        raise ValueError(
            "The data set could not be downloaded. Expected a connection, or "
            "--data_dir with the prepared data set. Received: "
            f"dataset={name} ({type(error).__name__}: {error})"
        ) from error

"""Seals of a run's files: whole, and of this run.

A seal is the end of a file: the run, and a digest of the run, the file's name
and all content before. HDF5 does not read bytes behind its data; in a `.keras`
file, a ZIP archive, the seal is the archive's comment. So programs that know no
seals read these files, too.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import zipfile
from typing import Any
from typing import BinaryIO

import h5py

_MARK = b"msq_tf seal "
_DIGITS = 64
_SIZE = len(_MARK) + 2 * _DIGITS + 2
# Of the record that ends a ZIP archive without a comment: its last two bytes
# are the comment's length.
_ZIP_END = b"PK\5\6"
_ZIP_END_SIZE = 22
_PIECE = 1 << 20


class DamagedError(ValueError):
    """A file of a run is not what was written."""


class ForeignError(ValueError):
    """A file in a run's folder is another run's."""


def reason(error: Exception) -> str:
    """The words of an error, in one line."""
    return " ".join(str(error).split())[:200]


def run_of(identity: dict[str, Any]) -> str:
    """The run with these settings, as a seal has it."""
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def seal(path: pathlib.Path, name: str, run: str) -> None:
    """Seals a file that was just written, under the name that it will have."""
    with path.open("r+b") as file:
        if path.suffix == ".keras":
            _announce_comment(file)
        file.seek(0)
        digest = _digest(file, os.fstat(file.fileno()).st_size, name, run)
        file.seek(0, os.SEEK_END)
        file.write(_MARK + f"{run} {digest}\n".encode())


def check(path: pathlib.Path, run: str, sealed: bool) -> None:
    """Checks that a file is whole and of a run.

    Runs of earlier versions do not seal their files: then only what the format
    itself tells is checked.

    Raises:
        DamagedError: If it is not what was written.
        ForeignError: If it is another run's, or no run's.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size - _SIZE
            file.seek(max(size, 0))
            found = file.read()
            file.seek(0)
            if found.startswith(_MARK):
                words = found[len(_MARK) :].decode("ascii", "replace").split()
                theirs = words[0] if words else ""
                held = _digest(file, size, path.name, theirs)
                if words != [theirs, held]:
                    raise DamagedError("its content is not what was written")
                if theirs != run:
                    raise ForeignError("it is another run's")
                return
        _read_whole(path)
    except (DamagedError, ForeignError):
        raise
    # A damaged file makes h5py and zipfile raise whatever comes.
    except Exception as error:
        said = f"{type(error).__name__}: {reason(error)}"
        raise DamagedError(said) from error
    if sealed:
        # HDF5 does not miss the end of a file, where the seal was.
        kind = ForeignError if path.suffix == ".keras" else DamagedError
        raise kind("it has no seal of this run")


def _announce_comment(file: BinaryIO) -> None:
    file.seek(-_ZIP_END_SIZE, os.SEEK_END)
    end = file.read()
    if end.startswith(_ZIP_END) and end.endswith(b"\0\0"):
        file.seek(-2, os.SEEK_END)
        file.write(_SIZE.to_bytes(2, "little"))


def _digest(file: BinaryIO, size: int, name: str, run: str) -> str:
    digest = hashlib.sha256(f"{run} {name}\n".encode())
    while size > 0 and (piece := file.read(min(size, _PIECE))):
        digest.update(piece)
        size -= len(piece)
    return digest.hexdigest()


def _read_whole(path: pathlib.Path) -> None:
    """Raises if the format itself tells that a file is damaged."""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
        if bad is not None:
            raise DamagedError(f"'{bad}' in it is damaged")
        return
    with h5py.File(path, "r") as file:

        def read(_: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                item[()]

        file.visititems(read)

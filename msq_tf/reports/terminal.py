"""Printing to consoles of any encoding.

Tables and lines have a few characters that are not ASCII. Characters that the
encoding of the output lacks, also in names, are replaced: printing never ends a
run.
"""

from __future__ import annotations

import codecs
from typing import IO
from typing import Any

import rich.console

_ERRORS = "msq_tf_ascii"
_ASCII = {"→": "->", "≠": "!=", "±": "+/-", "…": "..."}


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    return "".join(_ASCII.get(c, "?") for c in found), error.end


codecs.register_error(_ERRORS, _replaced)


def fitting(text: str, encoding: str | None) -> str:
    """A text with what an encoding does not have replaced."""
    encoding = encoding or "utf-8"
    return text.encode(encoding, _ERRORS).decode(encoding)


class _Fitting:
    """A file that replaces what its encoding does not have."""

    def __init__(self, file: IO[str]):
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, text: str) -> int:
        encoding = getattr(self._file, "encoding", None)
        return self._file.write(fitting(text, encoding))


class Console(rich.console.Console):
    """As `rich.console.Console`, on any encoding."""

    @property
    def file(self) -> IO[str]:
        """The stream that it prints to."""
        return _Fitting(super().file)  # type: ignore[return-value]

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        rich.console.Console.file.fset(self, new_file)  # type: ignore[attr-defined]

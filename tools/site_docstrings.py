"""Mends what the site would read wrongly in docstrings.

The pages are made from the text of the modules; nothing runs.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_ENDING = ".__doc__"
# A sentence with a colon, where the parser expects `type: text`.
_RETURNS = re.compile(r"^(Returns:\n +)(?=[^\n]*:)", re.MULTILINE)


class ReadDocstrings(griffe.Extension):
    """Works on each package once all its modules are read."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Gives classes and functions of a package the docstrings meant."""
        del kwargs
        todo: list[Any] = [pkg]
        while todo:
            found = todo.pop()
            if found.is_alias:
                continue
            todo += found.members.values()
            if found.is_class:
                _take_from_base(found)
            elif found.is_function and found.docstring:
                found.docstring.value = _RETURNS.sub(
                    rf"\g<1>{found.returns}: ", found.docstring.value
                )


def _take_from_base(found: griffe.Class) -> None:
    """Follows `__doc__ = Base.__doc__`."""
    given = str(getattr(found.members.get("__doc__"), "value", ""))
    if given.endswith(_ENDING):
        name = found.resolve(given.removesuffix(_ENDING))
        base = found.modules_collection[name]
        found.docstring = griffe.Docstring(base.docstring.value, parent=found)

"""A file as C++ source, for programs that are linked with their model."""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence

_PER_LINE = 12
_SOURCE = """\
#include "{name}.h"

alignas(16) const unsigned char g_{name}[] = {{
{rows}
}};
const std::size_t g_{name}_size = {size};
"""
_HEADER = """\
// {about}
#ifndef {guard}
#define {guard}

#include <cstddef>

// The flatbuffer, aligned to 16 bytes.
extern const unsigned char g_{name}[];
extern const std::size_t g_{name}_size;

{constants}#endif  // {guard}
"""
_OPERATORS = """\
// How many kinds of operators the model has, and what adds them:
//   tflite::MicroMutableOpResolver<g_{name}_operators> resolver;
//   if (!g_{name}_add_operators(resolver)) {{ ... }}
constexpr unsigned int g_{name}_operators = {count};
template <typename Resolver>
bool g_{name}_add_operators(Resolver& resolver) {{
  // kTfLiteOk is 0.
  return {calls};
}}

"""
_CONSTANT = """\
// {comment}
constexpr std::size_t g_{name}_{what} = {value};

"""


def check_name(name: str) -> None:
    """Raises a ValueError for what can't be a C++ identifier and file name."""
    if (
        not isinstance(name, str)
        or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name)
        or keyword.iskeyword(name)
    ):
        raise ValueError(
            "The C array can't have this name. Expected letters, digits and "
            "underscores, in a name that starts with a letter. Received: "
            f"name={name!r}"
        )


def sources(
    data: bytes,
    name: str,
    about: str,
    constants: dict[str, tuple[int, str]] | None = None,
    operators: Sequence[str] = (),
) -> dict[str, bytes]:
    """Makes `<name>.cc` and `<name>.h`; equal inputs give equal bytes.

    Args:
        data: The bytes of the file.
        name: Name of both files and, behind `g_`, of the array.
        about: One line for the header.
        constants: Value and comment of further constants by name.
        operators: Methods of `MicroMutableOpResolver` that the model needs.
    """
    check_name(name)
    rows = (
        ", ".join(f"0x{byte:02x}" for byte in data[start : start + _PER_LINE])
        for start in range(0, len(data), _PER_LINE)
    )
    source = _SOURCE.format(
        name=name,
        size=len(data),
        rows="\n".join(f"    {row}," for row in rows),
    )
    extra = "".join(
        _CONSTANT.format(name=name, what=what, value=value, comment=comment)
        for what, (value, comment) in (constants or {}).items()
    )
    if operators:
        extra += _OPERATORS.format(
            name=name,
            count=len(operators),
            calls=" &&\n         ".join(
                f"resolver.{method}() == 0" for method in operators
            ),
        )
    header = _HEADER.format(
        name=name,
        about=" ".join(about.split()),
        guard=f"{name.upper()}_H_",
        constants=extra,
    )
    return {f"{name}.cc": source.encode(), f"{name}.h": header.encode()}

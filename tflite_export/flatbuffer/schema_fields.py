"""Which fields the tables of TFLite's schema have, as data.

No package has the schema itself, but one has its generated accessors. This
module calls each accessor once on a stand-in that records how it reads. So the
fields are always those of the installed schema, and a release with new fields
needs no change here.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

from ai_edge_litert import schema_py_generated as schema

# Methods beside the accessor of a vector.
_BESIDE = ("AsNumpy", "IsNone", "Length")
# What kind of options, by the name of the field that holds them.
_UNIONS = {
    "ArrayIndices": "SparseIndexVector",
    "ArraySegments": "SparseIndexVector",
    "BuiltinOptions": "BuiltinOptions",
    "BuiltinOptions2": "BuiltinOptions2",
    "Details": "QuantizationDetails",
}


class Kind(enum.Enum):
    """How a field is stored."""

    SCALAR = "scalar"
    STRING = "string"
    TABLE = "table"
    UNION = "union"  # one of several tables; the slot before says which
    VECTOR = "vector"  # of scalars
    TABLES = "tables"  # vector of offsets of tables


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of a table.

    Attributes:
        name: Its name.
        slot: Its place in the table's vtable, in bytes.
        kind: How it is stored.
        size: Bytes of the scalar or of one element of the vector; 4, the size
            of an offset, for the others.
        tables: Names of the tables that it leads to: one, or for a union those
            by its type.
    """

    name: str
    slot: int
    kind: Kind
    size: int = 4
    tables: Mapping[int, str] = dataclasses.field(default_factory=dict)

    @property
    def stored(self) -> int:
        """Bytes that it takes in the table itself."""
        return self.size if self.kind is Kind.SCALAR else 4


@functools.cache
def fields(table: str) -> Mapping[int, Field]:
    """Fields by slot of a table of the schema, such as `"SubGraph"`.

    Raises:
        ValueError: If the installed schema stores a field in a way that is
            not known here.
    """
    accessors = getattr(schema, table)
    found = {}
    for name, method in vars(accessors).items():
        if _is_accessor(accessors, name, method):
            field = _field(table, name, method)
            found[field.slot] = field
    return found


def _is_accessor(accessors: type, name: str, method: Any) -> bool:
    if not inspect.isfunction(method) or name.startswith("_") or name == "Init":
        return False
    return not any(
        name.endswith(end) and name.removesuffix(end) in vars(accessors)
        for end in _BESIDE
    )


def _field(table: str, name: str, method: Callable[..., Any]) -> Field:
    accessors, probe = getattr(schema, table)(), _Probe()
    accessors._tab = probe
    # One argument more: the place in a vector.
    element = [0] * (method.__code__.co_argcount - 1)
    got = method(accessors, *element)
    reads = tuple(probe.reads)
    if reads in (("indirect",), ("vector", "indirect")):
        kind = Kind.TABLE if len(reads) == 1 else Kind.TABLES
        leads_to = {0: type(got).__name__}
        return Field(name, probe.slot, kind, tables=leads_to)
    if reads == ("union",) and name in _UNIONS:
        members = vars(getattr(schema, _UNIONS[name]))
        leads_to = {
            value: member
            for member, value in members.items()
            if not member.startswith("_") and value
        }
        return Field(name, probe.slot, Kind.UNION, tables=leads_to)
    if reads == ("string",):
        return Field(name, probe.slot, Kind.STRING)
    if reads in (("get",), ("vector", "get")):
        kind = Kind.SCALAR if len(reads) == 1 else Kind.VECTOR
        return Field(name, probe.slot, kind, probe.size)
    raise ValueError(
        "The installed schema of ai-edge-litert is not understood. Expected "
        "scalars, strings, tables, known unions, vectors of scalars and of "
        f"tables. Received: {table}.{name}, read by {' and '.join(reads)}"
    )


class _Probe:
    """Stands in for a table's bytes; every field is there, and zero."""

    Bytes = b""
    Pos = 0

    def __init__(self) -> None:
        self.slot = 0
        self.size = 0
        self.reads: list[str] = []

    def Offset(self, slot: int) -> int:  # noqa: N802 (names of flatbuffers)
        self.slot = slot
        return 1

    def Get(self, flags: Any, at: int) -> Any:  # noqa: N802
        self.reads.append("get")
        self.size = flags.bytewidth
        return flags.py_type(0)

    def Indirect(self, at: int) -> int:  # noqa: N802
        self.reads.append("indirect")
        return 0

    def String(self, at: int) -> bytes:  # noqa: N802
        self.reads.append("string")
        return b""

    def Union(self, table: Any, at: int) -> None:  # noqa: N802
        self.reads.append("union")

    def Vector(self, at: int) -> int:  # noqa: N802
        self.reads.append("vector")
        return 0

"""Checks the bytes of a TFLite file before anything follows its offsets.

A FlatBuffer consists of tables that point at tables. The format allows an
offset outside of the file, and neither FlatBuffers' Python package nor the
interpreter's Python front end checks it. `verify` walks from the root through
every table that the schema knows, once for each way to reach it, as a reader
does, and refuses a file in which it can't follow an offset.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from typing import Any
from typing import NoReturn

from tflite_export.flatbuffer import schema_fields
from tflite_export.flatbuffer.schema_fields import Field
from tflite_export.flatbuffer.schema_fields import Kind

FILE_IDENTIFIER = b"TFL3"
# A reader builds an object for each table that it reaches. A table takes four
# bytes and what points at it four more, so that a file whose tables are not
# shared never holds more than one for eight bytes; a million is what
# FlatBuffers' own verifier accepts.
_BYTES_A_TABLE = 8
_MOST_TABLES = 1_000_000
# Writers store equal vectors and strings once. That may save them a lot, but
# not so much that a small file stands for a large one.
_SHARING = 16
_SLACK = 1 << 16

_U8, _U16, _U32, _I32 = (struct.Struct(f"<{c}").unpack_from for c in "BHIi")


def verify(data: bytes | mmap.mmap) -> None:
    """Raises a ValueError unless every offset leads to what it should.

    Afterwards the generated accessors read within `data`, and build no more
    objects than in proportion to its size. What the numbers mean is the
    business of `check_model.check`. The message has the field and where it is.
    """
    _Walk(data).run()


class _Walk:
    def __init__(self, data: bytes | mmap.mmap) -> None:
        self._data = data
        self._size = len(data)
        self._tables = min(self._size // _BYTES_A_TABLE, _MOST_TABLES)
        self._bytes = _SHARING * self._size + _SLACK
        # (position, name) of tables that were reached and not yet looked at.
        # No recursion: how deep tables lie is the file's choice.
        self._found: list[tuple[int, str]] = []

    def run(self) -> None:
        self._table(self._follow(0, "Model"), "Model")
        while self._found:
            self._look_at(*self._found.pop())

    def _table(self, position: int, name: str) -> None:
        self._tables -= 1
        if self._tables < 0:
            raise ValueError(
                "more tables are reached than a file of its size holds"
            )
        self._found.append((position, name))

    def _look_at(self, position: int, name: str) -> None:
        vtable = position - self._read(_I32, 4, position, name)
        length = self._read(_U16, 2, vtable, name)
        room = self._read(_U16, 2, vtable + 2, name)
        if length < 4 or length % 2 or vtable + length > self._size:
            self._refuse(name, vtable, f"has a vtable of {length} bytes")
        if room < 4 or position + room > self._size:
            self._refuse(name, position, f"has {room} bytes")
        self._spend(room + length, name, position)
        known = schema_fields.fields(name)
        entries = struct.unpack_from(
            f"<{length // 2 - 2}H", self._data, vtable + 4
        )
        for slot, offset in enumerate(entries):
            if not offset:
                continue
            field = known.get(4 + 2 * slot)
            if field is None:
                self._refuse(
                    name,
                    position,
                    f"has a field number {slot}, which the installed "
                    "ai-edge-litert does not know",
                )
            if offset < 4 or offset + field.stored > room:
                self._refuse(
                    f"{name}.{field.name}", position, "lies outside of it"
                )
            self._field(name, field, position + offset, entries, position)

    def _field(
        self,
        table: str,
        field: Field,
        at: int,
        entries: tuple[int, ...],
        position: int,
    ) -> None:
        name = f"{table}.{field.name}"
        kind = field.kind
        if kind is Kind.SCALAR:
            if at % field.size:
                self._refuse(name, at, "is not aligned")
        elif kind is Kind.TABLE:
            self._table(self._follow(at, name), field.tables[0])
        elif kind is Kind.UNION:
            chosen = self._union_type(field, entries, position)
            if chosen:
                if chosen not in field.tables:
                    self._refuse(name, at, f"is of an unknown type, {chosen}")
                self._table(self._follow(at, name), field.tables[chosen])
        elif kind is Kind.STRING:
            start = self._follow(at, name)
            end = self._vector(start, 1, name)
            # Native readers take it for a C string.
            if end >= self._size or self._data[end]:
                self._refuse(name, start, "does not end with a zero byte")
        elif kind is Kind.VECTOR:
            self._vector(self._follow(at, name), field.size, name)
        else:
            start = self._follow(at, name)
            end = self._vector(start, 4, name)
            for place in range(start + 4, end, 4):
                self._table(self._follow(place, name), field.tables[0])

    def _union_type(
        self, field: Field, entries: tuple[int, ...], position: int
    ) -> int:
        # The schema's compiler puts the type into the slot before.
        offset = entries[(field.slot - 6) // 2]
        return _U8(self._data, position + offset)[0] if offset else 0

    def _follow(self, at: int, name: str) -> int:
        """Where an offset leads."""
        offset = self._read(_U32, 4, at, name)
        if not offset:
            self._refuse(name, at, "points at itself")
        if at + offset + 4 > self._size:
            self._refuse(name, at, f"points at byte {at + offset}")
        return at + offset

    def _vector(self, start: int, size: int, name: str) -> int:
        """Checks a vector or a string; returns where it ends."""
        count = self._read(_U32, 4, start, name)
        end = start + 4 + count * size
        if end > self._size:
            self._refuse(name, start, f"has {count} elements of {size} bytes")
        self._spend(4 + count * size, name, start)
        return end

    def _read(
        self, read: Callable[..., Any], size: int, at: int, name: str
    ) -> int:
        if not 0 <= at <= self._size - size:
            self._refuse(name, at, "lies outside")
        if at % size:
            self._refuse(name, at, "is not aligned")
        return read(self._data, at)[0]

    def _spend(self, count: int, name: str, at: int) -> None:
        self._bytes -= count
        if self._bytes < 0:
            self._refuse(
                name, at, "is one of too many that share the same bytes"
            )

    def _refuse(self, name: str, at: int, reason: str) -> NoReturn:
        raise ValueError(f"{name} at byte {at} of {self._size} {reason}")

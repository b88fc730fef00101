"""Hostile TFLite files: valid ones, damaged on purpose, and what reads them.

Every choice comes from a `random.Random`, so that a seed, or Hypothesis,
decides what a case is.
"""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export import targets
from tflite_export.conversion import fuse_dense
from tflite_export.devices import tosa_rewrites
from tflite_export.devices import widen
from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer import prune
from tflite_export.flatbuffer import prune_constants
from tflite_export.flatbuffer.schema_fields import Kind
from tflite_export.flatbuffer.schema_fields import fields
from tflite_export.inspect import inspect
from tflite_export.matching import file_constants
from tflite_export.runtime import ports
from tflite_export.targets import lint
from tflite_export.verification import readback

NUMBERS = (0, 1, -1, 2, 7, 127, 128, 255, 2**15, 2**31 - 1, -(2**31), 2**32 - 1)
FLOATS = (0.0, -1.0, 1e-45, 1e38, float("nan"), float("inf"), -float("inf"))
NAMES = (
    b"",
    b"[/]",
    b"[bold red]x",
    b"\x1b]0;title\x07\x1b[2J",
    b"../../x",
    b"\xff\xfe",
    b"\xe2\x80\xae" + b"a" * 9,
    b"%s" * 99,
)
_MOST_BYTES = 1 << 12


def arbitrary(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Bytes that no writer wrote, often behind the right identifier."""
    del data, other
    body = rng.randbytes(rng.randrange(256))
    if rng.random() < 0.5:
        return body
    root = struct.pack("<I", rng.choice((0, 8, 12, 28, 2**32 - 4)))
    return root + fb.FILE_IDENTIFIER + body


def flipped(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A few bits the other way round."""
    del other
    result = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        result[rng.randrange(8, len(data))] ^= 1 << rng.randrange(8)
    return bytes(result)


def cut(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Without its end, or with bytes left out or put in."""
    del other
    start = rng.randrange(8, len(data))
    end = min(len(data), start + rng.randint(1, 64))
    return rng.choice(
        (
            data[:start],
            data[:start] + data[end:],
            data[:start] + bytes(end - start) + data[start:],
            data[:end] + data[start:],
        )
    )


def spliced(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A piece of another file in the place of its own."""
    start = rng.randrange(8, min(len(data), len(other)))
    length = rng.randint(4, 256)
    piece = other[start : start + length]
    place = rng.choice((start, rng.randrange(8, len(data))))
    return data[:place] + piece + data[place + len(piece) :]


def numbered(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Offsets, lengths and scalars replaced where they really are."""
    del other
    result, known = bytearray(data), places(data)
    for _ in range(rng.randint(1, 4)):
        at, size = rng.choice(known)
        value = rng.choice((*NUMBERS, rng.randrange(len(data))))
        value = rng.choice((value, _number(data, at, size) + value))
        result[at : at + size] = (value % (1 << (8 * size))).to_bytes(
            size, "little"
        )
    return bytes(result)


def rebuilt(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Written anew with values that nobody means: sound bytes, odd content."""
    del other
    for _ in range(9):
        model = fb.load(data)
        try:
            for _ in range(rng.randint(1, 4)):
                _change(rng, rng.choice(_objects(model)))
            written = fb.dump(model)
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            TypeError,
            ValueError,
            struct.error,
        ):
            continue  # the writer takes no such value
        if len(written) < 64 * _MOST_BYTES:
            return written
    return data


ENGINES: tuple[Callable[[random.Random, bytes, bytes], bytes], ...] = (
    arbitrary,
    flipped,
    cut,
    spliced,
    numbered,
    rebuilt,
)


def case(
    rng: random.Random, files: Mapping[str, bytes]
) -> tuple[str, str, bytes]:
    """Makes one case.

    Args:
        rng: What decides.
        files: Valid files by name.

    Returns:
        The engine's name, the file's name, and the hostile bytes.
    """
    engine = rng.choice(ENGINES)
    name, other = rng.choice(list(files)), rng.choice(list(files))
    data = engine(rng, files[name], files[other])
    if rng.random() < 0.1:
        data = flipped(rng, data.ljust(16, b"\0"), b"")
    return engine.__name__, name, data


def read(data: bytes, shown: bool = True) -> None:
    """Puts a file through everything that reads one from outside.

    Args:
        data: Bytes of any kind.
        shown: Whether to print it, too, which takes longer than all else.

    Raises:
        ValueError: If the file is refused.
        AssertionError: If something was accepted that does not hold together.
    """
    info = inspect.describe(data)
    info.to_json()
    model = fb.load(data)
    findings = {
        finding: None
        for target in targets.names()
        for finding in lint.check_model(model, target)
    }
    if shown:
        printed = str(info) + lint.summary("any", list(findings)[:8])
        if not printed.replace("\n", "").isprintable():
            raise AssertionError("what is printed holds control characters")
    file_constants.find_constants(model)
    if inspect.describe(fb.dump(model)).tensors != info.tensors:
        raise AssertionError("a file written anew holds something else")
    fuse_dense.join(model)
    prune.compact(model)
    prune_constants.slim(model, {(0, 0)}, "slim")
    fb.load(fb.dump(model))
    # These may say of a sound file that it is none of theirs.
    for step in (
        readback.check_versions,
        widen.widened,
        tosa_rewrites.saturated,
        ports.inputs,
        ports.outputs,
    ):
        with contextlib.suppress(ValueError):
            step(data)


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def places(data: bytes) -> list[tuple[int, int]]:
    """(position, size) of every number in a valid file's tables."""
    found: set[tuple[int, int]] = {(0, 4)}
    tables = [(_number(data, 0, 4), "Model")]
    while tables:
        position, name = tables.pop()
        vtable = position - struct.unpack_from("<i", data, position)[0]
        found |= {(position, 4), (vtable, 2), (vtable + 2, 2)}
        for slot, field in fields(name).items():
            inside = slot < _number(data, vtable, 2)
            offset = _number(data, vtable + slot, 2) if inside else 0
            if not offset:
                continue
            at = position + offset
            found |= {(at, field.stored), (vtable + slot, 2)}
            if field.kind is Kind.SCALAR:
                continue
            start = at + _number(data, at, 4)
            if field.kind is Kind.TABLE:
                tables.append((start, field.tables[0]))
            elif field.kind is Kind.UNION:
                kind = data[position + _number(data, vtable + slot - 2, 2)]
                tables.append((start, field.tables[kind]))
            else:
                found.add((start, 4))
                count, size = _number(data, start, 4), field.size
                for place in range(start + 4, start + 4 + count * size, size):
                    if field.kind is Kind.TABLES:
                        tables.append(
                            (place + _number(data, place, 4), field.tables[0])
                        )
                    if count < 64:
                        found.add((place, size))
    return sorted(found)


def _objects(model: schema.ModelT) -> list[Any]:
    """All tables of a model, as objects."""
    found, todo = [], [model]
    while todo:
        value = todo.pop()
        if isinstance(value, list):
            todo.extend(value)
        elif type(value).__module__ == schema.__name__:
            found.append(value)
            todo.extend(vars(value).values())
    return found


def _change(rng: random.Random, table: Any) -> None:
    names = list(vars(table))
    if not names:
        return
    name = rng.choice(names)
    setattr(table, name, _odd(rng, getattr(table, name)))


def _odd(rng: random.Random, value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice((*NUMBERS, value + 1, value - 1))
    if isinstance(value, float):
        return rng.choice(FLOATS)
    if isinstance(value, bytes):
        return rng.choice(NAMES)
    if isinstance(value, np.ndarray):
        return _odd_array(rng, value)
    if isinstance(value, list) and value:
        items = [rng.choice(value) for _ in range(rng.randint(0, 4))]
        return rng.choice((items, value[::-1], value[1:], value * 2))
    # An options' table of another operator, or none.
    name = rng.choice(sorted(n for n in vars(schema) if n.endswith("OptionsT")))
    return rng.choice((None, getattr(schema, name)()))


def _odd_array(rng: random.Random, value: np.ndarray) -> Any:
    if not value.size or rng.random() < 0.3:
        changed = np.concatenate([value, value])[: rng.randrange(9)]
        return rng.choice((None, changed, value[:0]))
    result = value.copy()
    place = rng.randrange(value.size)
    if value.dtype.kind == "f":
        result[place] = rng.choice(FLOATS)
    else:
        number = rng.choice(NUMBERS)
        result[place] = np.array(number).astype(value.dtype)
    return result

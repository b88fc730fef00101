"""Facts of the files of one model for one device, found by making some."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from msq_tf.bit_widths import MAX_BITS


@dataclasses.dataclass(frozen=True)
class FileFacts:
    """Facts that files of a model tell a search.

    A search that was interrupted goes on with the same, so they are saved with
    the model.

    Attributes:
        device: Name of the device; empty before there is one.
        containers: For each weight the stored bits that the device has for it,
            see `LayerStats`; empty where they are those of its kind.
        counts: Whether `overhead` was to be counted.
        overhead: Bytes besides codes, see `SearchStats.file_overhead`; `None`
            where they were not counted.
    """

    device: str = ""
    containers: tuple[tuple[int, ...], ...] = ()
    counts: bool = False
    overhead: float | None = None

    def to_json(self) -> str:
        """Returns what `from_json` reads."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str, weights: int) -> FileFacts:
        """Reads what `to_json` wrote of a model with so many weights.

        Raises:
            ValueError: If it is something else.
        """
        try:
            found = json.loads(text)
            facts = cls(
                device=found["device"],
                containers=tuple(map(tuple, found["containers"])),
                counts=found["counts"],
                overhead=found["overhead"],
            )
            right = _is_right(facts, weights)
        except (KeyError, TypeError, ValueError):
            right = False
        if not right:
            raise ValueError(
                "The file holds facts of a device's files that can't be read. "
                f"Expected those of a model with {weights} weights, as JSON. "
                f"Received: {text[:200]!r}"
            )
        return facts


def _is_right(facts: FileFacts, weights: int) -> bool:
    return (
        isinstance(facts.device, str)
        and isinstance(facts.counts, bool)
        and (facts.overhead is None or _is_number(facts.overhead))
        and len(facts.containers) in (0, weights)
        and all(bits and all(map(_is_width, bits)) for bits in facts.containers)
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_width(value: Any) -> bool:
    return type(value) is int and 1 <= value <= MAX_BITS

"""Limits on what a look found, for an exit code."""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Mapping

# What a limit can name, and what it takes to know it.
FIGURES = {
    "accuracy": "labels",
    "accuracy_drop": "labels",
    "average_bits": "weights",
    "bytes": "",
    "compression": "a search",
    "dead_channels": "",
    "disagreement": "representative_data and a file that decides",
    "latency_ms": "a file that runs here",
    "max_units": "representative_data and an output of integers",
    "min_snr": "representative_data",
}
_OPERATORS = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_LIMIT = re.compile(r"\s*(\w+)\s*(>=|<=|>|<)\s*([-+.\deE]+)\s*")


@dataclasses.dataclass(frozen=True)
class Limit:
    """One condition that is a failure.

    Attributes:
        name: A key of `FIGURES`.
        relation: `">"`, `">="`, `"<"` or `"<="`.
        number: What the figure is compared with.
    """

    name: str
    relation: str
    number: float

    def broken(self, figures: Mapping[str, float]) -> str | None:
        """The mistake in figures; `None` for none.

        Raises:
            ValueError: If the figure is not known.
        """
        if self.name not in figures:
            raise ValueError(
                f"`{self.name}` is not known here. Expected what it takes: "
                f"{FIGURES[self.name]}. Received: fail_if={self.name}"
                f"{self.relation}{self.number:g}"
            )
        found = figures[self.name]
        if not _OPERATORS[self.relation](found, self.number):
            return None
        return f"{self.name} is {found:.6g}, {self.relation} {self.number:g}"


def parse(text: str) -> list[Limit]:
    """Limits from text such as `"accuracy_drop>1, max_units>4"`.

    Raises:
        ValueError: If it is none.
    """
    found = []
    for part in text.split(","):
        match = _LIMIT.fullmatch(part)
        number = None
        if match is not None:
            try:
                number = float(match[3])
            except ValueError:
                number = None
        if match is None or number is None or match[1] not in FIGURES:
            raise ValueError(
                "No such limit. Expected name>number, or with <, >= or <=, "
                "several behind commas, of the names "
                f"{', '.join(FIGURES)}. Received: fail_if={text!r}"
            )
        found.append(Limit(match[1], match[2], number))
    return found

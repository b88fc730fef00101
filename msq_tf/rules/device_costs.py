"""DeviceCosts: milliseconds and RAM of a model, by widths of its weights."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from typing import Any

from msq_tf.arguments import check_number
from msq_tf.arguments import check_path
from msq_tf.atomic_files import replacing
from msq_tf.bit_widths import MAX_BITS
from msq_tf.bit_widths import MIN_BITS
from msq_tf.rules.records import LayerStats
from msq_tf.rules.records import SearchStats

_Table = Mapping[str, Mapping[int, float]]


@dataclasses.dataclass(frozen=True)
class DeviceCosts:
    """Milliseconds and RAM of a model on a device, by the widths of weights.

    The latency of a model is `rest_latency` plus that of each weight at its
    width. Its RAM is the most that is in use at any time: the largest of
    `rest_ram` and the entries of all weights. `tflite_export.device_costs`
    makes it, for a model that may be untrained; or you make it from
    measurements of your own.

    Attributes:
        device: Name of the device, such as `"ethos_u:ethos-u55-128"`.
        source: Where the figures come from, for a person.
        latency: Milliseconds by path of a weight and width, from 2 to 8 bits:
            of the operators that read the weight.
        rest_latency: Milliseconds of all other operators.
        ram: Bytes in use while these operators run, in the same way; empty if
            it is not known.
        rest_ram: Bytes in use while the others run.

    Raises:
        ValueError: If a figure is negative or no number, or a width is not from
            2 to 8.

    Example:
    ```python
    costs = tflite_export.device_costs(qmodel, "ethos_u:ethos-u55-128")
    print(costs.latency_at(qmodel.bits), "ms")
    rule = msq_tf.BudgetRule(target_latency=0.3, costs=costs)
    ```
    """

    device: str
    source: str
    latency: _Table
    rest_latency: float = 0.0
    ram: _Table = dataclasses.field(default_factory=dict)
    rest_ram: float = 0.0

    def __post_init__(self) -> None:
        for name in ("device", "source"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(
                    f"`{name}` must be text. Received: "
                    f"{name}={getattr(self, name)!r}"
                )
        for name in ("rest_latency", "rest_ram"):
            check_number(name, getattr(self, name), 0)
        for name in ("latency", "ram"):
            _check_table(name, getattr(self, name))

    @property
    def knows_ram(self) -> bool:
        """Whether there are figures of RAM."""
        return bool(self.ram) or self.rest_ram > 0

    @property
    def knows_latency(self) -> bool:
        """Whether there are figures of milliseconds."""
        rows = [*self.latency.values(), {0: self.rest_latency}]
        return any(value > 0 for row in rows for value in row.values())

    def of(self, stats: SearchStats) -> SearchStats:
        """Statistics with these figures in them.

        Raises:
            ValueError: If a weight of the model has no figures here.
        """
        lacking = [s.path for s in stats.layers if s.path not in self.latency]
        if lacking:
            raise ValueError(
                "The costs are of another model. Expected figures for each "
                f"quantized weight: {lacking[0]!r} has none. Received: those "
                f"of {list(self.latency)[:8]}"
            )
        return dataclasses.replace(
            stats,
            layers=tuple(self._of_layer(layer) for layer in stats.layers),
            rest_latency=self.rest_latency,
            rest_ram=self.rest_ram,
        )

    def _of_layer(self, layer: LayerStats) -> LayerStats:
        latency = self.latency[layer.path]
        needed = range(max(layer.min_bits, MIN_BITS), layer.start_bits + 1)
        lacking = [width for width in needed if width not in latency]
        if lacking:
            raise ValueError(
                "The costs do not cover all widths that a weight may have. "
                f"Expected {lacking[0]} bits of '{layer.path}' among them. "
                f"Received: {sorted(latency)}"
            )
        ram = self.ram.get(layer.path, {})
        return dataclasses.replace(layer, latency=latency, ram=ram)

    def latency_at(self, bits: Mapping[str, int]) -> float:
        """Predicts milliseconds.

        Args:
            bits: Widths by path, as in `MSQModel.bits`.

        Raises:
            ValueError: If a path or width is not known.
        """
        try:
            rows = [self.latency[path][bits[path]] for path in bits]
        except KeyError as error:
            raise ValueError(
                "The costs are of another model, or have no such width. "
                f"Expected those of {list(self.latency)[:8]}. Received: "
                f"bits={dict(bits)}, of which {error} is not known"
            ) from None
        return self.rest_latency + sum(rows)

    def ram_at(self, bits: Mapping[str, int]) -> int:
        """Predicts bytes of RAM; 0 where nothing is known of it.

        Args:
            bits: Widths by path, as in `MSQModel.bits`.
        """
        taken = [
            self.ram.get(path, {}).get(width, 0.0)
            for path, width in bits.items()
        ]
        return math.ceil(max([self.rest_ram, *taken]))

    def to_json(self) -> str:
        """All figures as JSON, which `from_json` takes."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> DeviceCosts:
        """Makes costs of what `to_json` gave.

        Raises:
            ValueError: If it is something else.
        """
        try:
            fields = _parsed(text)
            for name in ("latency", "ram"):
                fields[name] = {
                    path: {int(width): value for width, value in row.items()}
                    for path, row in fields[name].items()
                }
            return cls(**fields)
        except (TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(
                "These are no saved costs of a device. Expected what "
                f"`DeviceCosts.to_json` gives. Received: {text[:80]!r} "
                f"({error})"
            ) from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a JSON file, which appears whole or not at all."""
        check_path("path", path)
        with replacing(path) as partial:
            partial.write_text(self.to_json() + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DeviceCosts:
        """Reads what `save` wrote.

        Raises:
            ValueError: If it is something else.
        """
        check_path("path", path)
        with open(path, encoding="utf-8") as file:
            return cls.from_json(file.read())


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise TypeError(str(error)) from None


def _check_table(name: str, table: Any) -> None:
    rows = table.items() if isinstance(table, Mapping) else [(None, None)]
    for path, row in rows:
        given = row.items() if isinstance(row, Mapping) else [(None, None)]
        if not isinstance(path, str) or not all(
            isinstance(width, int)
            and MIN_BITS <= width <= MAX_BITS
            and isinstance(value, int | float)
            and 0 <= value < math.inf
            for width, value in given
        ):
            raise ValueError(
                f"`{name}` maps paths of weights to figures by width. Expected "
                f"such as {{'dense': {{8: 0.25, 4: 0.2}}}}, widths from "
                f"{MIN_BITS} to {MAX_BITS}. Received: {path!r}: {row!r}"
            )

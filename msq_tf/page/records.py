"""Contents of a page as data: records that JSON can hold.

These records know no file and no model. The code that collects figures fills
them in, with `None` or an empty tuple for unknown ones, and `document` draws
them.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

# Sections of a page in their order, see `assets/sections.js`.
SECTIONS = ("layers", "search", "tensors", "samples", "targets")


@dataclasses.dataclass(frozen=True)
class Layer:
    """One weight.

    Attributes:
        key: What it is matched by between two sides.
        name: Its name, for a person.
        kind: The operator that reads it, or the class of its layer.
        shape: Its shape, empty where only the size is known.
        size: Number of elements.
        type: How it is stored, such as `"INT4"`.
        bits: The width that was decided or that its codes use; 32 for floats.
        stored_bytes: Bytes that it takes.
        ideal_bytes: Bytes of its codes at `bits` each.
        share: Share of the whole, 0 to 1.
        operator: Place of the operator in the main graph.
        codes: `(code, count)` of every code that occurs.
        entropy: Shannon entropy of a code, in bits.
        dead: Output channels whose codes are all zero.
        channels: Output channels.
        rim: Share of the codes at the two ends of the grid.
        scales: Some of the scales, all where they are few.
        scale_count: Number of scales.
        next_bits: The width below.
        next_saves: Bytes that its codes would need less, where they are packed.
        next_cost: Predicted increase of the loss at that width.
        sensitivity: `Omega` at the last decision, see `rules.LayerStats`.
        next_noise: Error of the weight at that width, relative to itself.
        predicted: Predicted increase of the loss at the present width.
        measured: What only this weight's quantization does to the outputs, as
            a divergence.
        why: Sentences: each decision, its reason, what was next in line.
        remarks: Sentences on what stands out.
    """

    key: str
    name: str
    kind: str
    size: int
    type: str
    bits: int
    stored_bytes: int
    ideal_bytes: int
    shape: tuple[int, ...] = ()
    share: float | None = None
    operator: int | None = None
    codes: tuple[tuple[int, int], ...] = ()
    entropy: float | None = None
    dead: int | None = None
    channels: int | None = None
    rim: float | None = None
    scales: tuple[float, ...] = ()
    scale_count: int = 0
    next_bits: int | None = None
    next_saves: int | None = None
    next_cost: float | None = None
    sensitivity: float | None = None
    next_noise: float | None = None
    predicted: float | None = None
    measured: float | None = None
    why: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Move:
    """One change of a width.

    Attributes:
        step: Training steps taken.
        epoch: Epochs trained, with their fraction.
        key: Key of the layer.
        old: Bits before.
        new: Bits after.
        cost: Predicted increase of the loss.
        text: All that was known, in words.
    """

    step: int
    epoch: float
    key: str
    old: int
    new: int
    cost: float | None
    text: str


@dataclasses.dataclass(frozen=True)
class Point:
    """The end of an epoch: bytes of the codes, and the metric."""

    epoch: float
    bytes: int
    value: float | None


@dataclasses.dataclass(frozen=True)
class Damage:
    """Predicted against measured damage of one layer or one epoch."""

    name: str
    predicted: float
    measured: float


@dataclasses.dataclass(frozen=True)
class Search:
    """A search, to be replayed.

    Attributes:
        start: Bits of each layer before the first change, by key.
        moves: The changes, in order.
        metric: Name of the metric, in words.
        points: The ends of the epochs.
        damage: Predicted against measured damage.
        damage_of: What was measured, in words.
    """

    start: dict[str, int]
    moves: tuple[Move, ...] = ()
    metric: str | None = None
    points: tuple[Point, ...] = ()
    damage: tuple[Damage, ...] = ()
    damage_of: str = ""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """How far one activation of a file is from the float model's.

    Attributes:
        key: What it is matched by between two sides.
        name: Its name.
        operator: Name of the operator that writes it, `"INPUT"` where none
            does.
        position: Place of that operator in the main graph.
        layer: Key of the layer whose weight the operator reads.
        isolated: SNR in decibels where only this operator is quantized.
        accumulated: SNR in decibels where all before it are, too.
        units: Largest difference in units of its grid.
        rim: Share of its values at the ends of its range.
        clipped: Share of the values that lie beyond its range, where only the
            weights are quantized.
        wrong: Whether it is the first that goes wrong.
    """

    key: str
    name: str
    operator: str
    position: int | None
    layer: str | None = None
    isolated: float | None = None
    accumulated: float | None = None
    units: float | None = None
    rim: float | None = None
    clipped: float | None = None
    wrong: bool = False


@dataclasses.dataclass(frozen=True)
class Shown:
    """One input of a sample as it is shown.

    Attributes:
        name: Name of the input.
        form: `"picture"`, `"curves"`, `"tokens"` or `"numbers"`.
        shape: Shape of the sample.
        data: Base64 of the bytes of RGBA pixels, row by row; a list of curves;
            a list of words or numbers.
        width: Width of a picture.
        height: Height of a picture.
        note: What was left out.
    """

    name: str
    form: str
    shape: tuple[int, ...]
    data: Any
    width: int = 0
    height: int = 0
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Answer:
    """One output of the float model and of the file on a sample.

    Attributes:
        name: Name of the output.
        places: Which entries are shown.
        float_model: What the float model gives there.
        file: What the file gives there.
        changed: Whether they decide differently; `None` where the output does
            not look like classes.
    """

    name: str
    places: tuple[int, ...]
    float_model: tuple[float | None, ...]
    file: tuple[float | None, ...]
    changed: bool | None


@dataclasses.dataclass(frozen=True)
class Sample:
    """One input on which the two disagree.

    Attributes:
        number: Its place in the data.
        distance: Difference of the outputs, relative to their range.
        inputs: Its inputs.
        answers: Its outputs.
    """

    number: int
    distance: float | None
    inputs: tuple[Shown, ...]
    answers: tuple[Answer, ...]


@dataclasses.dataclass(frozen=True)
class Target:
    """The part of a file that a target runs.

    Attributes:
        name: Name of the target.
        summary: What it is.
        runs: Whether nothing in the file rules it out.
        kernels: Sets of kernels that run it, or what was said of them.
        accelerated: `(operator, count)` of what they run.
        left: `(operator, count)` of what falls back or is refused.
        findings: Sentences.
        latency_ms: Median time of a run, where measured.
    """

    name: str
    summary: str
    runs: bool
    kernels: str = ""
    accelerated: tuple[tuple[str, int], ...] = ()
    left: tuple[tuple[str, int], ...] = ()
    findings: tuple[str, ...] = ()
    latency_ms: float | None = None


@dataclasses.dataclass(frozen=True)
class Side:
    """One file, or one search.

    Attributes:
        name: Its name.
        total: Bytes of the whole.
        facts: `(what, figure)`, in words.
        figures: Numbers that a limit can name, see `fail_if`.
        layers: Its weights, in the order of the network.
        search: The search behind it.
        tensors: Its activations, in order.
        samples: Inputs on which it is furthest off.
        targets: Where it goes.
        findings: Sentences on what stands out, by section.
        missing: Why a section is left out, by section.
    """

    name: str
    total: int
    facts: tuple[tuple[str, str], ...] = ()
    figures: dict[str, float] = dataclasses.field(default_factory=dict)
    layers: tuple[Layer, ...] = ()
    search: Search | None = None
    tensors: tuple[Tensor, ...] = ()
    samples: tuple[Sample, ...] = ()
    targets: tuple[Target, ...] = ()
    findings: dict[str, tuple[str, ...]] = dataclasses.field(
        default_factory=dict
    )
    missing: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Pair:
    """A layer of two sides, by place; `None` where a side lacks it."""

    first: int | None
    second: int | None


@dataclasses.dataclass(frozen=True)
class Page:
    """The contents of a page.

    Attributes:
        title: Its title.
        sides: One or two.
        pairs: Layers that correspond, where there are two.
        tensor_pairs: Activations that correspond.
        changes: Sentences on what changed.
    """

    title: str
    sides: tuple[Side, ...]
    pairs: tuple[Pair, ...] = ()
    tensor_pairs: tuple[Pair, ...] = ()
    changes: tuple[str, ...] = ()

    def to_json(self, indent: int | None = 2) -> str:
        """All fields as JSON; `null` for what is not finite."""
        return json.dumps(plain(self), indent=indent, allow_nan=False)


def plain(value: Any, text: Callable[[str], str] = str) -> Any:
    """Records as what JSON has; numbers that are not finite are `None`.

    `text` is what becomes of text, keys included.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name), text)
            for field in dataclasses.fields(value)
        }
    if isinstance(value, str):
        return text(value)
    if isinstance(value, dict):
        return {text(str(k)): plain(part, text) for k, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(part, text) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

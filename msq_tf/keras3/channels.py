"""Channels of a model that can go, and the weights that go with them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from msq_tf.arguments import check_mapping
from msq_tf.keras3.channel_flow import ChannelFlow
from msq_tf.keras3.model import MSQModel
from msq_tf.keras3.planning import match_plan

ByPath = Mapping[str, Sequence[int]]


@dataclasses.dataclass(frozen=True)
class ChannelGroup:
    """Channels that weights of a model compute together.

    Attributes:
        paths: The weights that compute them, as in `MSQModel.bits` and
            `skipped_weights`. If an addition reads several weights, channels in
            the same place go together.
        channels: Number of channels.
        elements: Number of elements, of weights of two or more dimensions, that
            go with each channel: in the weights that compute it, that read it,
            and that stand in between.
        reason: The reason why they have to stay; empty if they can go.
    """

    paths: tuple[str, ...]
    channels: int
    elements: tuple[int, ...]
    reason: str = ""


class Channels:
    """The channels of a quantized model, by the paths of its weights.

    Args:
        qmodel: The model.

    Attributes:
        flow: Its `ChannelFlow`.
        floats: The weights that stay in float and count as quantizable.

    Raises:
        ValueError: If its base is no graph of layers.
    """

    def __init__(self, qmodel: MSQModel):
        self.flow = ChannelFlow(qmodel.base)
        pairs = list(
            zip(qmodel.plan, match_plan(qmodel.base, qmodel.plan), strict=True)
        )
        self._paths = {id(found.variable): entry.path for entry, found in pairs}
        self.floats = [
            found.variable
            for entry, found in pairs
            if entry.skip_reason and entry.quantizable
        ]
        made = {
            id(axis.variable): axis.ids
            for axis in self.flow.axes.values()
            if axis.makes
        }
        self._made = {
            path: made[key] for key, path in self._paths.items() if key in made
        }

    def groups(self) -> list[ChannelGroup]:
        """The groups of all channels, in the order of the first of each."""
        elements = self.elements()
        return [
            ChannelGroup(
                paths,
                len(roots),
                tuple(elements[root] for root in roots),
                reason,
            )
            for (paths, reason), roots in self._grouped().items()
        ]

    def removable(self) -> dict[tuple[str, ...], dict[int, int]]:
        """Channels that can go, by the weights that make them together.

        Of each its number, and its place among those of the first weight.
        """
        found = {}
        for (paths, reason), roots in self._grouped().items():
            if not reason:
                first = list(self.flow.ids.roots(self._made[paths[0]]))
                found[paths] = {root: first.index(root) for root in roots}
        return found

    def _grouped(self) -> dict[tuple[tuple[str, ...], str], list[int]]:
        """Numbers of channels by what makes them and why they stay."""
        ids = self.flow.ids
        makers: dict[int, dict[str, None]] = {}
        for path, made in self._made.items():
            for root in map(int, ids.roots(made)):
                makers.setdefault(root, {})[path] = None
        groups: dict[tuple[tuple[str, ...], str], list[int]] = {}
        for root, paths in makers.items():
            key = tuple(paths), ids.reason(root)
            groups.setdefault(key, []).append(root)
        return groups

    def elements(self) -> dict[int, int]:
        """Elements of weights that go with each channel, by its number."""
        found: dict[int, int] = {}
        variables = {
            id(axis.variable): axis.variable
            for axis in self.flow.axes.values()
            if id(axis.variable) in self._paths
        }
        for variable in variables.values():
            size = math.prod(variable.shape)
            left: dict[int, int] = {}
            for _, ids in self.along(variable):
                roots, counts = np.unique(
                    self.flow.ids.roots(ids), return_counts=True
                )
                for root, count in zip(roots, counts, strict=True):
                    before = left.get(int(root), size)
                    left[int(root)] = before - before * count // len(ids)
            for root, kept in left.items():
                found[root] = found.get(root, 0) + int(size - kept)
        return found

    def chosen(self, channels: ByPath) -> set[int]:
        """The numbers of channels that are given by paths and places.

        Raises:
            ValueError: If there is no such channel, one has to stay, or none
                would be left of some tensor.
        """
        check_mapping("channels", channels, "paths to channels")
        gone: set[int] = set()
        for path, places in channels.items():
            made = self._made.get(path)
            if made is None:
                raise ValueError(
                    "A key of `channels` names no weight that makes channels. "
                    f"Expected one of {list(self._made)}. Received: {path!r}"
                )
            gone |= self._of(path, made, places)
        for ids in self.flow.tensors:
            if len(ids) and gone.issuperset(map(int, self.flow.ids.roots(ids))):
                whole = [
                    path
                    for path, made in self._made.items()
                    if gone.issuperset(map(int, self.flow.ids.roots(made)))
                ]
                raise ValueError(
                    "No channel would be left. Expected `channels` that leave "
                    f"at least one of each weight. Received: all of {whole}"
                )
        return gone

    def _of(self, path: str, made: np.ndarray, places: Any) -> set[int]:
        given = np.asarray(places)
        if given.size == 0:
            return set()
        if (
            given.ndim != 1
            or given.dtype.kind not in "iu"
            or given.min() < 0
            or given.max() >= len(made)
        ):
            raise ValueError(
                f"`channels` of '{path}' must be places of channels, integers "
                f"from 0 to {len(made) - 1}. Received: {places!r:.200}"
            )
        ids = made[given]
        for place, number in zip(given, ids, strict=True):
            reason = self.flow.ids.reason(number)
            if reason:
                raise ValueError(
                    f"Channel {place} of '{path}' can't be removed: it "
                    f"{reason}. Expected channels that weights alone read, see "
                    f"`msq_tf.channel_groups`. Received: {path!r}"
                )
        return set(map(int, self.flow.ids.roots(ids)))

    def along(self, variable: Any) -> list[tuple[int, np.ndarray]]:
        """The axes of a variable that channels run along, with their ids."""
        return [
            (axis.axis, axis.ids)
            for axis in self.flow.axes.values()
            if axis.variable is variable
        ]

    def makes(self, variable: Any, axis: int) -> bool:
        """Whether an axis has the output channels of its layer."""
        return self.flow.axes[id(variable), axis].makes

    def kept(self, gone: set[int], ids: np.ndarray) -> np.ndarray:
        """Which places of an axis stay, a bool array."""
        return ~np.isin(self.flow.ids.roots(ids), list(gone))

    def places(self, gone: set[int], variable: Any) -> dict[int, np.ndarray]:
        """Which places of a variable stay, by axis; those that all stay too."""
        return {
            axis: self.kept(gone, ids) for axis, ids in self.along(variable)
        }

    def masks(self, gone: set[int], kernels: Any) -> list[np.ndarray | None]:
        """1 where a kernel's elements stay, 0 where they go; float32."""
        masks: list[np.ndarray | None] = []
        for kernel in kernels:
            mask: np.ndarray | None = None
            for axis, kept in self.places(gone, kernel).items():
                shape = [1] * len(kernel.shape)
                shape[axis] = len(kept)
                own = kept.astype(np.float32).reshape(shape)
                mask = own if mask is None else mask * own
            masks.append(mask)
        return masks


def channel_groups(qmodel: MSQModel) -> list[ChannelGroup]:
    """Lists the channels of a model, and says which can be removed.

    A channel can go if only weights read it, directly or through layers that
    keep channels apart: batch norms, activations, pooling, padding, dropout,
    `Flatten`, additions and concatenations. Inputs and outputs of the model
    stay, and so do channels that layers of other kinds read.

    Args:
        qmodel: Made by `quantize_model` of a Functional or Sequential model.

    Returns:
        `ChannelGroup` records, in the order of the network.

    Raises:
        ValueError: If the model is of another kind.

    Example:
    ```python
    for group in msq_tf.channel_groups(qmodel):
        print(group.paths, group.channels, group.reason or "can go")
    ```
    """
    check_model("channel_groups", qmodel)
    return Channels(qmodel).groups()


def check_model(name: str, qmodel: Any) -> None:
    """Raises a ValueError unless a function got an `MSQModel`."""
    if not isinstance(qmodel, MSQModel):
        raise ValueError(
            f"`{name}` takes a model from `msq_tf.quantize_model`. Received: "
            f"{type(qmodel).__name__}"
        )

"""Which weights of a graph may end in one constant of a file.

The converter folds a normalization behind a convolution into its filter, adds a
bias to a shift, and so on. This module does not know which of them it folds. It
puts a weight into one group with every weight into which it could be folded.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any


def groups(
    nodes: Iterable[Any], weights: Mapping[str, tuple[int, ...]]
) -> list[list[str]]:
    """Groups weights that are used without another matrix in between.

    The weights' names in groups, both in the order of `weights`.
    """
    walk = _Walk({node.name: node for node in nodes}, weights)
    for name in walk.nodes:
        walk.visit(name)
    found: dict[str, list[str]] = {}
    for name in weights:
        found.setdefault(walk.leader(name), []).append(name)
    return list(found.values())


class _Walk:
    """Follows data from node to node.

    Of every node it keeps a weight of the group that a vector would join which
    is used there. Weights that are used with each other are in one group.
    Where data meets a matrix, a filter or the like, a new group begins.
    """

    def __init__(
        self,
        nodes: dict[str, Any],
        weights: Mapping[str, tuple[int, ...]],
    ):
        self.nodes = nodes
        self._leaders = {name: name for name in weights}
        # Leaders of groups with a matrix in them.
        self._matrices = {
            name for name, shape in weights.items() if len(shape) > 1
        }
        # By node: a weight of its group, and whether it is made of constants.
        self._seen: dict[str, tuple[str | None, bool]] = {}

    def leader(self, name: str) -> str:
        while self._leaders[name] != name:
            name = self._leaders[name]
        return name

    def visit(self, name: str) -> None:
        """Looks at a node, after all that it reads."""
        waiting = [name]
        while waiting:
            node = waiting[-1]
            if node in self._seen:
                waiting.pop()
                continue
            reads = [
                read.split(":")[0]
                for read in self.nodes[node].input
                if not read.startswith("^")  # only an order
            ]
            left = [read for read in reads if read not in self._seen]
            if left:
                waiting += left
            else:
                self._seen[node] = self._found(node, reads)
                waiting.pop()

    def _found(self, node: str, reads: list[str]) -> tuple[str | None, bool]:
        if node in self._leaders:
            return node, True
        if self.nodes[node].op == "Const":
            return None, True
        constants = [self._seen[read][0] for read in reads if self._fixed(read)]
        data = [self._seen[read][0] for read in reads if not self._fixed(read)]
        used = self._joined(constants)
        if not data:
            # A placeholder reads nothing and is no constant.
            return used, bool(reads)
        before = next((name for name in data if name is not None), None)
        if used is None:
            return before, False
        if before is not None and used not in self._matrices:
            return self._joined([before, used]), False
        return used, False

    def _fixed(self, node: str) -> bool:
        return self._seen[node][1]

    def _joined(self, names: Iterable[str | None]) -> str | None:
        """Makes one group of those of some weights; returns its leader."""
        known = {self.leader(name) for name in names if name is not None}
        if not known:
            return None
        first = known.pop()
        for other in known:
            self._leaders[other] = first
        if self._matrices & known:
            self._matrices.add(first)
        return first

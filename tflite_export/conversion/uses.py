"""How the graph that the converter is given uses its weights.

This module looks at the graph before the converter changes anything; there
every weight is a separate constant. So it is known, and not guessed, which
weights nothing reads, which are only multiplied with data, and which are added,
sliced or looked up. The converter folds the last kind into constants in which
their codes are lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

# A result of a node, by the node's name and place.
Tensor = tuple[str, int]
# Where a tensor is read: the node and the place among its inputs.
Edge = tuple[str, int]

# Operations that multiply a weight with data, and the weight's places.
MATRIX = {
    "BatchMatMul": (0, 1),
    "BatchMatMulV2": (0, 1),
    "BatchMatMulV3": (0, 1),
    "Conv2D": (1,),
    "Conv2DBackpropInput": (1,),
    "Conv3D": (1,),
    "Conv3DBackpropInputV2": (1,),
    "DepthwiseConv2dNative": (1,),
    "Einsum": (0, 1),
    "MatMul": (0, 1),
}
# Operations that hand a weight on to another graph.
_CALLS = {
    "Case",
    "If",
    "PartitionedCall",
    "StatefulPartitionedCall",
    "StatelessCase",
    "StatelessIf",
    "StatelessWhile",
    "While",
}
# Operations whose results are elements of one input, and the input's place.
_SELECTING = {
    "ExpandDims": 0,
    "GatherV2": 0,
    "Identity": 0,
    "Reshape": 0,
    "Slice": 0,
    "Split": 1,
    "SplitV": 0,
    "Squeeze": 0,
    "StridedSlice": 0,
    "Transpose": 0,
    "Unpack": 0,
}
# Operations that give something else every time, or that come from outside.
_CHANGING = ("Random", "Multinomial", "Placeholder", "TruncatedNormal", "Var")
# Elements that float32 can number.
_NUMBERS = 1 << 24


class Uses:
    """The nodes of a frozen graph, and who reads whom.

    Args:
        nodes: Of a `GraphDef`.
        outputs: Names of the nodes that are the graph's results.
        captured: Names of placeholders that stand for constants.
        cut: Edges that lead to nothing any more.

    Attributes:
        live: Names of the nodes on which results depend.
    """

    def __init__(
        self,
        nodes: Iterable[Any],
        outputs: Iterable[str],
        captured: Iterable[str] = (),
        cut: Iterable[Edge] = (),
    ):
        self._nodes = {node.name: node for node in nodes}
        self._outputs = set(outputs)
        self._captured = set(captured)
        self._cut = set(cut)
        self.live = self._behind(self._outputs & self._nodes.keys())
        self._readers: dict[Tensor, list[Edge]] = {}
        for name in self._nodes:
            if name in self.live:
                for place, tensor in self._reads(name):
                    self._readers.setdefault(tensor, []).append((name, place))
        self._made: dict[str, list[Tensor]] = {}
        for tensor in self._readers:
            self._made.setdefault(tensor[0], []).append(tensor)
        self._fixed = self._constant_nodes()

    def _reads(self, name: str) -> list[tuple[int, Tensor]]:
        """The data that a node reads, with their places."""
        return [
            (place, _tensor(read))
            for place, read in enumerate(self._nodes[name].input)
            if not read.startswith("^") and (name, place) not in self._cut
        ]

    def _constant_nodes(self) -> set[str]:
        """Nodes that are computed from constants alone."""
        fixed: dict[str, bool] = {}
        for start in self.live:
            waiting = [start]
            while waiting:
                name = waiting[-1]
                node = self._nodes[name]
                if name in fixed:
                    waiting.pop()
                    continue
                if node.op == "Const" or name in self._captured:
                    fixed[name] = True
                    continue
                reads = [tensor[0] for _, tensor in self._reads(name)]
                left = [read for read in reads if read not in fixed]
                if left:
                    waiting += left
                    continue
                fixed[name] = (
                    bool(reads)
                    and len(reads) == len(_data(node))
                    and name not in self._outputs
                    and node.op not in _CALLS
                    and not node.op.startswith(_CHANGING)
                    and all(fixed[read] for read in reads)
                )
        return {name for name, known in fixed.items() if known}

    def sealing(self, weight: str, everywhere: bool = False) -> list[Edge]:
        """The reads at which a weight must not be folded into something.

        Edges at which elements of the weight are still what they were. With
        `everywhere` also where it is multiplied with data.
        """
        found: list[Edge] = []
        computed: list[Edge] = []
        multiplied = False
        waiting: list[Tensor] = [(weight, 0)]
        seen = set(waiting)
        while waiting:
            tensor = waiting.pop()
            for edge in self._readers.get(tensor, ()):
                op = self._nodes[edge[0]].op
                if edge[0] not in self._fixed:
                    if everywhere or not self._multiplies(edge):
                        found.append(edge)
                    else:
                        multiplied = True
                elif _SELECTING.get(op) == edge[1]:
                    for result in self._results(edge[0]):
                        if result not in seen:
                            seen.add(result)
                            waiting.append(result)
                elif everywhere or not all(
                    map(self._multiplies, self._ends(edge[0]))
                ):
                    computed.append(edge)
        # An RNN multiplies its weights with a state of zeros first: that may
        # be folded, the codes are needed in the file for what follows.
        return found if multiplied else found + computed

    def _results(self, name: str) -> list[Tensor]:
        return self._made.get(name, [])

    def _multiplies(self, edge: Edge) -> bool:
        op = self._nodes[edge[0]].op
        return edge[1] in MATRIX.get(op, ()) or op in _CALLS

    def _ends(self, name: str) -> Iterator[Edge]:
        """Where data meet what is computed from a constant node."""
        waiting, seen = [name], {name}
        while waiting:
            for result in self._results(waiting.pop()):
                for edge in self._readers[result]:
                    if edge[0] not in self._fixed:
                        yield edge
                    elif edge[0] not in seen:
                        seen.add(edge[0])
                        waiting.append(edge[0])

    def changes(self, weight: str) -> bool:
        """Whether other constants are computed from a weight."""
        return any(
            edge[0] in self._fixed for edge in self.sealing(weight, True)
        )

    def trail(self, weight: str, edge: Edge) -> list[Edge]:
        """The edges from a weight to one of `sealing`, that one included."""
        edges = [edge]
        while (source := self._source(edges[0])[0]) != weight:
            place = _SELECTING[self._nodes[source].op]
            edges.insert(0, (source, place))
        return edges

    def _source(self, edge: Edge) -> Tensor:
        return _tensor(self._nodes[edge[0]].input[edge[1]])

    def places(
        self, weight: str, shape: Sequence[int], edges: Sequence[Edge]
    ) -> list[np.ndarray]:
        """Which elements of a weight are read at the edges of a `trail`.

        For each edge an array of the flat places of the elements.
        """
        count = int(np.prod(shape, dtype=np.int64))
        numbers = np.arange(count).reshape(tuple(shape))
        low, high = numbers % _NUMBERS, numbers // _NUMBERS
        tensors = [self._source(edge) for edge in edges]
        found = self._evaluated(tensors, {weight: low.astype(np.float32)})
        result = [part.astype(np.int64) for part in found]
        if count > _NUMBERS:
            more = self._evaluated(tensors, {weight: high.astype(np.float32)})
            result = [
                part + _NUMBERS * upper.astype(np.int64)
                for part, upper in zip(result, more, strict=True)
            ]
        return result

    def computed(
        self, trained: Iterable[str], values: Mapping[str, Any]
    ) -> list[np.ndarray]:
        """Arrays computed from constants other than some weights.

        float32 arrays that data meet, and vectors of the graph itself, which
        the converter may give a second axis. `values` has functions that
        return the values of captured constants.
        """
        tainted = self._made_of(trained)
        tensors = [
            tensor
            for tensor, edges in self._readers.items()
            if tensor[0] in self._fixed - tainted - self._captured
            and not self._is_matrix(tensor[0])
            and any(edge[0] not in self._fixed for edge in edges)
        ]
        needed = self._behind(tensor[0] for tensor in tensors)
        given = {name: values[name]() for name in needed & self._captured}
        found = self._evaluated(tensors, given, tf.float32)
        return [array for array in found if array.ndim > 0]

    def kernels(self, weights: Iterable[str]) -> dict[Tensor, np.ndarray]:
        """float32 arrays that products read and literals alone make.

        `weights` are names of nodes that hold what the model trains.
        """
        tainted = self._made_of(weights)
        tensors = [
            tensor
            for tensor, edges in self._readers.items()
            if tensor[0] in self._fixed - tainted
            and self._nodes[tensor[0]].op != "Const"
            and any(
                edge[1] in MATRIX.get(self._nodes[edge[0]].op, ())
                for edge in edges
                if edge[0] not in self._fixed
            )
        ]
        values = self._evaluated(tensors, {})
        return {
            tensor: value
            for tensor, value in zip(tensors, values, strict=True)
            if value.dtype == np.float32
        }

    def readers(self, tensor: Tensor) -> list[Edge]:
        """The places where a tensor is read."""
        return list(self._readers.get(tensor, ()))

    def _made_of(self, names: Iterable[str]) -> set[str]:
        """Nodes that are computed from some nodes, themselves included."""
        found = set(names)
        waiting = list(found)
        while waiting:
            for result in self._results(waiting.pop()):
                for name, _ in self._readers[result]:
                    if name not in found:
                        found.add(name)
                        waiting.append(name)
        return found

    def _is_matrix(self, name: str) -> bool:
        """Whether a node is a constant of two axes or more."""
        node = self._nodes[name]
        shape = node.attr["value"].tensor.tensor_shape
        return node.op == "Const" and len(shape.dim) > 1

    def _behind(self, names: Iterable[str]) -> set[str]:
        """Nodes that some nodes are computed from, themselves included."""
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                # Orders say nothing: nothing is written in a frozen graph.
                waiting += [tensor[0] for _, tensor in self._reads(name)]
        return found

    def _evaluated(
        self,
        tensors: Sequence[Tensor],
        given: Mapping[str, np.ndarray],
        kind: tf.DType | None = None,
    ) -> list[np.ndarray]:
        """Values of constant tensors, of one type, some nodes' values given."""
        if not tensors:
            return []
        needed = self._behind(tensor[0] for tensor in tensors)
        graph_def = tf.compat.v1.GraphDef()
        for name in needed:
            node = graph_def.node.add()
            if name in given:
                node.CopyFrom(_placeholder(name, given[name]))
                continue
            node.CopyFrom(self._nodes[name])
            del node.input[:]
            node.input.extend(
                f"{read}:{k}" for _, (read, k) in self._reads(name)
            )
            node.ClearField("device")
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(graph_def, name="")
            with tf.compat.v1.Session(graph=graph) as session:
                wanted = [
                    graph.get_tensor_by_name(f"{name}:{k}")
                    for name, k in tensors
                ]
                return session.run(
                    [t for t in wanted if kind in (None, t.dtype)],
                    {
                        f"{name}:0": value
                        for name, value in given.items()
                        if name in needed
                    },
                )


def _placeholder(name: str, value: np.ndarray) -> tf.compat.v1.NodeDef:
    node = tf.compat.v1.NodeDef(name=name, op="Placeholder")
    node.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
    return node


def _tensor(read: str) -> Tensor:
    name, _, place = read.removeprefix("^").partition(":")
    return name, int(place or 0)


def _data(node: Any) -> list[str]:
    return [read for read in node.input if not read.startswith("^")]

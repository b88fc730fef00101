"""Running TFLite files: the only place that holds an interpreter."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from typing import TypeVar

import numpy as np
from ai_edge_litert import interpreter as litert

from tflite_export import files
from tflite_export.flatbuffer import check_model
from tflite_export.flatbuffer import model as fb
from tflite_export.runtime import batches
from tflite_export.runtime import table_ids
from tflite_export.runtime.flat_scores import FlatScores
from tflite_export.runtime.given import in_order

_T = TypeVar("_T")

KERNELS = {
    "xnnpack": litert.OpResolverType.AUTO,
    "builtin": litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": litert.OpResolverType.BUILTIN_REF,
}


class Session:
    """A file loaded for one set of kernels.

    Args:
        data: The bytes of the file.
        kernels: `"xnnpack"` (what applications get), `"builtin"` or
            `"reference"`.
        keep_all: Whether intermediate tensors can be read after a run.
        batch_size: Samples of the first run, where the file leaves it open.
            A delegate that is told later packs all weights twice.

    Raises:
        ValueError: If there is no such set of kernels, or the file is none.
        RuntimeError: If the kernels can't run the file.
    """

    def __init__(
        self,
        data: bytes,
        kernels: str,
        keep_all: bool = False,
        batch_size: int | None = None,
    ):
        if not isinstance(kernels, str) or kernels not in KERNELS:
            raise ValueError(
                f"No such kernels. Expected one of {', '.join(KERNELS)}. "
                f"Received: kernels={kernels!r}"
            )
        files.give_back(len(data))
        try:
            self._interpreter = litert.Interpreter(
                model_content=data,
                experimental_op_resolver_type=KERNELS[kernels],
                experimental_preserve_all_tensors=keep_all,
            )
        except ValueError as error:
            if "Didn't find op" not in str(error):
                raise
            raise RuntimeError(str(error)) from error
        self._flat = FlatScores(data) if kernels == "reference" else None
        self.inputs = self._interpreter.get_input_details()
        for detail in self.inputs:
            if batch_size is not None and -1 in detail["shape_signature"][:1]:
                self._resize(detail, (batch_size, *detail["shape"][1:]))
        # Where more than the batch is open, a length of 1 may be none that
        # the operators take: the first inputs have the size.
        self._allocated = not self.open_inputs
        if self._allocated:
            self._interpreter.allocate_tensors()
        self.inputs = self._interpreter.get_input_details()
        self.outputs = self._interpreter.get_output_details()
        self.input_names, self.output_names = self._names()

    @property
    def fixed_batch(self) -> int | None:
        """Batch size the file insists on, `None` if it takes any."""
        for detail in self.inputs:
            signature = detail["shape_signature"]
            if len(signature) and signature[0] > 0:
                return int(signature[0])
        return None

    @property
    def open_inputs(self) -> list[str]:
        """Names of the inputs with an open axis behind that of the batch."""
        return [
            detail["name"]
            for detail in self.inputs
            if -1 in detail["shape_signature"][1:]
        ]

    @property
    def output_places(self) -> list[int]:
        """For each output, the first that is the same tensor."""
        indices = [detail["index"] for detail in self.outputs]
        return [indices.index(index) for index in indices]

    def delegated(self) -> int | None:
        """Number of pieces a delegate took over, `None` if not known."""
        details = getattr(self._interpreter, "_get_ops_details", None)
        return details and sum(op["op_name"] == "DELEGATE" for op in details())

    def not_delegated(self) -> list[str] | None:
        """Operators that no delegate took over, `None` if not known."""
        left = self.left_over()
        return None if left is None else list(left.values())

    def left_over(self) -> dict[int, str] | None:
        """The same by position in the file."""
        details = getattr(self._interpreter, "_get_ops_details", None)
        if details is None:
            return None
        operators = [op for op in details() if op["op_name"] != "DELEGATE"]
        writer = {int(t): op for op in operators for t in op["outputs"]}
        taken: set[int] = set()
        for piece in details():
            if piece["op_name"] != "DELEGATE":
                continue
            # All that lies between the piece's outputs and its inputs.
            known = {int(t) for t in piece["inputs"]}
            front = [int(t) for t in piece["outputs"]]
            while front:
                op = writer.get(front.pop())
                if op is not None and op["index"] not in taken:
                    taken.add(op["index"])
                    front += [int(t) for t in op["inputs"] if t not in known]
        return {
            int(op["index"]): op["op_name"]
            for op in operators
            if op["index"] not in taken
        }

    def _names(self) -> tuple[dict[str, int], dict[str, int]]:
        """Position of each input and output by its name in the signature.

        Files without a signature go by the names of their tensors. Several
        names may stand for one tensor.
        """
        keys = list(self._interpreter.get_signature_list())
        inputs, outputs = self.inputs, self.outputs
        if len(keys) != 1:
            return _positions(inputs, {}), _positions(outputs, {})
        runner = self._interpreter.get_signature_runner(keys[0])
        return (
            _positions(inputs, runner.get_input_details()),
            _positions(outputs, runner.get_output_details()),
        )

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Runs one batch; arrays in the order of the file's inputs."""
        self.invoke(arrays)
        return [self.tensor(detail["index"]) for detail in self.outputs]

    def invoke(self, arrays: Sequence[np.ndarray]) -> None:
        """Runs one batch, and leaves what it gives where it is.

        Raises:
            RuntimeError: If the kernels would end the process.
        """
        if self._flat is not None:
            reason = self._flat.find(arrays)
            if reason:
                raise RuntimeError(reason)
        resized = not self._allocated
        for detail, array in zip(self.inputs, arrays, strict=True):
            if tuple(detail["shape"]) != array.shape:
                self._resize(detail, array.shape)
                resized = True
        if resized:
            self._interpreter.allocate_tensors()
            self._allocated = True
            self.inputs = self._interpreter.get_input_details()
        for detail, array in zip(self.inputs, arrays, strict=True):
            self._interpreter.set_tensor(
                detail["index"], array.astype(detail["dtype"], copy=False)
            )
        self._interpreter.invoke()

    def _resize(self, detail: dict[str, Any], shape: Sequence[int]) -> None:
        self._interpreter.resize_tensor_input(
            detail["index"], shape, strict=True
        )

    def shapes(self, samples: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
        """Shapes of all tensors of the main graph for one batch of samples."""
        for detail, shape in zip(self.inputs, samples, strict=True):
            if len(detail["shape"]):
                whole = (int(detail["shape"][0]), *shape)
                if tuple(detail["shape"]) != whole:
                    self._resize(detail, whole)
        self._interpreter.allocate_tensors()
        self._allocated = True
        return [
            tuple(map(int, detail["shape"]))
            for detail in self._interpreter.get_tensor_details()
        ]

    def tensor(self, index: int) -> np.ndarray:
        """Value of a tensor of the main graph."""
        return self._interpreter.get_tensor(index)

    def reduced(self, index: int, reduce: Callable[[np.ndarray], _T]) -> _T:
        """The result of a function of a tensor's value, which is not copied.

        Nothing of it may be kept.
        """
        return reduce(self._interpreter.tensor(index)())


class SignatureSession(Session):
    """A file loaded for one set of kernels, of which one signature runs.

    Args:
        data: The bytes of the file.
        kernels: As of `Session`.
        signature: Name of the signature.

    Raises:
        ValueError: If the file has no such signature.
        RuntimeError: If the kernels can't run the file.
    """

    def __init__(self, data: bytes, kernels: str, signature: str):
        super().__init__(data, kernels)
        known = list(self._interpreter.get_signature_list())
        if signature not in known:
            raise ValueError(
                f"The file has no such signature. Expected one of {known}. "
                f"Received: signature={signature!r}"
            )
        self._runner = own = self._interpreter.get_signature_runner(signature)
        found = own.get_input_details(), own.get_output_details()
        inputs, outputs = ({**ports} for ports in found)
        self.inputs = [{**inputs[name], "name": name} for name in inputs]
        self.outputs = [{**outputs[name], "name": name} for name in outputs]
        self.input_names = {name: k for k, name in enumerate(inputs)}
        self.output_names = {name: k for k, name in enumerate(outputs)}

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Runs one batch; arrays in the order of `input_names`."""
        found = self._runner(
            **{
                name: np.asarray(array, detail["dtype"])
                for name, detail, array in zip(
                    self.input_names, self.inputs, arrays, strict=True
                )
            }
        )
        return [found[name] for name in self.output_names]


def run(
    model: str | os.PathLike[str] | bytes,
    inputs: Any,
    kernels: str = "xnnpack",
    batch_size: int = 64,
    signature: str | None = None,
) -> Any:
    """Runs a TFLite file over many samples.

    It runs the file in this process. Damaged files are refused, but a valid
    file that is meant to do harm is not detected. For files from anyone, use
    `tflite_export.compare_files`.

    Args:
        model: Path or bytes of a file.
        inputs: One array, a list of arrays in the order of the file's inputs,
            or a dict by their names; samples along the first axis.
        kernels: `"xnnpack"`, `"builtin"` or `"reference"`.
        batch_size: Samples per run, if the file leaves it open.
        signature: Name of the signature to run, for files that have several;
            the first graph of the file if `None`.

    Returns:
        The output array, or a dict of arrays by name for several outputs.

    Raises:
        ValueError: If the file can't be read or is damaged, has no such
            signature, or the inputs do not fit it.

    Examples:
        >>> probabilities = tflite_export.run("model.tflite", images)
    """
    # `msq_tf.arguments` has this, but loads TensorFlow.
    if isinstance(batch_size, bool) or not (
        isinstance(batch_size, (int, np.integer)) and batch_size > 0
    ):
        raise ValueError(
            "`batch_size` must be an integer of at least 1. Received: "
            f"batch_size={batch_size!r}"
        )
    data = (
        model
        if isinstance(model, bytes)
        else files.read_bytes(model, fb.check_identifier)
    )
    loaded = fb.load(data)
    check_model.check_written(loaded)  # refuses what is damaged
    session = (
        Session(data, kernels)
        if signature is None
        else SignatureSession(data, kernels, signature)
    )
    arrays = in_order(inputs, session)
    names = list(session.input_names)
    for name, detail, array in zip(names, session.inputs, arrays, strict=True):
        table_ids.check_whole(name, np.dtype(detail["dtype"]), array)
    if signature is None:
        table_ids.check(table_ids.of_file(loaded), names, arrays, "`inputs`")
    with on_given_values():
        outputs = in_batches(arrays, batch_size, session)
    results = {name: outputs[k] for name, k in session.output_names.items()}
    return next(iter(results.values())) if len(results) == 1 else results


@contextlib.contextmanager
def on_given_values() -> Iterator[None]:
    """Says of an operator that gives up that the values are what it can't do.

    Raises:
        ValueError: Instead of a `RuntimeError` of the block.
    """
    try:
        yield
    except RuntimeError as error:
        raise ValueError(
            "The file can't be run on the values of `inputs`. Expected such "
            "as its operators take, for example ids that its tables have. "
            f"Received: {' '.join(str(error).split())}"
        ) from error


def chunks(
    arrays: Sequence[np.ndarray], batch_size: int, session: Session
) -> Iterator[list[np.ndarray]]:
    """Cuts samples into batches that a file takes.

    Where the file fixes the batch size, the last batch is filled up by
    repeating its last sample. A scalar input takes the first sample of a
    batch; where the batch size is open, each is a batch of its own.
    """
    fixed = session.fixed_batch
    scalar = [not len(detail["shape"]) for detail in session.inputs]
    size = fixed or (1 if any(scalar) else batch_size)
    for start in range(0, len(arrays[0]), size):
        piece = [array[start : start + size] for array in arrays]
        missing = size - len(piece[0])
        if fixed and missing:
            piece = [
                np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
                for array in piece
            ]
        yield [
            array[:1].reshape(()) if alone and array.ndim == 1 else array
            for array, alone in zip(piece, scalar, strict=True)
        ]


def in_batches(
    arrays: Sequence[np.ndarray], batch_size: int, session: Session
) -> list[np.ndarray]:
    """The outputs for all samples, which run in the batches of `chunks`."""
    results, fed = [], 0
    for piece in chunks(arrays, batch_size, session):
        results.append(session(piece))
        fed += len(np.atleast_1d(piece[0]))
    return batches.joined(results, len(arrays[0]), fed)


def _positions(
    details: list[dict[str, Any]], signature: dict[str, dict[str, Any]]
) -> dict[str, int]:
    indices = [detail["index"] for detail in details]
    if not signature:
        return {detail["name"]: k for k, detail in enumerate(details)}
    for name, detail in signature.items():
        if detail["index"] not in indices:
            raise ValueError(
                "a signature names a tensor that is no input or output of the "
                f"graph. Received: tensor {detail['index']} as '{name}'"
            )
    found = {
        name: indices.index(detail["index"])
        for name, detail in signature.items()
    }
    return dict(sorted(found.items(), key=lambda item: item[1]))

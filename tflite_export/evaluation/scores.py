"""How good a file is on data with labels, as `keras.Model.evaluate` says it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from tflite_export import files
from tflite_export.conversion.states import StateReport
from tflite_export.data.data_scale import DataScale
from tflite_export.data.finite_rows import check_finite
from tflite_export.evaluation.given_scale import GivenScale
from tflite_export.flatbuffer import model as fb
from tflite_export.runtime import given
from tflite_export.runtime import interpreter
from tflite_export.runtime import ports
from tflite_export.runtime import table_ids
from tflite_export.verification import agreement

# Arguments of `compile` that say what to measure.
_MEASURES = ("loss", "loss_weights", "metrics", "weighted_metrics")
# Key of what is needed beside them to make them again.
_OBJECTS = "custom_objects"


def evaluate_file(
    path: str | os.PathLike[str],
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    batch_size: int = 64,
    kernels: str = "xnnpack",
    compiled: Mapping[str, Any] | None = None,
    states: Sequence[StateReport] = (),
    trained: Mapping[str, DataScale] | None = None,
) -> dict[str, float]:
    """Runs a file over a data set and measures its scores.

    Args:
        path: The file.
        x: Inputs as the Keras model takes them: an array, a list or dict of
            arrays; or batches of `(x, y)` or `(x, y, sample_weight)`, as a
            `tf.data.Dataset`, a `keras.utils.PyDataset` or an iterable.
        y: Targets; left out where `x` holds them.
        sample_weight: Weights of the samples; needs `compiled`.
        batch_size: Samples that are run at once, where the file leaves it
            open.
        kernels: As `tflite_export.run` takes it.
        compiled: `get_compile_config()` of the Keras model; `None` for the
            accuracy of a classifier or the mean errors of numbers.
        states: `ExportReport.states` of the file, which go from each batch to
            the next; they are no inputs in `x`.
        trained: What the inputs were in training, by name. Of others the
            grids of the file's inputs tell what it is right for, if they have
            any.

    Returns:
        Numbers by name, also the top-1 `"accuracy"` of a classifier.

    Raises:
        ValueError: If the file can't be read, or the data does not fit it.
    """
    data = files.read_bytes(path)
    tables = table_ids.of_file(fb.load(data))  # refuses what is damaged
    session = interpreter.Session(data, kernels)
    given = list(session.input_names)
    scale = GivenScale(data, given[: len(given) - len(states)], trained)
    with interpreter.on_given_values():
        outputs, y, weight = _outputs(
            data,
            session,
            _batches(x, y, sample_weight),
            batch_size,
            states,
            tables,
            scale,
        )
    scale.warn(stacklevel=3)
    names = [
        name
        for name, place in session.output_names.items()
        if place < len(outputs)
    ]
    found: dict[str, float] = {}
    if compiled:
        found = _as_compiled(names, outputs, y, weight, compiled)
    if len(outputs) == 1 and not any("acc" in name for name in found):
        loss = str((compiled or {}).get("loss", "")).lower()
        ask = not found or "crossentropy" in loss
        found |= _plain(
            data, outputs[0], np.asarray(y), ask, bool(found), len(states)
        )
    if not all(map(np.isfinite, found.values())):
        # Else a loss may know what to do with them.
        for leaf in map(np.asarray, _leaves(y)):
            check_finite(leaf, "y, or a loss that leaves others out")
    if not found:
        raise ValueError(
            "Nothing tells what to measure. Expected a file with one output, "
            "or the report of an export of a compiled model. Received: the "
            f"outputs {names}"
        )
    return found


def compiled_with(model: Any) -> dict[str, Any] | None:
    """The metrics of a quantized model, to be kept without the model."""
    if not getattr(model, "compiled", False):
        return None
    try:
        # Keras warns of functions without a name, which are told of where
        # they are missed.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = model.get_compile_config()
    # No such method in tf_keras's view; and what a user compiles with may not
    # be made to be written down.
    except Exception:
        return None
    kept = {k: v for k, v in (config or {}).items() if k in _MEASURES and v}
    if kept:
        kept[_OBJECTS] = _objects(getattr(model, "loss", None))
    return kept or None


def _objects(losses: Any) -> dict[str, Any]:
    """Functions and classes of losses by name: not all are registered."""
    several: Any = losses if isinstance(losses, dict | list) else [losses]
    found: dict[str, Any] = {}
    for loss in several.values() if isinstance(several, dict) else several:
        if callable(loss):
            made_of: Any = loss if hasattr(loss, "__name__") else type(loss)
            found[made_of.__name__] = made_of
    return found


def _batches(x: Any, y: Any, weight: Any) -> Iterable[tuple[Any, Any, Any]]:
    """Batches of inputs, targets and weights."""
    if y is not None:
        yield x, y, weight
        return
    if hasattr(x, "on_epoch_end") and hasattr(x, "__getitem__"):
        x = (x[i] for i in range(len(x)))
    if isinstance(x, np.ndarray | dict) or not isinstance(x, Iterable):
        raise ValueError(
            "There is nothing to compare with. Expected `evaluate(x, y)`, or "
            "batches of (x, y). Received: no y"
        )
    for batch in x:
        if not isinstance(batch, tuple) or not 2 <= len(batch) <= 3:
            raise ValueError(
                "Expected `evaluate(x, y)`, or batches of (x, y) or (x, y, "
                f"sample_weight). Received: batches of {type(batch).__name__}"
            )
        yield (*batch, None)[:3]


def _outputs(
    data: bytes,
    session: interpreter.Session,
    batches: Iterable[tuple[Any, Any, Any]],
    batch_size: int,
    states: Sequence[StateReport],
    tables: Sequence[table_ids.Table],
    scale: GivenScale,
) -> tuple[list[np.ndarray], Any, Any]:
    """Outputs in real numbers, targets and weights of all samples."""
    inputs, outputs = ports.inputs(data), ports.outputs(data)
    names = list(session.input_names)
    # States are the last ports on both sides.
    own = len(outputs) - len(states)
    found: list[list[np.ndarray]] = [[] for _ in outputs[:own]]
    current = [
        port.quantize(np.broadcast_to(np.float32(state.initial), port.shape))
        for state, port in zip(
            states, inputs[len(inputs) - len(states) :], strict=True
        )
    ]
    targets, weights = [], []
    seen = 0
    for x, y, weight in batches:
        arrays = given.in_order(_with_states(x, states, current), session)
        rows = len(arrays[0])
        for name, array in zip(names, arrays, strict=True):
            check_finite(array, f"x for '{name}'", seen)
        seen += rows
        scale.look(arrays)
        codes = [
            _taken(name, port, array)
            for name, port, array in zip(names, inputs, arrays, strict=True)
        ]
        table_ids.check(tables, names, codes, "x")
        done = 0
        for chunk in interpreter.chunks(codes, batch_size, session):
            count = min(len(chunk[0]), rows - done)
            results = session([*chunk[: len(chunk) - len(states)], *current])
            current = results[own:]
            for slot, port, value in zip(
                found, outputs[:own], results[:own], strict=True
            ):
                slot.append(port.real(np.atleast_1d(value)[:count]))
            done += count
        targets.append(_mapped(np.asarray, y))
        if any(len(leaf) != rows for leaf in _leaves(targets[-1])):
            raise ValueError(
                "Expected as many targets as inputs. Received: "
                f"{[len(leaf) for leaf in _leaves(targets[-1])]} for "
                f"{rows} inputs"
            )
        weights.append(weight)
    if not targets:
        raise ValueError(
            "The data holds no sample. Expected one or more. Received: none"
        )
    weight = None
    if weights[0] is not None:
        weight = np.concatenate([np.asarray(part) for part in weights])
    joined = [np.concatenate(slot).astype(np.float32) for slot in found]
    return joined, _joined(targets), weight


def _with_states(
    x: Any, states: Sequence[StateReport], values: Sequence[np.ndarray]
) -> Any:
    """Inputs, and as many rows of the states."""
    if not states:
        return x
    if not isinstance(x, dict | list | tuple):
        x = [x]
    leaves = list(x.values()) if isinstance(x, dict) else list(x)
    rows = len(np.atleast_1d(leaves[0]))
    filled = [np.resize(value, (rows, *value.shape[1:])) for value in values]
    if isinstance(x, dict):
        names = [state.input for state in states]
        return {**x, **dict(zip(names, filled, strict=True))}
    return [*leaves, *filled]


def _taken(name: str, port: ports.Port, array: np.ndarray) -> np.ndarray:
    """Real numbers as the file takes them; its own codes stay."""
    if port.scale is None:
        table_ids.check_whole(name, port.dtype, array)
    elif array.dtype != port.dtype:
        array = array.astype(np.float32)
    return port.quantize(array)


def _mapped(function: Any, value: Any) -> Any:
    """Applies a function to a target, or to each of several."""
    if isinstance(value, dict):
        return {name: function(part) for name, part in value.items()}
    # A plain list of numbers is one target, as in Keras.
    if isinstance(value, list | tuple) and value and hasattr(value[0], "shape"):
        return [function(part) for part in value]
    return function(value)


def _leaves(value: Any) -> list[np.ndarray]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else [value]


def _joined(parts: Sequence[Any]) -> Any:
    first = parts[0]
    if isinstance(first, dict):
        return {k: np.concatenate([part[k] for part in parts]) for k in first}
    if isinstance(first, list):
        return [np.concatenate(slot) for slot in zip(*parts, strict=True)]
    return np.concatenate(parts)


def _as_compiled(
    names: Sequence[str],
    outputs: Sequence[np.ndarray],
    y: Any,
    weight: Any,
    compiled: Mapping[str, Any],
) -> dict[str, float]:
    """Loss and metrics of `compile`, of a model that gives what it gets."""
    import keras

    try:
        measures = keras.saving.deserialize_keras_object(
            {k: v for k, v in compiled.items() if k != _OBJECTS},
            custom_objects=compiled.get(_OBJECTS),
        )
    except Exception as error:
        warnings.warn(
            "What the model was compiled with can't be made again, so it is "
            "not measured. Expected losses and metrics of Keras, or registered "
            "with `keras.saving.register_keras_serializable`. Received: "
            f"{' '.join(str(error).split())[:200]}",
            stacklevel=4,
        )
        return {}
    inputs = [keras.Input(array.shape[1:]) for array in outputs]
    ends = [
        keras.layers.Identity(name=name)(x)
        for name, x in zip(names, inputs, strict=True)
    ]
    single = len(outputs) == 1
    probe = keras.Model(inputs, ends[0] if single else ends)
    probe.compile(**measures)
    try:
        found = probe.evaluate(
            outputs[0] if single else list(outputs),
            y,
            sample_weight=weight,
            verbose=0,
            return_dict=True,
        )
    # Of Keras where a shape is wrong, of TensorFlow where a class is.
    except Exception as error:
        raise ValueError(
            "The targets do not fit what the model was compiled with. Expected "
            f"targets{'' if single else f' of the outputs {list(names)}'} as "
            "`fit` was given them, such as classes from 0 for "
            "'sparse_categorical_crossentropy'. Received: "
            f"{_ranges(y)} ({_cause(error)})"
        ) from error
    return {name: float(value) for name, value in found.items()}


def _ranges(y: Any) -> str:
    """Shapes, kinds and ends of targets, in words."""
    words = []
    keys = [f"'{key}': " for key in y] if isinstance(y, dict) else None
    leaves = [np.asarray(leaf) for leaf in _leaves(y)]
    for key, leaf in zip(keys or [""] * len(leaves), leaves, strict=True):
        ends = ""
        if leaf.size and leaf.dtype.kind in "biuf":
            ends = f", {leaf.min():g} to {leaf.max():g}"
        words.append(f"{key}{leaf.dtype} of shape {leaf.shape}{ends}")
    return "; ".join(words)


def _cause(error: Exception) -> str:
    """What an error says, without the places in which TensorFlow saw it."""
    text = str(error).split("\n\t [[")[0]
    return (text.strip().splitlines() or [type(error).__name__])[-1][:200]


def _plain(
    data: bytes,
    output: np.ndarray,
    y: np.ndarray,
    ask: bool,
    known: bool,
    states: int,
) -> dict[str, float]:
    """Accuracy where there are classes, mean errors where not.

    `ask` is whether what looks like scores of classes counts as that. Where a
    loss is `known`, mean errors say nothing. `states` outputs stand behind the
    one.
    """
    decision, *_ = agreement.decisions(data, None, ask, states)
    if decision is None and known:
        return {}
    classes = output.shape[-1] if output.ndim > 1 else 1
    indices = y.dtype.kind in "iub" and (
        y.shape == output.shape[:-1] or y.shape == (*output.shape[:-1], 1)
    )
    alike = y.shape == output.shape
    if classes > 1 and (indices or alike and _one_hot(y)):
        right = y.reshape(output.shape[:-1]) if indices else y.argmax(-1)
        return {"accuracy": float((output.argmax(-1) == right).mean())}
    if decision is not None and decision.threshold is not None:
        chosen = output > decision.threshold
        if chosen.size == y.size and set(np.unique(y)) <= {0, 1}:
            right = y.reshape(output.shape) > 0
            return {"accuracy": float((chosen == right).mean())}
    if known:
        return {}
    if not alike and y.size != output.size:
        raise ValueError(
            "The targets do not fit the output. Expected classes, or numbers "
            f"of shape {output.shape}. Received: shape={y.shape}, "
            f"dtype={y.dtype}"
        )
    return _errors(output, y.reshape(output.shape))


def _one_hot(y: np.ndarray) -> bool:
    return bool(np.isin(y, (0, 1)).all() and (y.sum(-1) == 1).all())


def _errors(output: np.ndarray, y: np.ndarray) -> dict[str, float]:
    difference = output.astype(np.float64) - y
    return {
        "mean_absolute_error": float(np.abs(difference).mean()),
        "mean_squared_error": float((difference**2).mean()),
    }

"""Inputs for verification, from whatever a user has at hand."""

from __future__ import annotations

import inspect
import itertools
import os
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tflite_export.data.finite_rows import check_finite

# Stands in for axes that a model leaves open, when inputs are random.
_OPEN_AXIS = 32


def collect(
    data: Any,
    structure: Any,
    limit: int,
    rest: list[list[np.ndarray]] | None = None,
) -> tuple[list[np.ndarray], str]:
    """Takes samples for verification.

    Args:
        data: An array (one input), a dict or list of arrays (several inputs),
            a `tf.data.Dataset` or another iterable of batches of these, a
            function without arguments that returns one, or `None` for random
            inputs. Labels, as in Keras' `(x, y)` tuples, are dropped.
        structure: Nested structure of `tf.TensorSpec` of the model's inputs.
        limit: Largest number of samples.
        rest: Gets batches of another size than the first, where the model
            leaves sizes open; `None` where all have to have one.

    Returns:
        One array per input, and `"given"` or `"random"`.

    Raises:
        ValueError: If the data doesn't fit the inputs.
    """
    specs = keras.tree.flatten(structure)
    data = opened(data)
    if data is None:
        return [_random(spec, min(limit, 16)) for spec in specs], "random"
    if _is_batch(data, specs):
        # A tuple of a dataset is (x, y) in Keras; this one is all inputs.
        whole = list(data) if isinstance(data, tuple) else data
        batches: Iterable[Any] = [whole]
    elif isinstance(data, Iterable):
        batches = data
    else:
        raise ValueError(
            "Expected representative_data to be an array, a dict or list of "
            "arrays, a tf.data.Dataset, an iterable of batches, a function "
            "that returns one, or the path of a folder of images. Received: "
            f"representative_data={type(data).__name__}"
        )
    taken: list[list[np.ndarray]] = [[] for _ in specs]
    count = seen = 0
    for batch in batches:
        flat = _flatten(batch, structure, specs, seen)
        seen += len(flat[0])
        if not all(map(_same_size, taken, flat)):
            if rest is None:
                raise ValueError(
                    "representative_data holds batches of several sizes. "
                    "Expected one size. Received: shapes "
                    f"{[slot[0].shape for slot in taken]} and "
                    f"{[array.shape for array in flat]}"
                )
            rest.append([array[:limit] for array in flat])
            # A stream may never come back to the first size.
            if len(rest) >= limit:
                break
            continue
        for slot, array in zip(taken, flat, strict=True):
            slot.append(array[: limit - count])
        count += len(flat[0])
        if count >= limit:
            break
    if count == 0:
        raise ValueError(
            "representative_data holds no sample. Expected one or more, or "
            "None for random inputs. Received: none"
        )
    return [np.concatenate(slot) for slot in taken], "given"


def opened(data: Any) -> Any:
    """The result of a function that yields batches; any other data itself.

    The function is one as `TFLiteConverter` takes for its
    `representative_dataset`, or what `tf.lite` makes of one.

    Raises:
        ValueError: If the function takes arguments or returns nothing.
    """
    function = getattr(data, "input_gen", data)
    if not callable(function) or _is_array(data) or isinstance(data, Iterable):
        return data
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise ValueError(
            "Expected a function without arguments as representative_data. "
            f"Received: {error}"
        ) from error
    found = function()
    if found is None:
        raise ValueError(
            "A function given as representative_data returned nothing. "
            "Expected a generator, or one that returns data. Received: None"
        )
    return found


def first_batch(data: Any) -> tuple[Any, Any]:
    """The inputs of the first batch, and data to use in place of `data`."""
    data = opened(data)
    if data is None or _is_array(data) or isinstance(data, dict):
        return data, data
    if isinstance(data, str | os.PathLike) or not isinstance(data, Iterable):
        return None, data
    if isinstance(data, tf.data.Dataset | Sequence):
        return _inputs_of(next(iter(data), None)), data
    iterator = iter(data)
    head = next(iterator, None)
    if head is None:
        return None, []
    return _inputs_of(head), itertools.chain([head], iterator)


def _same_size(slot: list[np.ndarray], array: np.ndarray) -> bool:
    return not slot or slot[0].shape[1:] == array.shape[1:]


def _is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, tf.Tensor)) or hasattr(
        value, "__array__"
    )


def _is_batch(data: Any, specs: Sequence[tf.TensorSpec]) -> bool:
    if _is_array(data) or isinstance(data, dict):
        return True
    # A list of arrays is one array per input where there are several inputs,
    # else a list of batches.
    return (
        isinstance(data, (list, tuple))
        and len(data) == len(specs) > 1
        and all(_is_array(item) for item in data)
    )


def _inputs_of(batch: Any) -> Any:
    if isinstance(batch, tuple):
        return keras.utils.unpack_x_y_sample_weight(batch)[0]
    return batch


def _flatten(
    batch: Any, structure: Any, specs: Sequence[tf.TensorSpec], seen: int
) -> list[np.ndarray]:
    inputs = _inputs_of(batch)
    _check_no_text(inputs)
    if isinstance(inputs, dict):
        names = (
            sorted(structure)
            if isinstance(structure, dict)
            else [spec.name for spec in specs]
        )
        missing = sorted(set(names) - set(inputs))
        if missing:
            raise ValueError(
                "representative_data lacks inputs of the model. Expected "
                f"{names}. Received: {sorted(map(str, inputs))}"
            )
        inputs = [inputs[name] for name in names]
    flat = [np.asarray(x) for x in keras.tree.flatten(inputs)]
    if isinstance(inputs, list) and not any(array.ndim for array in flat):
        raise ValueError(
            "representative_data holds lists of numbers. Expected arrays with "
            "samples along the first axis, as of `numpy.asarray(data)`. "
            f"Received: a list of {len(inputs)} for a batch of the model's "
            f"{len(specs)} inputs"
        )
    if len(flat) != len(specs):
        raise ValueError(
            "representative_data has another number of inputs than the "
            f"model. Expected {len(specs)}. Received: {len(flat)} arrays"
        )
    for array, spec in zip(flat, specs, strict=True):
        fits = array.ndim == len(spec.shape) and all(
            wanted is None or wanted == got
            for wanted, got in zip(
                spec.shape[1:], array.shape[1:], strict=False
            )
        )
        if not fits or len(array) != len(flat[0]):
            raise ValueError(
                f"representative_data doesn't fit the input '{spec.name}'. "
                f"Expected shape {tuple(spec.shape)}, of what the model gets "
                "behind any preprocessing, as of `model.base.preprocessor(x)` "
                f"of a task of KerasHub. Received: shape={array.shape}"
            )
    return [
        _converted(array, spec, seen)
        for array, spec in zip(flat, specs, strict=True)
    ]


def _check_no_text(inputs: Any) -> None:
    """Raises a ValueError for texts, which a preprocessor makes numbers of."""
    for array in map(np.asarray, keras.tree.flatten(inputs)):
        if array.dtype.kind in "USOT":
            raise ValueError(
                "representative_data holds texts. Expected the numbers that "
                "the model is called with, as of `model.base.preprocessor("
                "texts)` of a task of KerasHub. Received: "
                f"dtype={array.dtype}"
            )


def _converted(array: np.ndarray, spec: tf.TensorSpec, seen: int) -> np.ndarray:
    numbers = "biuf" if spec.dtype.is_floating else "biu"
    if array.dtype.kind not in numbers:
        raise ValueError(
            f"representative_data doesn't fit the input '{spec.name}'. "
            f"Expected numbers of type {spec.dtype.name}. Received: "
            f"dtype={array.dtype}"
        )
    check_finite(array, f"representative_data for '{spec.name}'", seen)
    return array.astype(spec.dtype.as_numpy_dtype)


def _random(spec: tf.TensorSpec, count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    shape = [count] + [n or _OPEN_AXIS for n in spec.shape[1:]]
    dtype = spec.dtype.as_numpy_dtype
    if spec.dtype.is_floating:
        return rng.normal(size=shape).astype(dtype)
    # 0 and 1 are valid indices of anything.
    return rng.integers(0, 2, shape).astype(dtype)

"""`msq-export evaluate`: measures a file on data with labels."""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from collections.abc import Callable
from collections.abc import Sequence

from absl import flags


def define(values: flags.FlagValues, module: str) -> None:
    """Adds the flag that only this command has."""
    flags.DEFINE_string(
        "data",
        None,
        "evaluate, look: data with labels, an .npz with the arrays x and y (or "
        "one array per input name, and y), or a data set of TFDS as name or "
        "name:split.",
        flag_values=values,
        module_name=module,
    )


def problem(arguments: Sequence[str], values: flags.FlagValues) -> str | None:
    """The mistake in a command; `None` where there is none."""
    if arguments:
        return f"evaluate takes its file as --model, not '{arguments[0]}'"
    for name, form in (("model", "m.tflite"), ("data", "cifar10:test")):
        if not values[name].value:
            return f"evaluate needs --{name}, as in --{name}={form}"
    return None


def run(
    values: flags.FlagValues,
    held_back: Callable[[], contextlib.AbstractContextManager[None]],
) -> None:
    """Evaluates a file and prints what was found.

    Args:
        values: The flags.
        held_back: Keeps what libraries print while they load to itself.
    """
    from tflite_export.inspect import inspect

    # Cheap mistakes first: loading TensorFlow takes a while.
    inputs = inspect.inspect_file(values.model).inputs
    shape = inputs[0].shape if len(inputs) == 1 else None
    with held_back():
        from tflite_export.data import dataset_samples
        from tflite_export.evaluation import scores
    # The flag is for exports, which need few.
    limit = values.samples if values["samples"].present else None
    x, y = dataset_samples.read_labelled(
        values.data,
        shape if isinstance(shape, tuple) else None,
        values.pixels,
        values.data_dir,
        limit,
    )
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", UserWarning)
        found = scores.evaluate_file(values.model, x, y)
    # Their place in this package is nothing to a user of the command.
    for warning in heard:
        print(f"msq-export: {warning.message}", file=sys.stderr)
    print(json.dumps(found) if values.json else _lines(found, len(y)))


def _lines(found: dict[str, float], count: int) -> str:
    return "\n".join(
        [f"{count:,} samples", *(f"{k}: {v:.4f}" for k, v in found.items())]
    )

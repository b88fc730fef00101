"""`msq-export look`: the page, its data, and an exit code."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

_MODELS = (".keras", ".h5", ".hdf5")


def define(values: flags.FlagValues, module: str) -> None:
    """Adds the flags that only this command has."""
    own: dict[str, Any] = {"flag_values": values, "module_name": module}
    flags.DEFINE_string(
        "node_data",
        None,
        "look: folder to write node data of Model Explorer to, a file a "
        "metric.",
        **own,
    )
    flags.DEFINE_string(
        "float_model",
        None,
        "look: float Keras model that all began with, whose answers are "
        "compared with the file's.",
        **own,
    )
    flags.DEFINE_string(
        "fail_if",
        None,
        "look: what gives the exit code 1, such as "
        '"accuracy_drop>1, max_units>4".',
        **own,
    )


def problem(arguments: Sequence[str], values: flags.FlagValues) -> str | None:
    """The mistake in a command; `None` for none."""
    if len(arguments) not in (1, 2):
        return "look takes one file, or two to be put side by side"
    if values.data and values.representative_data:
        return "--data and --representative_data exclude each other in look"
    return None


def run(
    arguments: Sequence[str],
    values: flags.FlagValues,
    held_back: Callable[[], contextlib.AbstractContextManager[None]],
    import_modules: Callable[[Sequence[str]], None],
) -> int:
    """Looks at files and writes what was asked for.

    Args:
        arguments: One or two files.
        values: The flags.
        held_back: Keeps what libraries print while they load to itself.
        import_modules: Imports the modules of `--modules`.

    Returns:
        1 where a limit of `--fail_if` is broken, else 0.

    Raises:
        ValueError: If a file or a limit is wrong, or the page can't be drawn.
    """
    from tflite_export.inspect import inspect
    from tflite_export.looking import limits

    # Cheap mistakes first: loading TensorFlow takes a while.
    if values.fail_if is not None:
        limits.parse(values.fail_if)
    shape = None
    for path in arguments:
        if not path.endswith(_MODELS):
            ports = inspect.inspect_file(path).inputs
            shape = ports[0].shape if len(ports) == 1 else shape
    with held_back():
        from msq_tf import precision_report
        from msq_tf.keras3 import loading
        from msq_tf.page import charts
        from tflite_export.looking import look as look_lib
    output = values.output
    if output is None and not values.json:
        output = str(Path(arguments[0]).with_suffix(".html"))
    if output is not None:
        try:
            charts.check_installed()
        except ImportError as error:
            raise ValueError(str(error)) from error
    import_modules(values.modules or [])
    x, y = _data(values, shape)
    model, plain = (
        loading.load_model(path) if path else None
        for path in (values.model, values.float_model)
    )
    sources: list[Any] = [
        precision_report(loading.load_model(path))
        if path.endswith(_MODELS)
        else path
        for path in arguments
    ]
    found = look_lib.look(
        *sources,
        model=model,
        float_model=plain,
        representative_data=x,
        labels=y,
        samples=values.samples,
        output=output,
    )
    if values.node_data is not None:
        found.node_data(values.node_data)
    if values.json:
        print(found.to_json())
    else:
        _print(found, output)
    failures = []
    if values.fail_if is not None:
        failures = found.failures(values.fail_if)
        for text in failures:
            print(f"msq-export: {text}", file=sys.stderr)
    return int(bool(failures))


def _print(found: Any, output: str | None) -> None:
    from tflite_export.text_tables import printable

    for line in str(found).split("\n"):
        print(printable(line))
    if output is not None:
        print(f"{output}: the page")


def _data(values: flags.FlagValues, shape: Any) -> tuple[Any, Any]:
    """Inputs and labels that the flags name."""
    from tflite_export.data import dataset_samples

    where = values.data or values.representative_data
    if not where:
        return None, None
    arguments = (
        where,
        shape if isinstance(shape, tuple) else None,
        values.pixels,
        values.data_dir,
        values.samples,
    )
    if values.data:
        return dataset_samples.read_labelled(*arguments)
    return dataset_samples.read(*arguments), None

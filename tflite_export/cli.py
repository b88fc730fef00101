"""The command line: `python -m tflite_export` and `msq-export`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

_USAGE = """Write a packed, verified TFLite file, or look into one.

  msq-export --model=m.keras --target=min_size --output=m.tflite [--data=x.npy]
  msq-export inspect file.tflite [--json]

Flags:
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: Arguments without the program's name; those of the process if
            `None`.

    Returns:
        The exit code: 0, 1 where the work failed, 2 for wrong arguments.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    values = _flags()
    try:
        positional = values(["msq-export", *arguments])[1:]
    except flags.Error as error:
        return _fail(error, 2)
    if values.help:
        print(_USAGE + values.module_help(__name__))
        return 0
    try:
        if positional[:1] == ["inspect"]:
            return _inspect(positional[1:], values)
        return _export(positional, values)
    except (ValueError, OSError) as error:
        return _fail(error, 1)


def _flags() -> flags.FlagValues:
    # Its own set: importing this module adds nothing to absl.flags.FLAGS.
    values = flags.FlagValues()
    own: dict[str, Any] = {"flag_values": values, "module_name": __name__}
    flags.DEFINE_string("model", None, "Model saved by Keras (.keras).", **own)
    flags.DEFINE_string("output", None, "File to write (.tflite).", **own)
    flags.DEFINE_string("target", "min_size", "Where it shall run.", **own)
    flags.DEFINE_string(
        "data",
        None,
        "Inputs to verify with: .npy, or .npz with one array per input name. "
        "Random inputs if not given.",
        **own,
    )
    flags.DEFINE_boolean("json", False, "Print JSON.", **own)
    flags.DEFINE_boolean("help", False, "Print this help.", **own)
    return values


def _export(positional: Sequence[str], values: flags.FlagValues) -> int:
    if positional:
        return _fail(f"unexpected argument '{positional[0]}'", 2)
    for name in ("model", "output"):
        if not values[name].value:
            return _fail(f"--{name} is missing; see --help", 2)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from tflite_export import exporting
    from tflite_export import targets

    # Cheap mistakes first: loading TensorFlow and a model takes a while.
    targets.load(values.target)
    data = _read_data(values.data) if values.data else None
    report = exporting.export(
        _load_model(values.model),
        values.output,
        target=values.target,
        representative_data=data,
    )
    print(report.to_json() if values.json else report)
    return 0


def _inspect(paths: Sequence[str], values: flags.FlagValues) -> int:
    if len(paths) != 1:
        return _fail("inspect takes one file", 2)
    from tflite_export import inspection

    info = inspection.inspect_file(paths[0])
    print(info.to_json() if values.json else info)
    return 0


def _load_model(path: str) -> Any:
    import keras

    import msq_tf  # noqa: F401 (registers the classes of saved models)

    if not os.path.exists(path):
        raise ValueError(f"No such model. Received: --model={path}")
    return keras.models.load_model(path, compile=False)


def _read_data(path: str) -> Any:
    loaded = np.load(path, allow_pickle=False)
    return dict(loaded) if hasattr(loaded, "files") else loaded


def _fail(message: object, code: int) -> int:
    print(f"msq-export: {' '.join(str(message).split())}", file=sys.stderr)
    return code

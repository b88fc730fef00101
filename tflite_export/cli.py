"""The command line: `python -m tflite_export` and `msq-export`."""

from __future__ import annotations

import importlib
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from tflite_export import device_flags
from tflite_export import quiet
from tflite_export.evaluation import command as evaluate_command
from tflite_export.looking import command as look_command

_USAGE = """Write packed, verified TFLite files for devices, or look into files.

Export a model for one target or several:
  msq-export --model=m.keras --target=min_size --output=m.tflite
  msq-export --model=m.keras --target=cpu_int8,ethos_u --output_dir=out \\
      --representative_data=cifar10:train
What a file holds, and what in it a target can't run (then the exit code is 1):
  msq-export inspect m.tflite [--target=edgetpu] [--json]
Two files side by side, their outputs, sizes and latencies:
  msq-export compare a.tflite b.tflite [--representative_data=x.npy] [--json]
What quantization did to a model, as a page; the exit code for CI:
  msq-export look m.tflite [b.tflite] [--model=m.keras] [--output=m.html] \\
      [--float_model=float.keras] \\
      [--representative_data=x.npy | --data=cifar10:test] [--json] \\
      [--node_data=folder] [--fail_if="accuracy_drop>1, max_units>4"]
What a file is worth on data with labels:
  msq-export evaluate --model=m.tflite --data=cifar10:test [--json]

Targets:
{targets}

Flags:
{flags}"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: Arguments without the program's name; those of the process if
            `None`.

    Returns:
        The exit code: 0, 1 where the work failed or a rule is broken, 2 for
        wrong arguments.
    """
    for stream in (sys.stdout, sys.stderr):
        # A name that the output's encoding does not have is no failure.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    arguments = list(sys.argv[1:] if argv is None else argv)
    values = _flags()
    try:
        positional = values(["msq-export", *arguments])[1:]
    except flags.Error as error:
        return _fail(error, 2)
    if values.help:
        print(_help(values))
        return 0
    try:
        if positional[:1] == ["inspect"]:
            return _inspect(positional[1:], values)
        if positional[:1] == ["compare"]:
            return _compare(positional[1:], values)
        if positional[:1] == ["look"]:
            problem = look_command.problem(positional[1:], values)
            if problem:
                return _fail(problem, 2)
            return look_command.run(
                positional[1:], values, quiet.loading, _import
            )
        if positional[:1] == ["evaluate"]:
            problem = evaluate_command.problem(positional[1:], values)
            if problem:
                return _fail(problem, 2)
            evaluate_command.run(values, quiet.loading)
            return 0
        return _export(positional, values)
    except (ValueError, OSError) as error:
        return _fail(error, 1)


# Flags that are arguments of `export`.
_SETTINGS = (
    "samples",
    "batch_size",
    "integer_io",
    "max_units",
    "min_agreement",
    "verify_on",
)


def _flags() -> flags.FlagValues:
    # Its own set: importing this module adds nothing to absl.flags.FLAGS.
    values = flags.FlagValues()
    own: dict[str, Any] = {"flag_values": values, "module_name": __name__}
    flags.DEFINE_string(
        "model",
        None,
        "Model of msq_tf.quantize_model, saved by Keras 3 (.keras).",
        **own,
    )
    flags.DEFINE_list(
        "modules",
        None,
        "Modules to import first, installed or in the working directory, that "
        "register classes of the model.",
        **own,
    )
    flags.DEFINE_list(
        "target",
        None,
        "Target of the file; several targets with commas between them. "
        "Default: min_size.",
        **own,
    )
    flags.DEFINE_string("output", None, "File to write (.tflite).", **own)
    flags.DEFINE_string(
        "output_dir",
        None,
        "Folder for <model>_<target>.tflite, in place of --output.",
        **own,
    )
    flags.DEFINE_string(
        "representative_data",
        None,
        "Inputs to measure ranges and to verify with: an .npy, an .npz with "
        "one array per input name, a folder of images, or a data set of TFDS "
        "as name or name:split. Default: random inputs, if ranges need no "
        "data.",
        **own,
    )
    flags.DEFINE_enum(
        "pixels",
        "unit",
        ["unit", "signed", "raw"],
        "Input range of the model for images: 0..1, -1..1 or 0..255.",
        **own,
    )
    flags.DEFINE_string(
        "data_dir", None, "Folder of prepared TFDS data sets.", **own
    )
    flags.DEFINE_integer(
        "samples", 64, "Largest number of inputs to use.", 1, **own
    )
    flags.DEFINE_integer(
        "batch_size",
        None,
        "Fixed batch size of the file. Default: open, 1 for devices.",
        lower_bound=1,
        **own,
    )
    flags.DEFINE_boolean(
        "integer_io",
        None,
        "Whether inputs and outputs of integer targets are integers, too. "
        "Default: as the target prefers.",
        **own,
    )
    flags.DEFINE_integer(
        "max_units",
        None,
        "Integer targets: largest accepted difference of an output, in units. "
        "Default: 2 (16-bit: 16), or what single units explain.",
        lower_bound=0,
        **own,
    )
    flags.DEFINE_float(
        "min_agreement",
        None,
        "Integer targets: share of the decisions on representative_data that "
        "must be those of Keras. Default: 0.97 if the outputs are classes.",
        lower_bound=0.0,
        upper_bound=1.0,
        **own,
    )
    device_flags.define(own)
    flags.DEFINE_list(
        "verify_on",
        [],
        "Where to run the files besides: some of arm, gpu, web.",
        **own,
    )
    evaluate_command.define(values, __name__)
    look_command.define(values, __name__)
    flags.DEFINE_boolean("json", False, "Print JSON.", **own)
    flags.DEFINE_boolean("help", False, "Print this help.", **own)
    return values


def _help(values: flags.FlagValues) -> str:
    from tflite_export import targets

    rows = (targets.load(name) for name in targets.names())
    return _USAGE.format(
        targets="\n".join(f"  {t.name:10} {t.summary}" for t in rows),
        flags=values.module_help(__name__),
    )


def _export(positional: Sequence[str], values: flags.FlagValues) -> int:
    if positional:
        return _fail(f"unexpected argument '{positional[0]}'", 2)
    if not values.model:
        return _fail("--model is missing; see --help", 2)
    if (values.output is None) == (values.output_dir is None):
        return _fail(
            "--output is missing, or --output_dir; see --help"
            if values.output is None
            else "--output and --output_dir exclude each other",
            2,
        )
    wanted = values.target or ["min_size"]
    if values.output is not None and len(wanted) > 1:
        return _fail("several targets need --output_dir", 2)
    # Cheap mistakes first: loading TensorFlow and a model takes a while.
    options = {name: device_flags.options(name, values) for name in wanted}
    device_flags.check_owners(wanted, values)
    if not os.path.exists(values.model):
        raise ValueError(
            "No such model. Expected a file that `model.save` wrote. "
            f"Received: --model={values.model}"
        )
    paths = _paths(wanted, values)
    with quiet.start():
        from msq_tf.keras3 import loading
        from tflite_export import exporting

        quiet.make_delegates()
    _import(values.modules or [])
    model = loading.load_model(values.model)
    data = _read_data(values, getattr(model.base, "input_shape", None))
    settings: dict[str, Any] = {"representative_data": data}
    for name in _SETTINGS:
        if values[name].value is not None:
            settings[name] = values[name].value
    reports = []
    for name in wanted:
        if options[name]:
            settings["device_options"] = options[name]
        report = exporting.export(model, paths[name], target=name, **settings)
        settings.pop("device_options", None)
        reports.append(report)
        if not values.json:
            print(report)
    if values.json:
        texts = [json.loads(report.to_json()) for report in reports]
        print(json.dumps(texts[0] if values.output else texts, indent=2))
    return 0


def _import(names: Sequence[str]) -> None:
    if names:
        # Where `python -m` looks first and an installed command does not.
        sys.path.insert(0, os.getcwd())
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ValueError(
                f"A module can't be imported ({error}). Expected one that is "
                f"installed or in the working directory. Received: {name!r}"
            ) from error


def _paths(wanted: Sequence[str], values: flags.FlagValues) -> dict[str, Path]:
    if values.output is not None:
        return {wanted[0]: Path(values.output)}
    folder = Path(values.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    stem = Path(values.model).stem
    return {name: folder / f"{stem}_{name}.tflite" for name in wanted}


def _inspect(paths: Sequence[str], values: flags.FlagValues) -> int:
    if len(paths) != 1:
        return _fail("inspect takes one file", 2)
    from tflite_export import files
    from tflite_export import targets
    from tflite_export.flatbuffer import model as fb
    from tflite_export.inspect import inspect
    from tflite_export.targets import lint

    wanted = values.target or []
    for name in wanted:
        targets.load(name)
    info = inspect.inspect_file(paths[0])
    found: dict[str, list[lint.Finding]] = {}
    if wanted:
        data = files.read_bytes(paths[0], fb.check_identifier)
        model = fb.load(data)
        found = {name: lint.check_model(model, name) for name in wanted}
    if values.json:
        tree = inspect.fields(info)
        # Piece by piece: a large file has a lot of it.
        sys.stdout.writelines(
            inspect.json_pieces(tree | {"findings": found} if wanted else tree)
        )
        print()
    else:
        print(info)
        for name, findings in found.items():
            print(lint.summary(name, findings))
    return int(any(lint.severe(findings) for findings in found.values()))


def _compare(paths: Sequence[str], values: flags.FlagValues) -> int:
    if len(paths) != 2:
        return _fail("compare takes two files", 2)
    from tflite_export.inspect import compare
    from tflite_export.inspect import inspect

    shape = None
    if values.representative_data:
        inputs = inspect.inspect_file(paths[0]).inputs
        shape = inputs[0].shape if len(inputs) == 1 else None
    data = _read_data(values, shape)
    result = compare.compare_files(paths[0], paths[1], data)
    print(result.to_json() if values.json else result)
    return 0


def _read_data(values: flags.FlagValues, shape: Any) -> Any:
    if not values.representative_data:
        return None
    from tflite_export.data import dataset_samples

    with quiet.start():  # a data set by name loads TensorFlow
        return dataset_samples.read(
            values.representative_data,
            shape if isinstance(shape, tuple) else None,
            values.pixels,
            values.data_dir,
            values.samples,
        )


def _fail(message: object, code: int) -> int:
    from tflite_export.text_tables import printable

    text = printable(" ".join(str(message).split()))
    print(f"msq-export: {text}", file=sys.stderr)
    return code

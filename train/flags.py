"""The flags of `python -m train`."""

from __future__ import annotations

import dataclasses

from absl import flags

from train import recipes
from train import settings as settings_lib

_FLAGS = flags.FLAGS
_PACKED_BITS = (8, 4, 2)
# Epochs of a run for all sizes, in those of a run for one.
_FRONT_TIMES = 2.5

flags.DEFINE_string(
    "model",
    "resnet8",
    "Model to train: resnet8, resnet20, mobilenet_v2, vit_micro, swin_micro, "
    "deit_tiny, swin_tiny or "
    "keras.applications.<Name>. With --start_from it is only a label.",
)
flags.DEFINE_string(
    "dataset",
    "fashion_mnist_mini",
    "Data set to train on: fashion_mnist_mini, which is embedded, or any image "
    "classification data set of TFDS, such as cifar10.",
)
flags.DEFINE_string("output_dir", None, "Folder for the results.")
flags.DEFINE_string(
    "data_dir",
    None,
    "Folder of prepared TFDS data sets. Default: TFDS's own folder, to which a "
    "missing data set is downloaded.",
)
flags.DEFINE_string(
    "start_from",
    None,
    "A model to quantize, in place of the float training: one saved by Keras "
    "(.keras or .h5) or a .tflite file.",
)
flags.DEFINE_integer("seed", 0, "Seed of everything random.")
flags.DEFINE_bool(
    "resume",
    False,
    "Continue the run in --output_dir, or start it if there is none: repeat "
    "the same command until the run ends.",
)
flags.DEFINE_bool("overwrite", False, "Replace the run in --output_dir.")

flags.DEFINE_enum(
    "distribution",
    "none",
    settings_lib.DISTRIBUTIONS,
    "Where to train: on one device (none), on several devices of this machine "
    "(mirrored), or on several machines, each of which runs this command with "
    "its own TF_CONFIG (multi_worker). Every batch is split over the devices.",
)
flags.DEFINE_list(
    "devices",
    None,
    "Devices for --distribution=mirrored, such as GPU:0,GPU:1. Default: all "
    "GPUs. CPU:0,CPU:1 splits the CPU, for a trial.",
)
flags.DEFINE_float(
    "worker_timeout",
    600.0,
    "Seconds that a worker waits for the others, at the start and in every "
    "exchange, before it gives up. Set it longer than the loading of the data.",
)
flags.DEFINE_bool(
    "sync_batch_norm",
    True,
    "Whether batch norm takes its statistics over the whole batch, as on one "
    "device. If not, it takes them over each device's part, which saves a "
    "message for each layer.",
)

flags.DEFINE_float(
    "target_compression",
    8.0,
    "Compression to reach: 32 divided by the mean stored bits of an element, "
    "the sign included.",
)
flags.DEFINE_float(
    "target_latency_ms",
    None,
    "Milliseconds of an inference to reach on --target_device, in place of "
    "--target_compression or together with it.",
)
flags.DEFINE_integer(
    "target_ram",
    None,
    "Bytes of RAM to keep to on --target_device, without the weights.",
)
flags.DEFINE_string(
    "target_device",
    None,
    "What predicts the latency or RAM: ethos_u:<accelerator>, such as "
    "ethos_u:ethos-u55-128; cpu_int8 or min_size for latency on one thread of "
    "the processor that was measured; mcu for RAM.",
)
flags.DEFINE_float(
    "max_drop",
    None,
    "Points of accuracy that the model may lose against the float model, in "
    "place of --target_compression: the run ends with the smallest model that "
    "keeps it on training examples that are held out. Takes twice the epochs "
    "of fine-tuning, unless --epochs says how many.",
)
flags.DEFINE_integer(
    "stages",
    1,
    "Sizes on the way to --target_compression, at equal ratios: the run "
    "fine-tunes at each, and writes files of all models that no other beats in "
    "bytes and in accuracy on training examples that are held out. Takes 2.5 "
    "times the epochs of fine-tuning, unless --epochs says how many.",
)
flags.DEFINE_list(
    "allowed_bits",
    None,
    "Widths that a layer may have; `all` for 8 down to --min_bits. Default of "
    "the budget rule: 8,4,2, the widths that a packed file stores.",
)
flags.DEFINE_integer("min_bits", 2, "Fewest bits of a layer.")
flags.DEFINE_integer(
    "activation_bits",
    None,
    "Bits of activations in MSQ training: 8 or 16 for integer targets. "
    "Default: float activations, which integer targets calibrate on training "
    "images.",
)
flags.DEFINE_enum(
    "rule",
    "budget",
    settings_lib.RULES,
    "The rule that chooses bits: budget always reaches its target; threshold "
    "is the paper's rule.",
)
flags.DEFINE_list(
    "targets",
    ["cpu_float", "min_size"],
    "Export targets: one .tflite file is written for each; `all` for "
    "all that fit --activation_bits and need no tools of a vendor.",
)
flags.DEFINE_list(
    "verify_on",
    [],
    "Where to run the files besides this machine: arm, for emulated cores "
    "(`make setup-arm`); web, for LiteRT.js in Node (`make setup-web`); gpu, "
    "for LiteRT's GPU accelerator, where there is a Vulkan.",
)
flags.DEFINE_float(
    "max_accuracy_drop",
    None,
    "Points of test accuracy that quantization may cost; with a larger drop "
    "the run counts as failed. Default: a drop is only reported.",
)

flags.DEFINE_integer("float_epochs", None, "Epochs of float training.")
flags.DEFINE_integer("epochs", None, "Epochs of fine-tuning with MSQ.")
flags.DEFINE_integer("batch_size", None, "Examples in a step.")
flags.DEFINE_enum(
    "optimizer", None, recipes.OPTIMIZERS, "Optimizer of both phases."
)
flags.DEFINE_float(
    "float_learning_rate", None, "Peak learning rate of float training."
)
flags.DEFINE_float(
    "learning_rate", None, "First learning rate of fine-tuning with MSQ."
)
flags.DEFINE_float("weight_decay", None, "Decoupled weight decay of kernels.")
flags.DEFINE_integer("shift", None, "Largest random shift, in pixels.")
flags.DEFINE_bool("flip", None, "Whether half of the images are mirrored.")
flags.DEFINE_bool("mixed_precision", False, "Train with float16 activations.")

flags.DEFINE_enum(
    "pixels",
    "unit",
    list(settings_lib.PIXELS),
    "Input range of the model: unit is 0..1, signed is -1..1, raw is 0..255.",
)
flags.DEFINE_integer("image_size", None, "Resize images to this size.")
flags.DEFINE_integer(
    "train_examples", None, "Number of training examples to use."
)
flags.DEFINE_integer("test_examples", None, "Number of test examples to use.")
flags.DEFINE_float("width_multiplier", 1.0, "Width of mobilenet_v2 (alpha).")


def settings() -> settings_lib.Settings:
    """Returns the settings that the parsed flags state.

    Raises:
        ValueError: If a flag is missing, malformed or contradicts another.
    """
    if not _FLAGS.output_dir:
        raise ValueError(
            "There is no place for the results. Expected "
            f"--output_dir=<folder>. Received: output_dir={_FLAGS.output_dir}"
        )
    # Those without a default here have one in the data set's recipe.
    recipe = recipes.for_dataset(
        _FLAGS.dataset,
        **{
            field.name: _FLAGS[field.name].value
            for field in dataclasses.fields(recipes.Recipe)
        },
    )
    if _FLAGS.max_drop is not None:
        if _FLAGS["target_compression"].present:
            raise ValueError(
                "The size follows from a tolerance. Expected one of "
                "--max_drop and --target_compression. Received: "
                f"max_drop={_FLAGS.max_drop:g}, "
                f"target_compression={_FLAGS.target_compression:g}"
            )
        if _FLAGS.epochs is None:
            recipe = dataclasses.replace(recipe, epochs=2 * recipe.epochs)
    elif _FLAGS.stages > 1 and _FLAGS.epochs is None:
        epochs = max(_FLAGS.stages, round(_FRONT_TIMES * recipe.epochs))
        recipe = dataclasses.replace(recipe, epochs=epochs)
    given = {
        field.name: _FLAGS[field.name].value
        for field in dataclasses.fields(settings_lib.Settings)
        if field.name != "recipe"
    }
    budgets = _FLAGS.target_latency_ms, _FLAGS.target_ram
    if budgets != (None, None) and not _FLAGS["target_compression"].present:
        given["target_compression"] = None
    given |= {
        "recipe": recipe,
        "allowed_bits": _allowed_bits(
            _FLAGS.allowed_bits, _FLAGS.rule, _FLAGS.target_device
        ),
        "targets": tuple(_FLAGS.targets),
        "verify_on": tuple(_FLAGS.verify_on),
        "devices": tuple(_FLAGS.devices) if _FLAGS.devices else None,
    }
    return settings_lib.Settings(**given)


def _allowed_bits(
    values: list[str] | None, rule: str, device: str | None
) -> tuple[int, ...] | None:
    if values is None:
        if device is not None:  # those that pay there
            return None
        return _PACKED_BITS if rule == "budget" else None
    if values == ["all"]:
        return None
    try:
        return tuple(int(value) for value in values)
    except ValueError:
        raise ValueError(
            "--allowed_bits is no list of widths. Expected `all`, or numbers "
            f"such as 8,4,2. Received: allowed_bits={','.join(values)}"
        ) from None

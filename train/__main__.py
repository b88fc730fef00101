r"""Trains a Keras model, quantizes it with MSQ and exports verified files.

    python -m train --output_dir=out/run
    python -m train --model=resnet20 --dataset=cifar10 --data_dir=$HOME/tfds \
        --target_compression=10 --output_dir=out/run
    python -m train --start_from=mine.keras --dataset=cifar10 \
        --output_dir=out/run
    python -m train ... --output_dir=out/run --resume
    python -m train ... --output_dir=out/run --distribution=mirrored

The data set decides the default epochs and learning rates: see
train/recipes.py.

Written to the output folder: model.keras, float.tflite, one .tflite for each
target, report.json, bits.png, index.html (the page of one of the files),
history.jsonl and checkpoints. Exit code: 0 when every verification passed, 1
when one failed, 2 when the run could not be done.
"""

from __future__ import annotations

import sys

from absl import app
from absl import flags
from absl import logging

from tflite_export import quiet
from train import flags as train_flags
from train import streams
from train.errors import WorkerLostError


def main(argv: list[str]) -> int:
    """Runs what the parsed flags say, and returns the exit code."""
    try:
        if argv[1:]:
            raise ValueError(
                "There are arguments that belong to no flag. Expected "
                f"--flag=value only. Received: {' '.join(argv[1:])}"
            )
        settings = train_flags.settings()
        # TensorFlow takes seconds to import: not before the flags are known
        # to be right, and not for `--help`.
        with quiet.start():
            from train import pipeline

            quiet.make_delegates()
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
        results = pipeline.run(settings)
    except (ValueError, OSError, WorkerLostError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if results is None or results.passed else 1


if __name__ == "__main__":
    streams.outlast()
    flags.FLAGS.set_gnu_getopt(True)
    flags.adopt_module_key_flags(train_flags)
    app.run(main)

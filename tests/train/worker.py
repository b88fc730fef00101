"""`python -m train` on a model whose training is the same on any devices.

python -m tests.train.worker STEP --flag=value ...

STEP is the step of MSQ training before which the process ends itself, as a
scheduler would end it; 0 is none. Before step -STEP it lives on and does
nothing any more. At steps 20, 120, and so on it prints how many threads it has.
"""

from __future__ import annotations

import itertools
import os
import pathlib
import signal
import sys
import threading

import keras
from absl import app
from absl import flags

from msq_tf.search.callback import SearchCallback
from train import __main__ as command
from train import flags as train_flags
from train.models import builders


def even(shape: builders.Shape, classes: int, _: float) -> keras.Model:
    """No randomness, and no edge at which a last bit makes a difference."""
    inputs = keras.Input(shape, name="image")
    x = keras.layers.Conv2D(4, 3, strides=4, name="a")(inputs)
    x = keras.layers.BatchNormalization(momentum=0.5, name="a_bn")(x)
    x = keras.layers.Activation("tanh", name="a_tanh")(x)
    x = keras.layers.Conv2D(8, 3, strides=2, name="b")(x)
    x = keras.layers.Flatten(name="flat")(x)
    outputs = keras.layers.Dense(classes, name="logits")(x)
    return keras.Model(inputs, outputs, name="even")


def end_before(step: int) -> None:
    """Ends this process before a step of the search, or has it wait there."""
    counts = itertools.count(1)
    batch_end = SearchCallback.on_train_batch_end

    def count_or_end(self, batch, logs=None):
        batch_end(self, batch, logs)
        count = next(counts)
        if count % 100 == 20:
            print(f"step {count}: {held('Threads')} threads", flush=True)
        if count == step:
            os.kill(os.getpid(), signal.SIGTERM)
        if count == -step:
            threading.Event().wait()

    SearchCallback.on_train_batch_end = count_or_end


def held(name: str) -> int:
    """A number of this process's state, as Linux has it."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1])


if __name__ == "__main__":
    builders.BUILDERS["even"] = even
    end_before(int(sys.argv.pop(1)))
    flags.adopt_module_key_flags(train_flags)
    app.run(command.main)

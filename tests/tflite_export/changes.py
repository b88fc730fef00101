"""Valid files with one thing changed."""

from __future__ import annotations

import numpy as np

from benchmarks.reliability import fuzz_seeds
from tflite_export.flatbuffer import model as fb


def changed(name, change):
    """The bytes of a seed after a change to its objects."""
    model = fb.load(fuzz_seeds.seeds()[name])
    change(model, model.subgraphs[0])
    return fb.dump(model)


def put(path, value):
    """A change that sets one attribute, `"tensors.0.shape"`."""

    def change(model, graph):
        *way, last = path.split(".")
        target = model if way[:1] == ["model"] else graph
        for step in way[way[:1] == ["model"] :]:
            target = (
                target[int(step)] if step.isdigit() else getattr(target, step)
            )
        setattr(target, last, value)

    return change


def ints(*values):
    return np.array(values, np.int32)

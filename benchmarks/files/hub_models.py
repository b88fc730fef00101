"""KerasHub's families, built from small configurations within seconds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from benchmarks.files import hub_newer
from benchmarks.files import hub_scenes
from benchmarks.files import hub_text
from benchmarks.files import hub_vision
from benchmarks.files.hub_rows import Part
from benchmarks.files.hub_rows import Port
from benchmarks.files.hub_rows import Row
from benchmarks.files.zoo_models import settle

ROWS = (
    *hub_text.ROWS,
    *hub_newer.ROWS,
    *hub_vision.ROWS,
    *hub_scenes.ROWS,
)

Inputs = np.ndarray | dict[str, np.ndarray]


def row(name: str) -> Row:
    """Returns the row of a name."""
    return next(row for row in ROWS if row.name == name)


def build(row: Row, *, task: bool = True) -> keras.Model:
    """Builds a row's model, with weights as training leaves them.

    Args:
        row: Which.
        task: The task of the row where it has one, with logits as outputs;
            else the backbone.
    """
    keras.utils.set_random_seed(0)
    model = _part(row.backbone)
    if task and row.task is not None:
        config = {"preprocessor": None, **row.task.config}
        model = _part(Part(row.task.of, {"backbone": model, **config}))
    _enliven(model, inputs(row, 8, seed=1))
    return model


def inputs(row: Row, count: int, seed: int) -> Inputs:
    """Random inputs as the model's `call` takes them.

    Args:
        row: Whose.
        count: How many examples.
        seed: Seed of the generator.

    Returns:
        An array, or a dict of arrays, of which the first axis has `count`
        examples.
    """
    rng = np.random.default_rng(seed)
    if isinstance(row.ports, Port):
        return row.ports.examples(count, rng)
    return {name: port.examples(count, rng) for name, port in row.ports.items()}


def _part(part: Part) -> Any:
    import keras_hub

    config = {
        key: _part(value) if isinstance(value, Part) else value
        for key, value in part.config.items()
    }
    # The last two are not public, as parts of what is.
    from keras_hub.src.models.retinanet import retinanet_label_encoder
    from keras_hub.src.models.vae import vae_backbone

    places = (
        keras_hub.models,
        keras_hub.layers,
        retinanet_label_encoder,
        vae_backbone,
    )
    place = next(place for place in places if hasattr(place, part.of))
    return getattr(place, part.of)(**config)


def _enliven(model: keras.Model, samples: Inputs) -> None:
    """Gives fresh weights sizes at which all layers matter.

    KerasHub draws weights of a deviation of 0.02, for wide models; in narrow
    ones their products vanish, and nothing that is compared could fail.
    """
    rng = np.random.default_rng(0)
    for variable in _variables(model):
        value = np.asarray(variable)
        if not np.issubdtype(value.dtype, np.floating) or not value.size:
            continue
        if value.ndim < 2:
            drift = rng.normal(scale=0.1, size=value.shape)
            variable.assign(value + drift.astype(value.dtype))
            continue
        scale = float(np.sqrt(np.mean(np.square(value, dtype=np.float64))))
        wanted = min(0.5, 1.0 / np.sqrt(np.prod(value.shape[:-1])))
        if scale < wanted:
            noise = rng.normal(scale=wanted, size=value.shape)
            variable.assign(noise.astype(value.dtype))
    settle(model, samples)


def _variables(model: keras.Model) -> Iterator[Any]:
    """The trainable variables, each once."""
    seen = set()
    for variable in model.trainable_variables:
        if id(variable) not in seen:
            seen.add(id(variable))
            yield variable

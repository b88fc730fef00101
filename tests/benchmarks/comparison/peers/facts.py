"""What a driver makes of two layers, written down in its own environment.

    python -m tests.benchmarks.comparison.peers.facts MODULE RESULT ROW...

Runs where only the peer is installed; the tests look at what it wrote.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np

from benchmarks.comparison.peers import driver
from benchmarks.harness import peer_network

# Of a fraction where the peer rounds, zero, and more than the start.
WIDTHS = (0.0, 1.0, 2.4, 2.6, 3.0, 5.0, 9.0)


def write(module: str, result: Path, rows: list[str]) -> None:
    """Trains every row for two steps and writes what came of it."""
    source = importlib.import_module(f"benchmarks.comparison.peers.{module}")
    (kind,) = (
        value
        for value in vars(source).values()
        if isinstance(value, type)
        and issubclass(value, driver.Driver)
        and value is not driver.Driver
    )
    peer = kind()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 8, 8, 1)).astype(np.float32)
    y = rng.integers(0, 3, 32)
    start = peer.float_model(peer_network.two_layers, None)
    weights = {
        name: rng.normal(scale=0.3, size=variable.shape).astype(np.float32)
        for name, variable in peer_network.variables(start).items()
    }
    # A variance is positive.
    for name in weights:
        if name.endswith("variance"):
            weights[name] = np.abs(weights[name]) + 0.5
    facts = {}
    arrays: dict[str, np.ndarray] = {}
    for number, row in enumerate((driver.FLOAT, *rows)):
        model = peer.model(row, peer_network.two_layers, weights)
        at_start = model.predict(x, verbose=0)
        peer.compile(model, row, 0.01)
        for _ in range(2):
            model.train_on_batch(x, y)
        facts[row] = {
            "trainable": driver.elements(model.trainable_variables),
            "slots": driver.slots(model.optimizer),
        }
        arrays[f"{number}/start"] = at_start
        if row == driver.FLOAT:
            continue
        if module == "hgq2":
            _spread_widths(model, rng, arrays, number)
        # Of latent weights and ranges as they are now.
        arrays[f"{number}/outputs"] = model.predict(x, verbose=0)
        values = peer.values(model)
        arrays |= {f"{number}/{name}": v for name, v in values.items()}
        facts[row]["stored"] = driver.sizes(peer.stored(model))
        # The same network in float, with the quantized values.
        plain = peer.float_model(peer_network.two_layers, None)
        for name, variable in peer_network.variables(plain).items():
            if not name.endswith("/kernel"):
                variable.assign(_variable(model, name).numpy())
        for name, value in values.items():
            plain.get_layer(name).kernel.assign(value)
        arrays[f"{number}/plain"] = plain.predict(x, verbose=0)
    np.savez(result, facts=json.dumps(facts), **arrays)


def _variable(model: object, name: str) -> object:
    layer, attribute = name.split("/")
    model = getattr(model, "base", model)
    names = [layer, f"quant_{layer}"]
    (found,) = (each for each in model.layers if each.name in names)
    return getattr(getattr(found, "layer", found), attribute)


def _spread_widths(
    model: object,
    rng: np.random.Generator,
    arrays: dict[str, np.ndarray],
    number: int,
) -> None:
    """Gives elements widths that no training of two steps would."""
    for layer in model.layers:
        if hasattr(layer, "kq"):
            bits, integer = (
                next(v for v in layer.kq.weights if v.name == name)
                for name in ("b", "i")
            )
            bits.assign(rng.choice(WIDTHS, bits.shape))
            shape = layer.kernel.shape
            for name, variable in (("b", bits), ("i", integer)):
                arrays[f"{number}/{layer.name}/{name}"] = np.broadcast_to(
                    variable.numpy(), shape
                )


if __name__ == "__main__":
    write(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])

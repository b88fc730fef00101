"""Finds what a model takes on a device, before the first step.

Milliseconds and RAM, and what its weights are stored in, where that is no
matter of their kind alone.
"""

from __future__ import annotations

import dataclasses
import importlib
import warnings
from typing import Any

import tensorflow as tf

from msq_tf.core.file_facts import FileFacts
from msq_tf.core.quantized_network import QuantizedNetwork
from msq_tf.rules.device_costs import DeviceCosts
from msq_tf.rules.rule import Rule
from msq_tf.sensitivity.statistics import layer_outlines

# It imports this package, so it is looked up when it is needed.
_EXPORTER = "tflite_export.predicting"
# Samples of an example: what a file takes does not depend on their number.
_EXAMPLES = 8


def find(rule: Rule, network: QuantizedNetwork, inputs: Any = None) -> None:
    """Gives a network the costs that a rule with budgets on a device needs.

    Those that the rule was given count; else those that the network has from an
    interrupted search, so that it goes on with the same figures; else those
    that `tflite_export.device_costs` finds.

    Args:
        rule: What needs them.
        network: The model.
        inputs: Some inputs of it, for shapes that it does not tell by itself.

    Raises:
        ValueError: If they do not fit the model, or the device can't run it.
    """
    search = network.search
    device = str(getattr(rule, "device", None) or "")
    example = _example(network, inputs)
    search.file_facts = _facts(rule, network, device, example)
    if not rule.uses_costs_of_device:
        return
    given: DeviceCosts | None = getattr(rule, "costs", None)
    if given is not None:
        search.device_costs = given
        return
    kept = search.device_costs
    if kept is None or kept.device != device:
        search.device_costs = _exporter().device_costs(
            network, device, representative_data=example
        )


def _example(network: QuantizedNetwork, inputs: Any) -> Any:
    """A few inputs of a model that has none, or some of open sizes."""
    base: Any = getattr(network, "base", None)  # A ModelView has its model.
    known = [tuple(x.shape[1:]) for x in getattr(base, "inputs", None) or ()]
    tells = bool(known) and all(None not in axes for axes in known)
    if base is None or inputs is None or tells:
        return None
    return tf.nest.map_structure(lambda array: array[:_EXAMPLES], inputs)


def _facts(
    rule: Rule, network: QuantizedNetwork, device: str, example: Any
) -> FileFacts:
    """What is known of the device's files, and what a rule asks besides."""
    facts = network.search.file_facts
    if facts.device != device:
        facts = FileFacts(device)
    layers = layer_outlines(network)
    if rule.uses_containers(layers) and not facts.containers:
        found = _exporter().stored_bits(network, device, example)
        containers = tuple(found[path] for path in network.paths)
        facts = dataclasses.replace(facts, containers=containers)
    if rule.uses_file_overhead(layers) and not facts.counts:
        overhead = _overhead(network, device, example)
        facts = dataclasses.replace(facts, counts=True, overhead=overhead)
    return facts


def _overhead(
    network: QuantizedNetwork, device: str, example: Any
) -> float | None:
    try:
        overhead: float = _exporter().file_overhead(network, device, example)
    except ValueError as error:  # An ExportError is one.
        warnings.warn(
            f"No file for {device} tells what it has besides codes, so its "
            "bytes are estimated from the weights alone. A file may be larger, "
            f"or there is none: {error}",
            stacklevel=2,
        )
        return None
    return overhead


def _exporter() -> Any:
    return importlib.import_module(_EXPORTER)

"""Finds what a model takes on a device, before the first step.

Milliseconds and RAM, and what its weights are stored in, where that is no
matter of their kind alone.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
from typing import Any

from msq_tf.core.file_facts import FileFacts
from msq_tf.core.quantized_network import QuantizedNetwork
from msq_tf.rules.device_costs import DeviceCosts
from msq_tf.rules.rule import Rule
from msq_tf.sensitivity.statistics import layer_outlines

# It imports this package, so it is looked up when it is needed.
_EXPORTER = "tflite_export.predicting"

_logger = logging.getLogger("msq_tf")


def find(rule: Rule, network: QuantizedNetwork) -> None:
    """Gives a network the costs that a rule with budgets on a device needs.

    Those that the rule was given count; else those that the network has from an
    interrupted search, so that it goes on with the same figures; else those
    that `tflite_export.device_costs` finds.

    Raises:
        ValueError: If they do not fit the model, or the device can't run it.
    """
    search = network.search
    device = str(getattr(rule, "device", None))
    search.file_facts = _facts(rule, network, device)
    if not rule.uses_costs_of_device:
        return
    given: DeviceCosts | None = getattr(rule, "costs", None)
    if given is not None:
        search.device_costs = given
        return
    kept = search.device_costs
    if kept is None or kept.device != device:
        search.device_costs = _found(network, device)


def _facts(rule: Rule, network: QuantizedNetwork, device: str) -> FileFacts:
    """What is known of the device's files, and what a rule asks besides."""
    facts = network.search.file_facts
    if facts.device != device:
        facts = FileFacts(device)
    layers = layer_outlines(network)
    if rule.uses_containers(layers) and not facts.containers:
        found = _exporter().stored_bits(network, device)
        containers = tuple(found[path] for path in network.paths)
        facts = dataclasses.replace(facts, containers=containers)
    if rule.uses_file_overhead(layers) and not facts.counts:
        overhead = _overhead(network, device)
        facts = dataclasses.replace(facts, counts=True, overhead=overhead)
    return facts


def _overhead(network: QuantizedNetwork, device: str) -> float | None:
    try:
        overhead: float = _exporter().file_overhead(network, device)
    except ValueError as error:  # An ExportError is one.
        _logger.info("bytes of the file are estimated: %s", error)
        return None
    return overhead


def _found(network: QuantizedNetwork, device: str) -> DeviceCosts:
    costs: DeviceCosts = _exporter().device_costs(network, device)
    return costs


def _exporter() -> Any:
    return importlib.import_module(_EXPORTER)

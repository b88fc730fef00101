"""What stands in two tables for two purposes does not differ."""

from __future__ import annotations

import pytest

from tflite_export import targets
from tflite_export.devices import widen
from tflite_export.flatbuffer import operators
from tflite_export.targets.operator_rows import parse_rows

ROWS = parse_rows({"like": "_integer"}, "test")


@pytest.mark.parametrize(
    "name", [n for n, row in ROWS.items() if "weight" in row.operands]
)
def test_roles_are_where_weights_are(name):
    row = ROWS[name]
    assert row.operands.index("weight") == operators.weight_input(name)
    assert row.operands.index("activation") == operators.activation_input(name)


def test_what_only_moves_or_multiplies_has_no_input_for_weights_alone():
    for name in ("GATHER", "BATCH_MATMUL", "ADD"):
        assert operators.weight_input(name) is None


def test_containers_have_conversions():
    for name in targets.names():
        target = targets.load(name)
        for kind in target.containers if not target.integer else ():
            for granularity in targets.catalog.GRANULARITIES:
                assert operators.conversion_version(
                    "DEQUANTIZE", kind, granularity
                )
    assert ROWS["QUANTIZE"].versions == {"int8": 1, "int16": 2}


def test_versions_for_wide_containers():
    assert widen._versions() == {
        "CONV_2D": 3,
        "DEPTHWISE_CONV_2D": 3,
        "FULLY_CONNECTED": 5,
    }

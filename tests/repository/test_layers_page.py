"""The table of layers says what the exporter writes."""

import warnings

import pytest

from benchmarks.harness import layer_cases
from msq_tf.keras3 import target_checks
from msq_tf.rules import target_limits
from tflite_export import targets
from tools import layers_page

# What each way of writing is for: rows of a table, other operators for GPUs and
# NPUs, a mask; the first is quick.
SOME = (
    *("ops.split", "Dense", "Conv2D, dilated", "Embedding, tied"),
    *("Conv1DTranspose", "LSTM", "Average", "activation softplus"),
    *("UpSampling2D", "ops.matmul", "mask by comparison", "ops.absolute"),
    *("MultiHeadAttention", "LayerNormalization", "ops.top_k", "Conv3D"),
)


def test_the_page_has_every_case_and_every_integer_target():
    page = layers_page.on_page()
    assert list(page) == list(layer_cases.CASES)
    integer = {n for n in targets.names() if targets.load(n).integer}
    assert set(layers_page.TARGETS) == integer
    assert set(layers_page.TARGETS) <= set(target_limits.TARGETS)
    for layer, row in page.items():
        assert list(row) == list(layers_page.TARGETS), layer
        assert all(row.values()), layer


@pytest.mark.first(1)
@pytest.mark.parametrize("name", SOME)
def test_rows_are_what_is_written(name):
    assert layers_page.cells(name) == layers_page.on_page()[name]


@pytest.mark.slow
def test_training_refuses_what_the_page_has_no_operators_for():
    """By classes and settings; a warning says what a part of devices runs."""
    page = layers_page.on_page()
    wrong = []
    for name, make in layer_cases.CASES.items():
        model = make()
        for target in layers_page.TARGETS:
            cell = page[name][target]
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                try:
                    target_checks.check_model(model, (target,))
                    said = "narrow" if caught else "runs"
                except ValueError:
                    said = "-"
            expected = ("narrow",) if cell.startswith("U85") else ("runs",)
            if cell == "-":
                expected = ("-", "narrow")
            if said not in expected:
                wrong.append(f"{name} on {target}: {said}, {cell}")
    assert not wrong

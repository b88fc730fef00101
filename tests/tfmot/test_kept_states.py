"""Recurrent layers of tf_keras that keep their states."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tflite_export.test_stateful import step_by_step
from tests.tfmot.samples import export
from tests.tfmot.samples import images
from tests.tfmot.samples import layers
from tests.tfmot.samples import msq
from tests.tfmot.samples import quantization
from tests.tfmot.samples import tf_keras


def prepared(kind, **options):
    """A model whose head is quantized."""
    inputs = tf_keras.Input((3, 4), batch_size=2)
    x = kind(4, stateful=True, name="rec", **options)(inputs)
    model = tf_keras.Model(inputs, layers.Dense(2, name="out")(x))
    with quantization.quantize_scope():
        annotated = tf_keras.models.clone_model(
            model,
            clone_function=lambda layer: (
                quantization.quantize_annotate_layer(layer)
                if layer.name == "out"
                else layer
            ),
        )
        return msq.ModelView(
            quantization.quantize_apply(
                annotated, scheme=msq.MSQQuantizeScheme()
            )
        )


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("kind", "unroll"),
    [("GRU", True), ("LSTM", True), ("LSTM", False), ("SimpleRNN", True)],
)
def test_states_are_ports(kind, unroll, tmp_path):
    view = prepared(getattr(layers, kind), unroll=unroll)
    x, path = images(3, 4, count=12), tmp_path / "m.tflite"
    report = export(view, path, representative_data=x)
    names = [state.input for state in report.states]
    assert names == [f"rec_state_{k}" for k in range(1 + (kind == "LSTM"))]
    calls = x.reshape(6, 2, 3, 4)
    with view.quantized_scope():
        for state in view.base.get_layer("rec").states:
            # As before: the export wrote none of them.
            assert not np.any(state.numpy())
        wanted = np.stack([view.base(own).numpy() for own in calls])
    got, _ = step_by_step(path, report, calls)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)

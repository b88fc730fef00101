"""Every cell of the integer CPU targets, run for real."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf
from tests.tflite_export.test_cells import hand_made
from tflite_export import export
from tflite_export import targets
from tflite_export.runtime import interpreter

CELLS = sorted(
    (name, op, granularity)
    for name in ("cpu_int8", "cpu_int16")
    for cell in targets.load(name).cells
    for op in cell.ops
    for granularity in cell.granularities
)


@pytest.mark.first(1)
@pytest.mark.parametrize(("name", "op", "granularity"), sorted(set(CELLS)))
def test_cell(name, op, granularity, tmp_path):
    model = hand_made(op, granularity)
    port = model.base.inputs[0]
    shape = (4, *port.shape[1:])
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=shape).astype(np.float32)
    if "int" in port.dtype:
        inputs = rng.integers(0, 11, shape)
    path = tmp_path / "m.tflite"
    # XNNPACK takes TRANSPOSE_CONV with a fixed batch size only.
    report = export(
        model, path, target=name, representative_data=inputs, batch_size=1
    )
    assert all(check.ran for check in report.checks)
    assert all(row.units <= 1 for row in report.operators)
    assert len(report.tensors) == 3
    target = targets.load(name)
    for tensor in report.tensors:
        assert tensor.ops == (op,)
        assert target.allows(
            op, tensor.container, tensor.granularity, tensor.shape[-1]
        )
    session = interpreter.Session(path.read_bytes(), "xnnpack")
    taken = op not in (session.not_delegated() or [])
    assert taken == (name == "cpu_int8" and op != "GATHER")


@pytest.mark.slow
def test_packed_cells(tmp_path):
    """INT2 and INT4 need input channels in fours and twos."""
    inputs = keras.Input((8,))
    for bits, container in ((2, "INT2"), (4, "INT4")):
        model = keras.Model(inputs, keras.layers.Dense(5)(inputs))
        qmodel = msq_tf.quantize_model(model)
        qmodel.set_bits(dict.fromkeys(qmodel.bits, bits))
        x = np.random.default_rng(0).normal(size=(4, 8))
        path = tmp_path / "m.tflite"
        report = export(
            qmodel,
            path,
            target="cpu_int8",
            representative_data=x.astype(np.float32),
        )
        assert [t.container for t in report.tensors] == [container]
        session = interpreter.Session(path.read_bytes(), "xnnpack")
        assert session.not_delegated() == []

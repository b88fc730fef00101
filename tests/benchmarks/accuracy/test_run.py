"""What the accuracy benchmark keeps of a run."""

from __future__ import annotations

import msq_tf
from benchmarks.accuracy import run
from benchmarks.harness import record
from tests.msq_tf.samples import tiny_model


def test_a_run_keeps_what_pages_read():
    model = tiny_model()
    assert run._precision(model) == {"compression": 1.0, "average_bits": 32.0}
    qmodel = msq_tf.quantize_model(model, msq_tf.MSQConfig(start_bits=4))
    found = run._precision(qmodel)
    assert found["compression"] == 8.0 and found["average_bits"] == 4.0
    paths = tuple(layer["path"] for layer in found["layers"])
    assert paths == qmodel.paths
    for study in record.read("accuracy").values():
        (keys,) = {
            tuple(layer)
            for row in study["runs"]
            for layer in row.get("layers", ())
        }
        assert keys == tuple(found["layers"][0])

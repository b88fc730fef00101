"""Tables of tokens that give logits, too, or stand beside one that does."""

from __future__ import annotations

import numpy as np
import pytest

import msq_tf
from tests.msq_tf.keras3.test_discovery import language_model
from tflite_export import export


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cpu_float", "min_size"])
@pytest.mark.parametrize("tied", [False, True])
def test_every_table_has_its_codes_in_the_file(tied, target, tmp_path):
    qmodel = msq_tf.quantize_model(language_model(tied))
    qmodel.set_bits(dict(zip(qmodel.bits, (4, 2, 8), strict=False)))
    x = np.random.default_rng(0).integers(0, 24, (8, 6)).astype("int32")
    report = export(
        qmodel, tmp_path / "m", target=target, representative_data=x
    )
    found = {tensor.name: tensor.bits for tensor in report.tensors}
    assert found == qmodel.bits

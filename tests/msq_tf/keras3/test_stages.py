"""One run that leaves a model of every size from 4x to 16x."""

import keras
import numpy as np
import pytest

import msq_tf
from tests.msq_tf.keras3.test_tolerance import compiled
from tests.msq_tf.keras3.test_tolerance import data
from tests.msq_tf.keras3.test_tolerance import fit


@pytest.mark.slow
def test_a_run_leaves_a_front(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((12,)),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dense(4),
        ]
    )
    qmodel = compiled(msq_tf.quantize_model(model))
    search = msq_tf.MSQCallback(
        msq_tf.BudgetRule(
            target_compression=16.0, stages=4, allowed_bits=range(2, 9)
        ),
        hessian=False,
    )
    # Its metric falls with the size, as random labels do not.
    history = fit(
        qmodel,
        search,
        msq_tf.ParetoCheckpoint(tmp_path / "kept", "val_loss", verbose=0),
        epochs=8,
    ).history
    ends = [history["msq_compression"][epoch] for epoch in (1, 3, 5, 7)]
    assert ends == pytest.approx([5.66, 8.0, 11.3, 16.0], rel=0.12)
    assert qmodel.compression == 16.0
    front = msq_tf.pareto_front(tmp_path / "kept")
    assert front and front.monitor == "val_loss"
    text = str(front)
    for entry in front:
        assert f"{entry.packed_bytes:,}" in text
        assert f"{entry.compression:.2f}x" in text
        again = entry.load()
        assert again.bits == entry.bits
        loss = again.evaluate(*data()[1], verbose=0, return_dict=True)["loss"]
        assert loss == pytest.approx(entry.metric, rel=1e-4)
    front.plot(tmp_path / "front.png")
    assert (tmp_path / "front.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="suffix.*Received: "):
        front.plot(tmp_path / "front.docx")
    assert np.isfinite([entry.metric for entry in front]).all()


def test_an_empty_front_has_no_picture(tmp_path):
    with pytest.raises(ValueError, match="nothing to draw"):
        msq_tf.pareto_front.__globals__["ParetoFront"]().plot("a.png")

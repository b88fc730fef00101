"""The table of scales: its rows, and what stands in them."""

from __future__ import annotations

from benchmarks.accuracy import run
from benchmarks.accuracy import scales
from benchmarks.accuracy.study import SCALES


def result(row, seed, accuracy):
    return {
        "row": {
            "bits": row.bits,
            "scale": row.scale,
            "optimizer": row.optimizer,
            "rate": row.rate,
        },
        "seed": seed,
        "accuracy": accuracy,
        "untrained": accuracy / 2,
    }


def test_every_scale_meets_every_optimizer():
    names = [row.name for row in SCALES.rows]
    assert len(set(names)) == len(names) == 4 * 4 * (3 + 3 + 2 + 1) + 4 * 3
    assert {row.optimizer for row in SCALES.rows} == set(run.OPTIMIZERS)
    for make in run.OPTIMIZERS.values():
        assert float(make(0.5).learning_rate) == 0.5


def test_the_table_has_means_and_what_seeds_differ_by():
    two = [row for row in SCALES.rows if row.bits == 2][:4]
    runs = [result(row, 0, 0.8 + i / 100) for i, row in enumerate(two)]
    runs.append(result(two[0], 1, 0.82))
    runs.append(result(SCALES.rows[11], 0, 0.9))
    text = scales.markdown(
        {
            "environment": {
                "command": "python -m benchmarks scales",
                "date": "2026-11-29",
                "cores": 2,
            },
            "results": {"scales": {"budget": SCALES.budget(), "runs": runs}},
        }
    )
    assert "| 2 | SGD | 0.1 | 81.0 | 81.0 | 82.0 | 83.0 | 2.0 |" in text
    assert "| float | Lion | 1e-05 | 90.0 |  |  |  |  |" in text
    assert "| 2 | 41.0 | 40.5 | 41.0 | 41.5 |" in text
    assert "2 seeds, 6 of the 204 runs of the plan" in text

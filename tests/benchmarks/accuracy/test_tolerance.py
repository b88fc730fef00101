"""The table of tolerances: what stands in its lines."""

from __future__ import annotations

from benchmarks.accuracy import tolerance


def entry(target, size, accuracy, seed=0, subject="keyword net"):
    return {
        "plan": {"max_drop": 1.0},
        "subject": subject,
        "target": target,
        "seed": seed,
        "steps": 500 if target is None else 250,
        "reference": 0.956,
        "accuracy": accuracy,
        "bytes": size,
    }


def test_a_line_has_the_smallest_budget_that_keeps_the_promise():
    runs = [
        entry(None, 3600, 0.950),
        entry(8.0, 7000, 0.960),
        entry(14.0, 4000, 0.946),
        entry(16.0, 3500, 0.945),
    ]
    (line,) = tolerance.rows(runs)
    assert line == [
        *("keyword net", "0", "95.6", "3,600", "0.6", "4,000", "-10%"),
        *("500", "750", "8, 14, 16"),
    ]


def test_a_broken_promise_is_said():
    (line,) = tolerance.rows([entry(None, 3600, 0.9), entry(8.0, 7000, 0.9)])
    assert line[4] == "5.6 (not kept)"
    assert line[5:7] == ["none", ""]


def test_a_network_without_its_grid_has_no_line():
    assert not tolerance.rows([entry(None, 3600, 0.95)])


def test_the_page_says_what_ran():
    text = tolerance.markdown(
        {
            "environment": {
                "command": "python -m benchmarks tolerance",
                "date": "2026-11-30",
                "cores": 2,
            },
            "results": {
                "subjects": [s.plan() for s in tolerance.SUBJECTS],
                "planned": 78,
                "runs": [entry(None, 3600, 0.95), entry(8.0, 7000, 0.96)],
            },
        }
    )
    assert "2 of the 78 runs of the plan" in text
    assert "| keyword net | 0 | 95.6 | 3,600 |" in text

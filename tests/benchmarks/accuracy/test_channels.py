"""The table of channels: what stands in its lines."""

from __future__ import annotations

from benchmarks.accuracy import channels


def entry(device, share, removes, seed, accuracy):
    return {
        "device": device,
        "share": share,
        "removes": removes,
        "seed": seed,
        "accuracy": accuracy,
        "bytes": 1000 + seed,
        "weights": 2000,
    }


def test_a_line_has_means_and_each_seed():
    runs = [
        entry("min_size", 0.5, False, 0, 0.875),
        entry("min_size", 0.5, True, 0, 0.85),
        entry("min_size", 0.5, True, 1, 0.86),
        entry("cpu_int8", 1.0, False, 0, 0.9),
    ]
    text = channels.markdown(
        {
            "environment": {
                "command": "python -m benchmarks channels",
                "date": "2026-11-29",
                "cores": 2,
            },
            "results": {"budget": channels.STUDY.budget(), "runs": runs},
        }
    )
    assert "| min_size | 50% | widths | 1,000 | 2,000 | 87.50 | 87.50 |" in text
    assert (
        "| min_size | 50% | and channels | 1,000 | 2,000 | 85.50 | "
        "85.00, 86.00 |" in text
    )
    assert "| cpu_int8 | 100% | 8 bits |" in text


def test_a_row_with_channels_has_its_partner():
    shares = {(d, s) for d, s, removes in channels.ROWS if not removes}
    assert {d for d, _, _ in channels.ROWS} == {"min_size", "cpu_int8"}
    assert {("min_size", 0.5), ("min_size", 0.4)} <= shares

"""Two sides of a page: which layers correspond, and what changed."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from msq_tf.page.records import Pair
from msq_tf.page.records import Side


def pairs(first: Sequence[Any], second: Sequence[Any]) -> tuple[Pair, ...]:
    """Records of two sides that correspond, in the order of the first.

    By key where both have it; what is left by its place in the order, where
    sizes or operators agree. Those of one side alone come last.
    """
    places = {record.key: k for k, record in enumerate(second)}
    matched = {
        k: places[record.key]
        for k, record in enumerate(first)
        if record.key in places
    }
    rest_a = [k for k in range(len(first)) if k not in matched]
    taken = set(matched.values())
    rest_b = [k for k in range(len(second)) if k not in taken]
    blocks = difflib.SequenceMatcher(
        a=[_alike(first[k]) for k in rest_a],
        b=[_alike(second[k]) for k in rest_b],
        autojunk=False,
    ).get_matching_blocks()
    for a, b, count in blocks:
        for k in range(count):
            matched[rest_a[a + k]] = rest_b[b + k]
    taken = set(matched.values())
    return tuple(
        [Pair(k, matched.get(k)) for k in range(len(first))]
        + [Pair(None, k) for k in range(len(second)) if k not in taken]
    )


def _alike(record: Any) -> Any:
    """What two records that correspond have in common."""
    return getattr(record, "size", None) or record.operator


def changes(first: Side, second: Side, found: Sequence[Pair]) -> list[str]:
    """Sentences on what changed from one side to the other."""
    told = []
    if first.total and second.total:
        share = second.total / first.total
        told.append(
            f"{second.name} takes {second.total:,} bytes, {first.name} "
            + (
                f"{first.total:,}: {share:.3g} times as many"
                if second.total != first.total
                else "as many"
            )
        )
    both = [
        (first.layers[p.first], second.layers[p.second])
        for p in found
        if p.first is not None and p.second is not None
    ]
    narrower = sum(a.bits > b.bits for a, b in both)
    wider = sum(a.bits < b.bits for a, b in both)
    told.append(
        f"of {len(both):,} layers that correspond {narrower:,} are narrower in "
        f"{second.name}, and {wider:,} wider"
        if narrower or wider
        else f"all {len(both):,} layers that correspond are as wide as before"
    )
    alone = len(found) - len(both)
    if alone:
        told.append(f"{alone:,} layers have none that corresponds")
    for name, words in (
        ("accuracy", "accuracy is {b:.2f} %, and was {a:.2f} %"),
        (
            "disagreement",
            "{b:.2f} % decide otherwise than in float, and {a:.2f} % did",
        ),
        ("min_snr", "the worst tensor has {b:.1f} dB, and had {a:.1f} dB"),
        ("latency_ms", "a run takes {b:.3g} ms here, and took {a:.3g} ms"),
    ):
        if name in first.figures and name in second.figures:
            told.append(
                words.format(a=first.figures[name], b=second.figures[name])
            )
    return told

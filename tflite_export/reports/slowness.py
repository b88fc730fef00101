"""The remark of a report on a file slower than one of plain integers."""

from __future__ import annotations

from collections.abc import Sequence

from tflite_export.matching.records import Written
from tflite_export.targets import Target


def note(target: Target, written: Sequence[Written]) -> list[str]:
    """One sentence if the file, or layers of it, are slow; else none.

    Args:
        target: Where the file runs.
        written: Its trained weights.
    """
    slow = target.slow
    if slow is None:
        return []
    what = "slow"
    if slow.containers:
        count = sum(
            w.container in slow.containers
            and (not slow.ops or not {*slow.ops}.isdisjoint(w.ops))
            for w in written
        )
        if not count:
            return []
        what = (
            f"slow: {count} of {len(written)} weights are stored as "
            f"{' or '.join(slow.containers)}"
        )
    least, most = slow.of_int8
    return [
        f"{what}: {slow.why}; networks took {least} to {most} times as long "
        f"as with plain 8-bit integers ({slow.on}). "
        f"Faster: {slow.instead}"
    ]

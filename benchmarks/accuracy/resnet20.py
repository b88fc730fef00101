"""The paper's network on CIFAR-10: MSQ at three sizes, and uniform widths.

`study` has the rows. The float model is trained for 60 epochs, every row for 40
more: days of processor time. Runs go on where they were killed, as those of
`accuracy` do, and are on no page before they are done.
"""

from __future__ import annotations

from typing import Any

from benchmarks.accuracy import accuracy
from benchmarks.accuracy.study import RESNET20

NAME = "resnet20"


def measure() -> dict[str, Any]:
    """Runs what is missing.

    Returns:
        As `accuracy.measured`.
    """
    return accuracy.measured(NAME, RESNET20)


def markdown(content: dict[str, Any]) -> str:
    """The table of the study, as on the page of `accuracy`."""
    return accuracy.markdown(content)

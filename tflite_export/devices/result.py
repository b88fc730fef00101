"""Results of a device's tools for a file."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class DeviceResult:
    """Results of a device's tools for a file.

    Attributes:
        figures: Sizes, times and agreements by name; JSON can hold them.
        files: Further files to write beside the exported one, by name.
        notes: Remarks for the report.
    """

    figures: dict[str, Any] = dataclasses.field(default_factory=dict)
    files: dict[str, bytes] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

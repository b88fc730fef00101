"""Tables of what each runtime runs."""

from tflite_export.targets.catalog import CONTAINERS as CONTAINERS
from tflite_export.targets.catalog import GRANULARITIES as GRANULARITIES
from tflite_export.targets.catalog import Cell as Cell
from tflite_export.targets.catalog import Slowness as Slowness
from tflite_export.targets.catalog import Target as Target
from tflite_export.targets.catalog import known_bad as known_bad
from tflite_export.targets.catalog import load as load
from tflite_export.targets.catalog import names as names
from tflite_export.targets.catalog import parse as parse
from tflite_export.targets.catalog import verdict as verdict

__all__ = [
    "CONTAINERS",
    "GRANULARITIES",
    "Cell",
    "Slowness",
    "Target",
    "known_bad",
    "load",
    "names",
    "parse",
    "verdict",
]

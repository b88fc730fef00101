"""Packed, verified TFLite files from models quantized with `msq_tf`."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

from tflite_export import targets
from tflite_export.errors import ExportError
from tflite_export.inspect.compare import compare_files
from tflite_export.inspect.inspect import inspect_file
from tflite_export.runtime.interpreter import run
from tflite_export.targets.lint import lint

if TYPE_CHECKING:
    from tflite_export.dry_run import check
    from tflite_export.exporting import export
    from tflite_export.exporting import float_file
    from tflite_export.exporting import float_tflite
    from tflite_export.generating import export_generation
    from tflite_export.generation.report import GenerationReport
    from tflite_export.looking.look import Look
    from tflite_export.looking.look import look
    from tflite_export.predicting import device_costs
    from tflite_export.reports.report import ExportReport

# That of `msq_tf`, whose import takes seconds.
__version__ = "0.1.0"

__all__ = [
    "ExportError",
    "ExportReport",
    "GenerationReport",
    "Look",
    "check",
    "compare_files",
    "device_costs",
    "export",
    "export_generation",
    "float_file",
    "float_tflite",
    "inspect_file",
    "lint",
    "look",
    "run",
    "targets",
]


def __dir__() -> list[str]:
    """What completion shows: the public names, not the modules inside."""
    return sorted([*__all__, "__doc__", "__version__"])


def __getattr__(name: str) -> Any:
    # TensorFlow takes seconds to load, and whoever only reads files needs
    # none of it.
    if name in ("export", "float_file", "float_tflite"):
        from tflite_export import exporting

        return getattr(exporting, name)
    if name == "check":
        from tflite_export import dry_run

        return dry_run.check
    if name == "device_costs":
        from tflite_export import predicting

        return predicting.device_costs
    if name == "ExportReport":
        from tflite_export.reports import report

        return report.ExportReport
    if name == "export_generation":
        from tflite_export import generating

        return generating.export_generation
    if name == "GenerationReport":
        from tflite_export.generation import report as generation_report

        return generation_report.GenerationReport
    if name in ("Look", "look"):
        from tflite_export.looking import look as look_lib

        return getattr(look_lib, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

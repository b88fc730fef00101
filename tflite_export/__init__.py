"""Packed, verified TFLite files from models quantized with `msq_tf`."""

from tflite_export import targets
from tflite_export.errors import ExportError
from tflite_export.exporting import export
from tflite_export.exporting import float_file
from tflite_export.exporting import float_tflite
from tflite_export.inspection import inspect_file
from tflite_export.report import ExportReport
from tflite_export.runtime import run

__all__ = [
    "ExportError",
    "ExportReport",
    "export",
    "float_file",
    "float_tflite",
    "inspect_file",
    "run",
    "targets",
]

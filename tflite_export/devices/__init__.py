"""The tools and rules of a device, for a file that is right."""

from tflite_export.devices.finish import check_installed
from tflite_export.devices.finish import check_options
from tflite_export.devices.finish import check_verifiers
from tflite_export.devices.finish import finish
from tflite_export.devices.finish import narrowed
from tflite_export.devices.finish import runs
from tflite_export.devices.result import DeviceResult

__all__ = [
    "DeviceResult",
    "check_installed",
    "check_options",
    "check_verifiers",
    "finish",
    "narrowed",
    "runs",
]

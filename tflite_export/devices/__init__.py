"""What comes after a file is right: the tools and rules of its device."""

from tflite_export.devices.finish import check_installed
from tflite_export.devices.finish import check_options
from tflite_export.devices.finish import finish
from tflite_export.devices.result import DeviceResult

__all__ = ["DeviceResult", "check_installed", "check_options", "finish"]

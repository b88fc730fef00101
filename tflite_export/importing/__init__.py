"""Makes Keras models of TFLite files."""

from tflite_export.importing.from_tflite import from_tflite as from_tflite

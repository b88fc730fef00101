"""Exports whose files nobody keeps."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msq_tf
from tflite_export import ExportReport
from tflite_export import export


def report(
    qmodel: msq_tf.MSQModel, target: str, samples: Any, **options: Any
) -> ExportReport:
    """Exports a model, verified as ever, and deletes the file.

    Args:
        qmodel: The model.
        target: Where the file shall run.
        samples: Representative data.
        **options: Further arguments of `export`.

    Returns:
        The exporter's report.

    Raises:
        ExportError: If there is no file that is right.
    """
    with tempfile.TemporaryDirectory() as folder:
        return export(
            qmodel,
            Path(folder) / "m.tflite",
            target=target,
            representative_data=samples,
            **options,
        )

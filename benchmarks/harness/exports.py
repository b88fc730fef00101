"""Exports whose files nobody keeps."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msq_tf
from tflite_export import ExportError
from tflite_export import ExportReport
from tflite_export import export


def outcome(
    qmodel: msq_tf.MSQModel, target: str, samples: Any, **options: Any
) -> tuple[ExportReport | None, dict[str, Any]]:
    """Exports a model, see `report`; what goes wrong is a result.

    Returns:
        The exporter's report, if there is one; and `outcome`: `"verified"`,
        `"refused"` with the exporter's reason, or `"failed"` with an error that
        no one should see. JSON values.
    """
    try:
        return report(qmodel, target, samples, **options), {
            "outcome": "verified"
        }
    except ExportError as error:
        return None, {"outcome": "refused", "reason": str(error)}
    except Exception as error:  # the table says so
        reason = f"{type(error).__name__}: {error}"
        return None, {"outcome": "failed", "reason": reason}


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

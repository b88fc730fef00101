"""Asking for a file before the training that it is for."""

from __future__ import annotations

import tempfile
from typing import Any

from tflite_export import steps
from tflite_export import target_file
from tflite_export import targets
from tflite_export.conversion.source import QuantizedModel
from tflite_export.errors import ExportError
from tflite_export.preparation import opening
from tflite_export.targets import lint
from tflite_export.verification import readback

_SAMPLES = 8


def check(
    model: QuantizedModel,
    target: str = "min_size",
    representative_data: Any = None,
    input_signature: Any = None,
    batch_size: int | None = None,
) -> None:
    """Refuses now what `export` would refuse of a model for what it is made of.

    The model is converted, its operators and weights get what the target has
    for them, and the result is read back: an operator that the target lacks, a
    layer that cannot be converted, a shape that has to be known. So a training
    is not spent on a model that cannot be shipped. Weights and ranges need not
    be trained: integers are those of ranges measured on the inputs. The file is
    not run, which only means something for what was trained.

    Args:
        model: As of `export`.
        target: As of `export`.
        representative_data: As of `export`; random inputs if `None`.
        input_signature: As of `export`.
        batch_size: As of `export`.

    Raises:
        ExportError: If the target has nothing for a part of the model.
        ValueError: If an argument is out of its range.

    Example:
    ```python
    qmodel = msq_tf.quantize_model(model)
    for target in ("min_size", "mcu"):
        tflite_export.check(qmodel, target)
    qmodel.fit(...)
    ```
    """
    chosen = targets.load(target)
    if not isinstance(model, QuantizedModel):
        raise ValueError(
            "Expected a model of msq_tf.quantize_model, or the ModelView of a "
            f"tf_keras model. Received: model={model!r}"
        )
    begun = opening.opened(
        model,
        chosen,
        representative_data,
        input_signature,
        batch_size,
        _SAMPLES,
        trained=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        job = steps.convert(model, begun, folder)
        plan = job.plan(chosen, target_file.Limits(), calibrates=True)
        built = plan.build(chosen)
    readback.check_codes(built.data, built.written)
    severe = lint.severe(lint.check(built.data, target))
    if severe:
        raise ExportError(
            f"Target '{target}' has nothing for a part of the model: "
            f"{'; '.join(severe)}. Expected other layers there, or another "
            f"target. Received: target={target!r}"
        )

"""check: whether a model can be exported, asked before the training."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

from tflite_export import devices
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
    device_options: Mapping[str, Any] | None = None,
) -> None:
    """Refuses a model that `export` would refuse for its structure.

    It converts the model, writes its operators and weights as the target needs
    them, and reads the result back. So before the training it finds an operator
    that the target lacks, a layer that cannot be converted, or a shape that has
    to be known. Weights and ranges need not be trained: it measures ranges on
    the inputs. It does not run the file, as only a trained file has numbers to
    compare.

    Args:
        model: As in `export`.
        target: As in `export`.
        representative_data: As in `export`; random inputs if `None`.
        input_signature: As in `export`.
        batch_size: As in `export`.
        device_options: As in `export`: the devices that the file is for, such
            as `{"accelerators": ["ethos-u85-256"]}`. Their tools do not run.

    Raises:
        ExportError: If the target can't run a part of the model.
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
    devices.check_options(target, device_options)
    chosen = devices.narrowed(chosen, device_options)
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
    severe = lint.severe(
        finding
        for finding in lint.check(built.data, target)
        if not devices.runs(target, finding.message, device_options)
    )
    if severe:
        raise ExportError(
            f"Target '{target}' has nothing for a part of the model: "
            f"{'; '.join(severe)}. Expected other layers there, devices that "
            "run them (`device_options`), or another target. Received: "
            f"target={target!r}, device_options={device_options!r}"
        )

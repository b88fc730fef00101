"""device_costs: milliseconds and RAM of a model, by widths of its weights."""

from __future__ import annotations

from typing import Any

from msq_tf.core.quantized_network import QuantizedNetwork
from msq_tf.rules.device_costs import DeviceCosts
from tflite_export.costs import ethos_u
from tflite_export.costs.widths import files_of


def device_costs(
    model: QuantizedNetwork,
    device: str,
    *,
    representative_data: Any = None,
    input_signature: Any = None,
    batch_size: int | None = None,
) -> DeviceCosts:
    """Predicts what a model takes on a device, at every width of its weights.

    It may be untrained: for each width, the file that `export` would write is
    made, and the tools of the device tell what its operators take.

    - `"ethos_u:<accelerator>"`: milliseconds and SRAM by Vela's estimate.

    Args:
        model: A model of `msq_tf.quantize_model`. It stays as it is.
        device: Name of the device.
        representative_data: As in `export`; random inputs if `None`.
        input_signature: As in `export`.
        batch_size: As in `export`; latencies are those of one call.

    Returns:
        A `DeviceCosts`, for `msq_tf.BudgetRule(costs=...)`.

    Raises:
        ExportError: If the device can't run the model, or its tools are not
            installed.
        ValueError: If there is no such device, or nothing to predict it with.

    Example:
    ```python
    costs = tflite_export.device_costs(qmodel, "ethos_u:ethos-u55-128")
    print(costs.latency_at(qmodel.bits), "ms")
    costs.save("ethos-u55-128.json")
    ```
    """
    if not isinstance(model, QuantizedNetwork):
        raise ValueError(
            "Expected a model of msq_tf.quantize_model, or the ModelView of a "
            f"tf_keras model. Received: model={model!r}"
        )
    target, _, part = str(device).partition(":")
    if device not in ethos_u.NAMES:
        raise ValueError(
            "Nothing predicts what a model takes there. Expected one of "
            f"{list(ethos_u.NAMES)}. Received: device={device!r}"
        )
    with files_of(
        model, target, representative_data, input_signature, batch_size
    ) as files:
        return ethos_u.costs(files, device, part, model.paths)

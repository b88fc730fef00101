"""The metric that a callback monitors, its direction and its value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Parts of a metric's name that say which way is better, see `direction`.
_LOWER = "loss error crossentropy divergence hinge mae mape mse msle rmse"
_HIGHER = "acc auc f1 fbeta fmeasure f_measure precision recall score iou io_u"


def direction(monitor: str) -> str:
    """Says by the name of a metric whether more or less of it is better.

    `"min"` for loss, error, crossentropy, divergence, hinge, mae, mape, mse,
    msle and rmse; `"max"` for acc, auc, f1, fbeta, f_measure, precision,
    recall, score and iou; anywhere in the name. Where several occur the last
    decides: that is the metric, after the name of an output.

    Raises:
        ValueError: If none of them is in the name.
    """
    lower, higher = (
        max(monitor.lower().rfind(part) for part in parts.split())
        for parts in (_LOWER, _HIGHER)
    )
    if lower != higher:
        return "min" if lower > higher else "max"
    raise ValueError(
        "The name of the metric does not say whether more or less of it is "
        f"better. Expected mode='max' or mode='min'. Received: "
        f"monitor={monitor!r}, mode='auto'"
    )


def value_of(monitor: str, logs: Mapping[str, Any], who: str) -> float:
    """The metric of an epoch.

    Args:
        monitor: Its name.
        logs: What the epoch logged.
        who: Whose metric it is, for the messages.

    Raises:
        ValueError: If it is not in the logs, or no number.
    """
    if monitor not in logs:
        hint = (
            ", with validation data in every epoch"
            if monitor.startswith("val_")
            else ""
        )
        raise ValueError(
            f"{who}'s metric is not in the logs. Expected one "
            f"of {sorted(logs)}{hint}. Received: monitor={monitor!r}"
        )
    value = logs[monitor]
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{who}'s metric is no number. Expected one for the "
            "whole epoch, such as a metric's mean over its classes. "
            f"Received: monitor={monitor!r}, {value!r}"
        ) from error

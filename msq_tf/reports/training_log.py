"""The logs of `fit`, as points of a metric against bytes."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

# What MSQCallback logs, from which the bytes follow.
BITS = "msq_bits"


class EpochPoint(NamedTuple):
    """The end of one epoch.

    Attributes:
        epoch: Epochs trained, from 1.
        packed_bytes: Bytes of the codes at the widths of that moment.
        value: The metric.
    """

    epoch: float
    packed_bytes: int
    value: float


def rows(history: Any) -> list[dict[str, Any]]:
    """The logs of every epoch that has `msq_bits`, counted from 1.

    Logs that are missing in some epochs, as with `validation_freq`, are left
    out where it cannot be told in which.

    Args:
        history: What `fit` returned, its `history` (a list for each log), or
            a dictionary for each epoch.

    Raises:
        ValueError: If `history` is something else, or holds epochs, but none
            of a fit with `MSQCallback`.
    """
    if hasattr(history, "epoch") and hasattr(history, "history"):
        epochs = [epoch + 1 for epoch in history.epoch]
        found = _by_epoch({"epoch": epochs, **history.history})
    elif isinstance(history, Mapping):
        found = _by_epoch(history)
    elif isinstance(history, Sequence) and all(
        isinstance(row, Mapping) for row in history
    ):
        found = [{"epoch": i + 1, **row} for i, row in enumerate(history)]
    else:
        raise ValueError(
            "`history` is what `fit` returned. Expected a "
            "keras.callbacks.History, its `history`, or a dictionary for each "
            f"epoch. Received: {type(history).__name__}"
        )
    searched = [row for row in found if BITS in row]
    if found and not searched:
        raise ValueError(
            f"`history` tells no bytes. Expected `{BITS}` among the logs, as a "
            f"fit with MSQCallback has it. Received: {sorted(found[0])}"
        )
    return searched


def metric_name(logs: Sequence[Mapping[str, Any]], asked: str | None) -> str:
    """The log to look at: the one asked for, or what says most of the model.

    That is `val_accuracy`, else the first validation metric, the validation
    loss, the accuracy in training, the loss in training.

    Raises:
        ValueError: If there is no log of the name that was asked for.
    """
    names = list(dict.fromkeys(name for row in logs for name in row))
    if asked is not None:
        if asked not in names:
            raise ValueError(
                f"There is no such metric in `history`. Expected one of "
                f"{names}. Received: metric={asked!r}"
            )
        return asked
    validation = [name for name in names if name.startswith("val_")]
    preferred = (
        "val_accuracy",
        *(name for name in validation if name != "val_loss"),
        "val_loss",
        "accuracy",
    )
    return next((name for name in preferred if name in names), "loss")


def spelled(metric: str) -> str:
    """The name of a log in words, with the data that it was measured on."""
    name = metric.removeprefix("val_")
    data = "training" if name == metric else "validation"
    return f"{data} {name.replace('_', ' ')}"


def points(
    logs: Sequence[Mapping[str, Any]], metric: str, size: int, float_size: int
) -> tuple[EpochPoint, ...]:
    """The metric against the bytes of the codes, where an epoch has it.

    `msq_bits` counts float weights with 32 bits, which are no codes.
    """
    return tuple(
        EpochPoint(
            float(row["epoch"]),
            round(
                (float(row[BITS]) * (size + float_size) - 32 * float_size) / 8
            ),
            float(row[metric]),
        )
        for row in logs
        if metric in row
    )


def _by_epoch(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    count = max((len(values) for values in columns.values()), default=0)
    whole = {
        name: values for name, values in columns.items() if len(values) == count
    }
    return [
        {"epoch": i + 1, **{name: values[i] for name, values in whole.items()}}
        for i in range(count)
    ]

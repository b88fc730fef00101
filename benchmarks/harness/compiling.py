"""How benchmarks compile a classifier."""

from __future__ import annotations

from typing import Any

import keras


def compiled(
    model: Any,
    rate: Any = 0.01,
    weight_decay: float = 0.0,
    from_logits: bool = True,
) -> Any:
    """Compiles a model with SGD with momentum 0.9: one slot a variable.

    Args:
        model: A classifier, float or quantized.
        rate: Learning rate or schedule.
        weight_decay: Of the optimizer.
        from_logits: Whether the model's outputs are logits, and not shares.

    Returns:
        `model`.
    """
    model.compile(
        keras.optimizers.SGD(
            rate, momentum=0.9, weight_decay=weight_decay or None
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits),
        metrics=["accuracy"],
    )
    return model

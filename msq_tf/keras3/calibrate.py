"""calibrate: ranges of activations from data."""

from __future__ import annotations

from typing import Any

from msq_tf.arguments import check_integer
from msq_tf.core.calibration import SeenRanges
from msq_tf.core.calibration import run_batches
from msq_tf.keras3.model import MSQModel


def calibrate(model: MSQModel, x: Any, batch_size: int = 128) -> None:
    """Sets the ranges of all activations to those on given inputs.

    Without it the first training batch sets them. Call it before `fit`, which
    trains them on, or instead of any training. Nothing else in the model
    changes: no statistics of batch normalization, no states, no seeds.

    Args:
        model: Made with `MSQConfig(activation_bits=...)`.
        x: Inputs: an array, or a list or dict of arrays, a few hundred samples;
            or a `tf.data.Dataset` or `keras.utils.PyDataset` of batches as for
            `fit`.
        batch_size: Samples per batch.

    Raises:
        ValueError: If `model` has float activations, there are no samples, or
            an activation is not finite.

    Example:
    ```python
    qmodel = msq_tf.quantize_model(model, msq_tf.MSQConfig(activation_bits=8))
    msq_tf.calibrate(qmodel, x_train[:512])
    ```
    """
    quantizers = getattr(model, "activation_quantizers", None)
    if quantizers is None:
        raise ValueError(
            "There are no ranges to set. Expected a model of "
            "`msq_tf.quantize_model` with `MSQConfig(activation_bits=8)`. "
            f"Received: {type(model).__name__} '{model.name}'"
        )
    check_integer("batch_size", batch_size, 1)
    seen = SeenRanges(dict(enumerate(quantizers.sites)))
    with model.observing_scope(seen.see) as run:

        def show(batch: Any) -> None:
            run(batch)
            model.input_ranges.observe(batch)

        run_batches(
            show, x, batch_size, model.fixed_batch_size, model.look_at_columns
        )
    for index, (low, high) in seen.found().items():
        quantizers.low[index].assign(low)
        quantizers.high[index].assign(high)
        quantizers.seen[index].assign(1.0)

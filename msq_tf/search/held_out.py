"""A metric on held-out data: of the float model, and of the quantized one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msq_tf.core.quantized_network import QuantizedNetwork
from msq_tf.rules.monitored import value_of
from msq_tf.rules.tolerance import ToleranceRule
from msq_tf.sensitivity.fit_inputs import FitInputs

_PARTS = ("x", "y", "sample_weight")


class HeldOutMetric:
    """The metric of a `ToleranceRule`.

    Where data was given to the callback it is measured there; otherwise it is
    what `fit` logs, and the validation data of `fit` serves for what the logs
    do not have: the float model, and widths before training.

    Args:
        rule: Says what to measure.
        model: The model in `fit`.
        network: The same model, or the view of it.
        inputs: The data of `fit`.
        held_out: As given to the callback.
    """

    def __init__(
        self,
        rule: ToleranceRule,
        model: Any,
        network: QuantizedNetwork,
        inputs: FitInputs,
        held_out: Any,
    ):
        self._rule = rule
        self._model = model
        self._network = network
        self._own_data = held_out is not None
        self._named: Mapping[str, int] = {}
        self._data = held_out
        if held_out is None:
            self._data, self._named = inputs.validation_data, inputs.validation

    @property
    def can_measure(self) -> bool:
        """Whether it can be measured at any time."""
        if not isinstance(self._rule.monitor, str):
            return True
        # What yields its batches once is left to `fit`.
        return self._data is not None and not hasattr(self._data, "__next__")

    def of_float(self) -> float:
        """The metric of the float model.

        Raises:
            ValueError: If it cannot be measured.
        """
        monitor = self._rule.monitor
        if self.can_measure:
            by_name = isinstance(monitor, str)
            with self._network.float_model(compiled=by_name) as model:
                value = self._of(model)
            self._model.reset_metrics()
            return value
        raise ValueError(
            "A ToleranceRule measures the float model on held-out data, and "
            "there is none that can be read more than once. Expected "
            "`MSQCallback(held_out=...)`, `ToleranceRule(reference=...)` "
            f"with the float model's {self._rule.name}, or, in Keras 3, "
            "`fit(validation_data=...)` of arrays or a data set. Received: none"
        )

    def now(self) -> float:
        """The metric of the model as it is."""
        value = self._of(self._model)
        # `fit` has begun to count the metrics of an epoch.
        self._model.reset_metrics()
        return value

    def of_epoch(self, logs: Mapping[str, Any]) -> float:
        """The metric after an epoch with some logs.

        Raises:
            ValueError: If it is neither logged nor to be measured.
        """
        monitor = self._rule.monitor
        if not isinstance(monitor, str) or self._own_data:
            return self.now()
        if monitor not in logs and self.can_measure:
            return self.now()  # an epoch that `fit` does not validate
        return value_of(monitor, logs, "ToleranceRule")

    def _of(self, model: Any) -> float:
        monitor = self._rule.monitor
        if not isinstance(monitor, str):
            name = self._rule.name
            return value_of(name, {name: monitor(model)}, "ToleranceRule")
        data, named = self._data, dict(self._named)
        parts = {"x": data}
        if isinstance(data, tuple | list):
            parts = dict(zip(_PARTS, data, strict=False))
        elif not hasattr(data, "shape"):
            named.pop("batch_size", None)  # it has batches of its own
        logs = model.evaluate(**parts, **named, verbose=0, return_dict=True)
        logs = {f"val_{name}": value for name, value in logs.items()}
        return value_of(monitor, logs, "ToleranceRule")

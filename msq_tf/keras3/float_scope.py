"""A quantized model as the float model that it was made of."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from msq_tf.core.quantized_network import YOUNG
from msq_tf.keras3.call_hooks import CallScope
from msq_tf.keras3.step_scope import StepScopes

# What an optimizer counts time with: a search that goes back in weights goes on
# in time.
_TIME = ("iteration", "iterations", "learning_rate")
# Ends of what they hold means of squared gradients in.
_SQUARES = ("_velocity", "_velocity_hat")


class ComputesInFloat:
    """The float model of a quantized one, and what to go back to it with.

    A mixin, before what has `run_base`.
    """

    # Of the other bases.
    _optimizers: Any
    _steps: StepScopes | None
    base: Any
    distribute_strategy: Any
    kernels: Any
    optimizer: Any
    predict_function: Any
    search: Any
    test_function: Any
    trainable_variables: Any
    variables: Any
    # Whether calls compute with the latent weights alone.
    _is_float = False

    @contextlib.contextmanager
    def float_model(self, compiled: bool) -> Iterator[Any]:
        if not compiled:
            # Another object: functions that were traced with it are its own.
            with CallScope(None):
                yield self.base
            return
        made = self.test_function, self.predict_function
        self._set_float(True)
        self.test_function = self.predict_function = None
        try:
            yield self
        finally:
            self._set_float(False)
            self.test_function, self.predict_function = made

    def _set_float(self, is_float: bool) -> None:
        self._is_float = is_float
        if self._steps is not None:
            self._steps.plain = is_float

    def training_state(self) -> list[Any]:
        if self.optimizer is not None and not self.optimizer.built:
            # The first step makes slots, and the state before it has them, too.
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)
        bits = {id(variable) for variable in self.search.variables}
        state = [v for v in self.variables if id(v) not in bits]
        state += self._slots()
        return list({id(variable): variable for variable in state}.values())

    def trains_kernels(self) -> list[bool]:
        trained = set(map(id, self.trainable_variables))
        return [id(kernel) in trained for kernel in self.kernels]

    def second_moments(self) -> list[Any]:
        return [v for v in self._slots(YOUNG) if v.path.endswith(_SQUARES)]

    def _slots(self, least: int = 0) -> list[Any]:
        """What optimizers hold, but for what they count time with.

        Of those that made at least so many steps.
        """
        optimizers = [self.optimizer, *self._optimizers().values()]
        return [
            variable
            for optimizer in {id(o): o for o in optimizers if o}.values()
            if int(optimizer.iterations.numpy()) >= least
            for variable in optimizer.variables
            if variable.path.split("/")[-1] not in _TIME
        ]

"""Text from a quantized language model, as its float model generates it.

KerasHub's `CausalLM` and `Seq2SeqLM` have a `generate` around a compiled
`generate_step`, which calls the layers with a cache, one token at a time. The
step of an object that shares all else with the base runs here in the scope of
quantized weights. They are computed from the latent weights and the bits once
for each batch of prompts, in the compiled function, so it follows training
and `set_bits` without being traced again. The base's own function is another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msq_tf.keras3.own_loops import sharing

_COMPILED = "generate_function"
_STEP = "generate_step"


class _Generator:
    """What generates, beside a class of KerasHub."""

    # Not among the attributes, which are the base's.
    __slots__ = (_COMPILED, "_scope")
    _scope: Callable[[], Any]

    def __setattr__(self, name: str, value: Any) -> None:
        # Keras would keep the compiled function with the base.
        if name == _COMPILED:
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def generate_step(self, *args: Any, **kwargs: Any) -> Any:
        with self._scope():
            return super().generate_step(*args, **kwargs)  # type: ignore[misc]


def generates(base: Any) -> bool:
    """Whether a model has KerasHub's `generate`."""
    kind = type(base)
    return all(
        callable(getattr(kind, name, None)) for name in ("generate", _STEP)
    )


def generator(base: Any, scope: Callable[[], Any]) -> Any:
    """An object whose `generate` runs the base's step in a scope.

    Args:
        base: A model that `generates`.
        scope: Gives a scope for a step. It is entered in the compiled
            function, where it is traced.
    """
    own = {_COMPILED: None, "_scope": scope}
    return sharing(base, _Generator, type(base), **own)

"""Scopes in which a model's own methods compute with quantized weights.

A model with its own `train_step`, loss or metrics calls itself and its parts in
any order, between its own tapes and optimizers. So no overlay covers the whole
method. Instead, each outermost call of a layer gets quantized values of the
weights inside it, computed from the latent weights of that moment. An open tape
records this computation; after an update, the next call has new values. Outside
of calls, the method reads, differentiates and assigns the latent weights.

The gradient of the LSB penalty is added in the optimizer, once for each time
that gradients are applied.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import warnings
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from msq_tf.core.penalty import PenaltyMean
from msq_tf.core.scoped import scoped
from msq_tf.core.search_state import SearchState
from msq_tf.core.weight_set import WeightQuantizers
from msq_tf.keras3.call_hooks import CallScope
from msq_tf.keras3.call_hooks import install as hook_layers
from msq_tf.keras3.lora import Adapters
from msq_tf.keras3.optimizer_hooks import applied_by
from msq_tf.keras3.optimizer_hooks import install as hook_optimizers
from msq_tf.keras3.optimizer_hooks import optimizers_of
from msq_tf.keras3.overlay import Aside
from msq_tf.keras3.overlay import Overlay
from msq_tf.keras3.overlay import all_layers
from msq_tf.keras3.overlay import give_back_losses

_GIVEN: contextvars.ContextVar[Sequence[tf.Tensor] | None] = (
    contextvars.ContextVar("msq_tf_given_kernels", default=None)
)


def given_values() -> Sequence[tf.Tensor] | None:
    """The values that stand for all kernels, in `statistics_scope`."""
    return _GIVEN.get()


@contextlib.contextmanager
def statistics_scope(values: Sequence[tf.Tensor]) -> Iterator[Aside]:
    """While open, kernels are as given, and what is updated is forgotten.

    Moving statistics, states of recurrent layers, seeds and metrics stay as
    they are; within the scope their updates are seen.
    """
    with scoped(_GIVEN, values), Aside() as scope:
        yield scope


class StepScopes:
    """The scopes of one model.

    Args:
        base: The float model.
        weights: Its quantized weights.
        adapters: Factors of theirs.
        search: Their bits and pulls.
        penalty: Where the penalty is counted.
        activations: Gives a scope of quantized activations, whose ranges are
            trained or not.
    """

    def __init__(
        self,
        base: Any,
        weights: WeightQuantizers,
        adapters: Adapters,
        search: SearchState,
        penalty: PenaltyMean,
        activations: Callable[[bool], CallScope],
    ):
        self._base = base
        self._weights = weights
        self._adapters = adapters
        self._search = search
        self._penalty = penalty
        self._activations = activations
        self._places = {id(k): i for i, k in enumerate(weights.kernels)}
        self._parts: dict[tuple[int, ...], WeightQuantizers] = {}
        # Whether a training step applied gradients where nobody could see.
        self.unseen = False
        # Whether calls compute with the latent weights.
        self.plain = False
        hook_layers(all_layers(base))

    def calls(
        self, training: bool, outputs: list[Any] | None = None
    ) -> CallScope:
        """A scope for methods that call the model or parts of it.

        `outputs` gets what calls return that stand in no other call.
        """
        if self.plain:
            return CallScope(None)
        return CallScope(None, functools.partial(self._call, training, outputs))

    @contextlib.contextmanager
    def training_step(self) -> Iterator[None]:
        """A scope for a step that applies gradients."""
        hook_optimizers(list(self.optimizers().values()))
        moved: set[int] = set()
        with (
            self.calls(training=True),
            applied_by(functools.partial(self._apply, moved)),
        ):
            yield
        self._penalty.count()
        if not moved and any(map(self._adapters.moves, self._weights.kernels)):
            self.unseen = True
            warnings.warn(
                "The low bits of no weight are pulled: the model's own "
                "`train_step` applied no gradient of a quantized weight by an "
                "optimizer that the model knows. Expected Keras optimizers "
                "that are attributes of the model or its layers, and "
                "`optimizer.apply` or `apply_gradients`. Received: "
                f"{sorted(self.optimizers()) or 'no optimizer'}",
                stacklevel=2,
            )

    @contextlib.contextmanager
    def probe(self, outputs: list[Any]) -> Iterator[None]:
        """A scope for a step of which nothing but `outputs` shall remain."""
        hook_optimizers(list(self.optimizers().values()))
        with (
            self.calls(training=False, outputs=outputs),
            applied_by(lambda *_: None),
        ):
            yield

    def optimizers(self) -> dict[str, Any]:
        """The optimizers that the model holds, by their place."""
        return optimizers_of(all_layers(self._base))

    def _call(
        self,
        training: bool,
        record: list[Any] | None,
        layer: Any,
        call: Callable[[], Any],
    ) -> Any:
        variables = {id(v) for v in getattr(layer, "variables", ())}
        inside = [i for at, i in self._places.items() if at in variables]
        kernels = [self._weights.kernels[i] for i in inside]
        values = zip(kernels, self._values(inside), strict=True)
        overlay = Overlay([*values, *self._adapters.silenced(kernels)])
        with overlay, self._activations(training):
            outputs = call()
        give_back_losses(layer, overlay.losses)
        if record is not None:
            record.append(outputs)
        return outputs

    def _values(self, indices: Sequence[int]) -> Sequence[tf.Tensor]:
        if not indices:
            return []
        given = _GIVEN.get()
        if given is not None:
            latent = self._part(indices).latent()
            return [
                _standing_in(w, given[i])
                for w, i in zip(latent, indices, strict=True)
            ]
        if self._weights.has_own_scales:
            values = self._weights.values(self._search.bits)
            return [values[i] for i in indices]
        return self._part(indices).values(_at(self._search.bits, indices))

    def _part(self, indices: Sequence[int]) -> WeightQuantizers:
        key = tuple(indices)
        if key not in self._parts:
            self._parts[key] = self._weights.subset(key)
        return self._parts[key]

    def _apply(
        self,
        moved: set[int],
        optimizer: Any,
        gradients: list[Any],
        variables: Sequence[Any],
        plain: Callable[..., None],
    ) -> None:
        """Adds the pulls to gradients, and applies them."""
        movers = self._adapters.movers(self._weights.kernels)
        at = [
            (i, *movers[id(v)])
            for i, v in enumerate(variables)
            if id(v) in movers
        ]
        if at:
            indices = list(dict.fromkeys(place for _, place, _ in at))
            moved.update(indices)
            pulls, penalty = self._part(indices).pulls(
                _at(self._search.bits, indices),
                _at(self._search.lsb, indices),
                tf.convert_to_tensor(self._search.strength),
            )
            self._penalty.add(penalty)
            # Optimizers sum over replicas.
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            of_weights = dict(zip(indices, pulls, strict=True))
            for i, place, to_variable in at:
                pull = to_variable(of_weights[place] / replicas)
                pull = optimizer.scale_loss(pull)
                if gradients[i] is not None:
                    pull += tf.cast(
                        tf.convert_to_tensor(gradients[i]), pull.dtype
                    )
                gradients[i] = pull
        plain(gradients, variables)


def _at(variable: Any, indices: Sequence[int]) -> tf.Tensor:
    return tf.gather(tf.convert_to_tensor(variable), list(indices))


@tf.custom_gradient
def _standing_in(latent: tf.Tensor, value: tf.Tensor) -> Any:
    """The value; the gradient reaches both.

    A step that looks at gradients of latent weights finds some.
    """
    del latent
    return tf.identity(value), lambda upstream: (upstream, upstream)

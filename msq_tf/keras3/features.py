"""Features from inside of a quantized model, computed as it computes them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras

from msq_tf.keras3.call_hooks import CallScope
from msq_tf.keras3.call_hooks import Visitor
from msq_tf.keras3.call_hooks import install
from msq_tf.keras3.discovery import walk


@keras.saving.register_keras_serializable(package="msq_tf")
class QuantizedFeatures(keras.Model):
    """A model of what layers inside of a quantized model return.

    Made by `MSQModel.features`. The whole quantized model runs, weights and
    activations as it has them at that moment, and the outputs of some layers
    are taken on the way. Its weights are those of the quantized model.

    Args:
        qmodel: The `MSQModel`.
        layers: Paths of layers, as in `MSQModel.bits`; a single one for a
            model that returns a tensor instead of a list.
        name: Name of the model.

    Raises:
        ValueError: If there is no such layer.
    """

    def __init__(
        self, qmodel: Any, layers: str | Sequence[str], name: str | None = None
    ):
        super().__init__(
            name=name or f"features_{qmodel.name}",
            dtype=qmodel.dtype_policy,
            autocast=False,
        )
        self.qmodel = qmodel
        self.paths = layers if isinstance(layers, str) else list(layers)
        known = dict(walk(qmodel.base))
        paths = [layers] if isinstance(layers, str) else list(layers)
        unknown = [path for path in paths if path not in known]
        if unknown or not paths:
            raise ValueError(
                f"`features` takes paths of layers. Expected some of "
                f"{list(known)}. Received: {unknown or layers!r}"
            )
        install(known[path] for path in paths)
        self.built = True

    def build(self, input_shape: Any = None) -> None:
        """Does nothing: the quantized model is built."""

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None
    ) -> Any:
        del mask
        found: dict[int, Any] = {}
        paths = [self.paths] if isinstance(self.paths, str) else self.paths
        # Held by no attribute: Keras would save them beside the model.
        known = dict(walk(self.qmodel.base))
        wanted = {id(known[path]) for path in paths}

        def watch(scope: CallScope) -> CallScope:
            return CallScope(_Watch(scope.visitor, wanted, found))

        self.qmodel.run_base(inputs, training, watch)
        missing = [path for path in paths if id(known[path]) not in found]
        if missing:
            raise ValueError(
                "The quantized model does not call some layers, so that they "
                "have no features. Expected layers that it calls. Received: "
                f"{missing}"
            )
        outputs = [found[id(known[path])] for path in paths]
        return outputs[0] if isinstance(self.paths, str) else outputs

    def get_config(self) -> dict[str, Any]:
        return {
            "qmodel": keras.saving.serialize_keras_object(self.qmodel),
            "layers": self.paths,
            "name": self.name,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> QuantizedFeatures:
        qmodel = keras.saving.deserialize_keras_object(
            config["qmodel"], custom_objects=custom_objects
        )
        return cls(qmodel, config["layers"], config["name"])


class _Watch(Visitor):
    """Passes calls on to a visitor and keeps what some layers return.

    `found` gets the outputs of the first call of each wanted layer by its `id`.
    """

    def __init__(
        self, inner: Visitor | None, wanted: set[int], found: dict[int, Any]
    ):
        self._inner = inner or Visitor()
        self._wanted = wanted
        self._found = found

    def enter(self, layer: Any, inputs: Any) -> Any:
        return self._inner.enter(layer, inputs)

    def during(self, layer: Any) -> contextlib.AbstractContextManager[Any]:
        return self._inner.during(layer)

    def computes(
        self, layer: Any, call: Callable[..., Any]
    ) -> Callable[..., Any]:
        return self._inner.computes(layer, call)

    def opens(self, layer: Any) -> bool:
        return self._inner.opens(layer)

    def activate(
        self, layer: Any, inputs: Any, function: Callable[[Any], Any]
    ) -> Any:
        return self._inner.activate(layer, inputs, function)

    def leave(self, layer: Any, inputs: Any, outputs: Any) -> Any:
        outputs = self._inner.leave(layer, inputs, outputs)
        if id(layer) in self._wanted:
            self._found.setdefault(id(layer), outputs)
        return outputs

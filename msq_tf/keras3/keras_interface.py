"""The interface that any Keras model has, for a quantized one."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras

from msq_tf.atomic_files import check_folder
from msq_tf.core.config import LEARNED
from msq_tf.keras3.model_scopes import check_outside
from msq_tf.keras3.overlay import input_name
from msq_tf.keras3.overlay import saves_as_hdf5
from msq_tf.keras3.overlay import symbolic_inputs
from msq_tf.reports.precision_report import precision_report


class LooksLikeItsBase:
    """The inputs, outputs, layers, counts and files of a Keras model.

    A mixin, before `keras.Model`. What it is mixed into has `base`.

    Layers are those of the base: they hold the latent weights and compute with
    them when they are called by themselves. Inputs and outputs are its own, so
    `keras.Model(qmodel.inputs, qmodel.outputs)` computes what the quantized
    model does, and Keras refuses to join them to tensors of the float base.
    """

    # Of the other bases.
    activations: Any
    activation_quantizers: Any
    base: Any
    compiled: bool
    kernels: Any
    learned_scales: Any
    name: Any
    optimizer: Any
    paths: Any
    search: Any
    weights: Any

    _ports: tuple[Any, Any] | None

    @property
    def input(self) -> Any:
        """Symbolic inputs, in the structure that the model takes.

        Raises:
            AttributeError: If the base is subclassed and does not know them.
        """
        return self._symbolic()[0]

    @property
    def output(self) -> Any:
        """Symbolic outputs: what the quantized model computes of `input`."""
        inputs, outputs = self._symbolic()
        if outputs is None:
            outputs = self(inputs)  # type: ignore[operator]
            object.__setattr__(self, "_ports", (inputs, outputs))
        return outputs

    @property
    def inputs(self) -> list[Any]:
        """The symbolic inputs as a list."""
        return keras.tree.flatten(self.input)

    @property
    def outputs(self) -> list[Any]:
        """The symbolic outputs as a list."""
        return keras.tree.flatten(self.output)

    @property
    def input_shape(self) -> Any:
        """As of the base."""
        return self.base.input_shape

    @property
    def output_shape(self) -> Any:
        """As of the base."""
        return self.base.output_shape

    @property
    def output_names(self) -> Any:
        """Output names of a functional base, which `compile` looks up."""
        return self.base.output_names

    @property
    def input_dtype(self) -> Any:
        """Type of the inputs, if they have one; else as of any layer."""
        types = {x.dtype for x in _given(symbolic_inputs(self.base))}
        if len(types) == 1:
            return types.pop()
        return super().input_dtype  # type: ignore[misc]

    def _symbolic(self) -> tuple[Any, Any]:
        if self._ports is None:
            inputs = symbolic_inputs(self.base)
            if inputs is None:
                raise AttributeError(
                    f"The inputs of the subclassed '{self.base.name}' are not "
                    "known. Expected a Functional or Sequential base. "
                    f"Received: {type(self.base).__name__}"
                )
            # Inputs of the names that the base's have: Keras refuses to make
            # one model of both, where it would be wrong at its first call.
            own = keras.tree.map_structure(
                lambda x: keras.Input(
                    batch_shape=x.shape,
                    dtype=x.dtype,
                    sparse=x.sparse,
                    name=input_name(x),
                ),
                inputs,
            )
            # Keras would wrap a dictionary.
            object.__setattr__(self, "_ports", (own, None))
        return self._ports  # type: ignore[return-value]

    def compute_output_spec(
        self, inputs: Any, training: bool | None = None, mask: Any = None
    ) -> Any:
        """Shapes and types of outputs are those of the base."""
        del training, mask
        return self.base.compute_output_spec(inputs)

    @property
    def layers(self) -> list[Any]:
        """The layers of the base, then those that hold the search's state.

        Those of the base have the latent weights. Files name the others by
        their class in this list.
        """
        own = super().layers  # type: ignore[misc]
        state = [layer for layer in own if layer is not self.base]
        return [*self.base.layers, *state]

    def get_layer(
        self, name: str | None = None, index: int | None = None
    ) -> Any:
        """A layer of the base, by name or index.

        Its weights are the latent ones, and its `output` is a tensor of the
        float base: `features` has what it computes with quantized weights.
        """
        return self.base.get_layer(name, index)

    def features(self, layers: str | Sequence[str]) -> keras.Model:
        """A model of what layers inside return, computed as quantized.

        It shares the weights, bits and ranges of this model, also later ones.

        Args:
            layers: Path of a layer, as in `bits`, or several.

        Returns:
            A `keras.Model` with one output, or a list of them.

        Raises:
            ValueError: If there is no such layer.

        Example:
        ```python
        embed = qmodel.features("global_average_pooling2d")
        vectors = embed.predict(images)
        ```
        """
        from msq_tf.keras3.features import QuantizedFeatures

        return QuantizedFeatures(self, layers)

    def count_params(self) -> int:
        """Parameters of the base, and learned scales and ranges.

        The state of the search, of ranges that follow the data and of metrics
        is not counted.
        """
        return self.base.count_params() + sum(map(_size, self._learned()))

    def _learned(self) -> list[Any]:
        """Variables that training moves beside those of the base."""
        learned = []
        if self.learned_scales is not None:
            learned += self.learned_scales.scale
        if self.activations is not None and self.activations.ranges == LEARNED:
            ranges = self.activation_quantizers
            learned += [*ranges.low, *ranges.high]
        return learned

    def summary(
        self,
        line_length: int | None = None,
        positions: Sequence[float] | None = None,
        print_fn: Callable[[str], Any] | None = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range: Sequence[str] | None = None,
    ) -> None:
        """Prints the base's summary, the bits of its weights and the counts.

        Args:
            line_length: As of any Keras model, for the first part.
            positions: Likewise.
            print_fn: What to print with. Defaults to `print`.
            expand_nested: As of any Keras model.
            show_trainable: Likewise.
            layer_range: Likewise.
        """
        self.base.summary(
            line_length=line_length,
            positions=positions,
            print_fn=print_fn,
            expand_nested=expand_nested,
            show_trainable=show_trainable,
            layer_range=layer_range,
        )
        report = precision_report(self)  # type: ignore[arg-type]
        show = print_fn or print
        show(f'Quantized as "{self.name}"\n{report}\n{self._counts()}')

    def _counts(self) -> str:
        known = {id(variable) for variable in self.base.weights}
        learned = {id(variable) for variable in self._learned()}
        state = [
            variable
            for variable in self.weights
            if id(variable) not in known | learned
        ]
        lines = [f"Params: {self.count_params():,}"]
        if learned:
            size = sum(map(_size, self._learned()))
            lines.append(f"of these, learned scales and ranges: {size:,}")
        size = sum(map(_size, state))
        lines.append(
            f"State of the quantization (bits, ranges, search), no params: "
            f"{size:,} numbers"
        )
        if self.compiled and self.optimizer.built:
            size = sum(map(_size, self.optimizer.variables))
            lines.append(f"State of the optimizer, no params: {size:,} numbers")
        return "\n".join(lines)

    def save(
        self,
        filepath: Any,
        overwrite: bool = True,
        zipped: bool | None = None,
        **kwargs: Any,
    ) -> None:
        """As `keras.Model.save`, in Keras's own format.

        Raises:
            ValueError: If `filepath` asks for the legacy HDF5 format, which
                has no place for what a quantized model holds, there is no
                folder for the file, or a `quantized_scope` is open.
        """
        check_outside("`save`", self.name)
        if str(filepath).endswith((".h5", ".hdf5")):
            # Before Keras empties a file that is there.
            raise ValueError(_no_hdf5(self.name, filepath))
        check_folder(filepath)
        super().save(filepath, overwrite, zipped, **kwargs)  # type: ignore[misc]

    def save_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """As `keras.Model.save_weights`.

        Raises:
            ValueError: If there is no folder for the file, or a
                `quantized_scope` is open.
        """
        check_outside("`save_weights`", self.name)
        check_folder(filepath)
        super().save_weights(filepath, *args, **kwargs)  # type: ignore[misc]

    def check_format(self) -> None:
        """Raises a ValueError while Keras saves in its legacy format."""
        if saves_as_hdf5():
            raise ValueError(_no_hdf5(self.name, "an HDF5 file"))

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Raises a ValueError: the weights are quantized already."""
        del args, kwargs
        raise ValueError(
            "Keras's `quantize` replaces the weights that MSQ trains. Expected "
            "`tflite_export.export(qmodel, path)` for a file, or "
            "`msq_tf.bake(qmodel)` for a float model to quantize otherwise. "
            f"Received: an MSQModel, '{self.name}'"
        )

    def check_kernels(self) -> None:
        """Raises a ValueError if something replaced a quantized weight."""
        held = {id(variable) for variable in self.base.variables}
        gone = [
            path
            for path, kernel in zip(self.paths, self.kernels, strict=True)
            if id(kernel) not in held
        ]
        if gone:
            raise ValueError(
                "Weights of the base model were replaced after it was "
                "quantized, as Keras's `quantize` does with those of every "
                "layer it reaches. Expected the weights that `quantize_model` "
                f"found; load the model anew. Received: others in {gone}"
            )

    def export(
        self,
        filepath: Any,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> None:
        """As `keras.Model.export`: a graph that computes with floats.

        The inputs are those of the base where it knows them; else it needs an
        `input_signature`. For integers see `tflite_export.export`.
        """
        if input_signature is None:
            input_signature = self._signature()
        super().export(  # type: ignore[misc]
            filepath, format, verbose, input_signature, **kwargs
        )

    def remember_shapes(self) -> None:
        """Has Keras know what the model takes, as if it had been called.

        `tf.lite.TFLiteConverter.from_keras_model` asks for it. It knows no
        more than one shape or a dictionary of them, all of one type, and has
        no operator for trained ranges.
        """
        inputs = symbolic_inputs(self.base)
        shapes: Any = None
        if inputs is None:
            shapes = (self.base.get_build_config() or {}).get("input_shape")
        elif len({x.dtype for x in _given(inputs)}) == 1:
            shapes = keras.tree.map_structure(lambda x: x.shape, inputs)
        if self.activations is None and isinstance(shapes, tuple | dict):
            self.build(shapes)  # type: ignore[attr-defined]

    def save_spec(self, dynamic_batch: bool = True) -> Any:
        """Raises a ValueError: what TensorFlow asks for once it has no way."""
        del dynamic_batch
        raise ValueError(
            "TFLiteConverter.from_keras_model does not convert this model. "
            "Expected `tflite_export.export(qmodel, path)`, which keeps the "
            "trained codes, or `tflite_export.float_tflite(qmodel)` for a file "
            f"of floats. Received: an MSQModel, '{self.name}'"
        )

    def _signature(self) -> list[Any] | None:
        """The argument of `call`, as a structure of `keras.InputSpec`."""
        inputs = symbolic_inputs(self.base)
        if inputs is not None:
            return [
                keras.tree.map_structure(
                    lambda x: keras.InputSpec(
                        shape=(None, *x.shape[1:]), dtype=x.dtype, name=x.name
                    ),
                    inputs,
                )
            ]
        built = self.base.get_build_config() or {}
        if "input_shape" not in built:
            return None
        return [
            keras.tree.map_shape_structure(
                lambda shape: keras.InputSpec(
                    shape=(None, *shape[1:]), dtype=self.base.input_dtype
                ),
                built["input_shape"],
            )
        ]


def _given(inputs: Any) -> list[Any]:
    return [x for x in keras.tree.flatten(inputs) if x is not None]


def _size(variable: Any) -> int:
    return math.prod(variable.shape)


def _no_hdf5(name: str, path: Any) -> str:
    return (
        "The legacy HDF5 format does not bring a quantized model back. "
        f"Expected a path that ends in '.keras', as in `save('m.keras')`, or "
        f"`save_weights('m.weights.h5')`. Received: {path} for '{name}'"
    )

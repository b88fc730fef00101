"""A model with quantized weights, as searches, reports and exports see it.

Nothing here knows a Keras: `MSQModel` (Keras 3) and `tfmot.ModelView` (tf_keras
with the TF Model Optimization API) are the two adapters.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from msq_tf.arguments import check_mapping
from msq_tf.core.batches import Batch
from msq_tf.core.bit_history import BitChange
from msq_tf.core.compiled_losses import CompiledLosses
from msq_tf.core.config import check_bits
from msq_tf.core.model_weight import ModelWeight
from msq_tf.core.penalty import PenaltyMean
from msq_tf.core.quantized_weight import QuantizedWeight
from msq_tf.core.quantized_weight import SkippedWeight
from msq_tf.core.search_state import SearchState
from msq_tf.core.weight_set import Masks
from msq_tf.core.weight_set import WeightQuantizers

# Steps of an optimizer like Adam within which means of squared gradients may
# begin anew: its correction still makes up for most of that.
YOUNG = 100


class QuantizedNetwork:
    """A model whose weights have codes, and bits that can change.

    A mixin. What it is mixed into sets `search` and `_weights`, and has the
    members that raise `NotImplementedError` here.

    Attributes:
        search: The state of the search.
        name: Name of the model.
        compiled: Whether the model has a loss and an optimizer.
        penalty: The mean of the LSB penalty over training steps.
    """

    search: SearchState
    name: str
    compiled: bool
    penalty: PenaltyMean
    _weights: WeightQuantizers

    @property
    def distribute_strategy(self) -> tf.distribute.Strategy:
        """The strategy that the model is trained under."""
        raise NotImplementedError

    @property
    def state_variables(self) -> list[Any]:
        """Variables that layers update, in which replicas may differ."""
        return []

    @property
    def search_variables(self) -> Sequence[Any]:
        """The state of the search, where layers hold it as variables."""
        return ()

    @property
    def fixed_batch_size(self) -> int | None:
        """The one batch size that the model takes; `None` for any."""
        return None

    @property
    def has_loss(self) -> bool:
        """Whether `loss_at` is what training minimizes."""
        return True

    @property
    def needs_targets(self) -> bool:
        """Whether `loss_at` takes no batch of inputs alone."""
        return False

    def statistics_batch(self, batch: Batch) -> Batch:
        """A batch as `outputs_at` and `loss_at` take it."""
        return batch

    def look_at_columns(self, x: Any) -> None:
        """Warns of columns that the grid of an input loses in these inputs."""

    def prepared_data(self, data: Any) -> Any:
        """Samples for statistics as the network takes them.

        Args:
            data: As they were given to a callback.
        """
        return data

    @property
    def quantizer(self) -> str:
        """`"round_clamp"` or `"dorefa"`."""
        return self._weights.quantizer

    @property
    def paths(self) -> tuple[str, ...]:
        """Keys of the quantized weights, in traversal order."""
        return self._weights.paths

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of elements of each."""
        return self._weights.sizes

    @property
    def planned_weights(self) -> tuple[ModelWeight, ...]:
        """The quantized weights, in the order of `paths`."""
        return self._weights.quantized

    @property
    def float_weights(self) -> tuple[ModelWeight, ...]:
        """The weights that stay in float; `skipped_weights` has values."""
        return self._weights.skipped

    @property
    def kernels(self) -> list[Any]:
        """The quantized weights' latent variables, in the order of `paths`."""
        return self._weights.kernels

    @property
    def float_size(self) -> int:
        """Elements of quantizable weights that stay in float."""
        return self._weights.float_size

    @property
    def bits(self) -> dict[str, int]:
        """Stored bits of every quantized weight, the sign included."""
        return dict(
            zip(self.paths, map(int, self.search.bits.numpy()), strict=True)
        )

    @property
    def average_bits(self) -> float:
        """Stored bits per quantizable weight; skipped ones count 32."""
        stored = 32 * self.float_size + sum(
            size * width
            for size, width in zip(self.sizes, self.bits.values(), strict=True)
        )
        return stored / (self.float_size + sum(self.sizes))

    @property
    def compression(self) -> float:
        """32 divided by `average_bits`."""
        return 32.0 / self.average_bits

    def set_bits(self, bits: Mapping[str, int]) -> None:
        """Sets stored bits by hand. Nothing retraces.

        Held scales are taken anew, of all weights.

        Args:
            bits: Maps paths, as in `bits`, to widths from 2 to 8. Paths that
                are left out keep theirs.

        Raises:
            ValueError: If a path is unknown or a width is out of range; then
                nothing is changed.
        """
        check_mapping("bits", bits, "paths, as in `bits`, to widths")
        unknown = [path for path in bits if path not in self.paths]
        if unknown:
            raise ValueError(
                "Unknown layer names in `set_bits`. Expected names among "
                f"{list(self.paths)}. Received: {unknown}"
            )
        current = np.array(self.search.bits.numpy())
        for path, width in bits.items():
            width = int(width) if isinstance(width, np.integer) else width
            check_bits(f"bits[{path!r}]", width)
            current[self.paths.index(path)] = width
        self.search.restart(current)
        self.hold_scales(anew=True)

    def hold_scales(self, anew: bool = False) -> None:
        """Takes the scales of today's weights for `scale="held"`.

        Args:
            anew: Whether to take those of all weights, not only of those with
                other bits than when their scales were taken.
        """
        self._weights.hold(self.search.bits.numpy(), anew)

    def keep_values(self, trained_at: Sequence[int]) -> None:
        """Has weights that just got more bits begin at the values they had.

        Before `hold_scales`, which takes the scales of those values.

        Args:
            trained_at: The stored bits that each weight was trained at.
        """
        self._weights.keep_values(
            trained_at, self.search.bits.numpy(), self.trains_kernels()
        )

    def history_of_bits(self) -> list[BitChange]:
        """The changes of widths so far, in the order of time.

        There is room for twelve a weight, more than a search of the rules here
        takes; of one that goes on for ever the newest are kept.

        Returns:
            `BitChange` records: step, epoch, path, old and new bits, the
            predicted cost, the share of nonzero LSBs, the sensitivity with
            its standard error, the change that was next in line, and the
            rule's reason. They are saved with the model, but for the reasons
            of a tf_keras model. `set_bits` begins a new history.

        Example:
        ```python
        for change in qmodel.history_of_bits():
            print(change.step, change.path, change.old, change.new)
        ```
        """
        return self.search.changes(self.paths)

    def search_logs(self) -> dict[str, float]:
        """How far a search is, under the names of the logs of `fit`."""
        sizes = np.asarray(self.sizes, np.float64)
        nonzero = self.search.lsb_nonzero.numpy()
        average = self.average_bits  # reads every width: once a batch will do
        return {
            "msq_bits": average,
            "msq_compression": 32.0 / average,
            "msq_lsb_nonzero": float((nonzero * sizes).sum() / sizes.sum()),
        } | self.penalty.logs()

    def latent_weights(self) -> list[tf.Tensor]:
        """float32 tensors: the weights that training moves."""
        return self._weights.latent()

    def scales(self) -> list[tf.Tensor]:
        """Current scale of each quantized weight, no gradient."""
        return self._weights.scales(self.search.bits.numpy())

    def scales_at_widths(self) -> Callable[[int, int], tf.Tensor]:
        """Function of a weight's place and a width that gives its scale."""
        return self._weights.at_widths()

    def quantized_values(self) -> list[tf.Tensor]:
        """float32 tensors: each kernel as `codes * step` at current bits."""
        return self._weights.values(self.search.bits.numpy())

    def quantized_weights(self) -> list[QuantizedWeight]:
        """The codes, steps and bits of every quantized weight.

        Returns:
            `QuantizedWeight` records in the order of `paths`.

        Raises:
            ValueError: If a latent weight is not finite.
        """
        # Also inside a trace: today's values, as constants.
        with tf.init_scope():
            return self._weights.records(self.search.bits.numpy())

    def weights_at(self, bits: Sequence[int]) -> list[QuantizedWeight]:
        """`quantized_weights`, were they at other widths.

        Args:
            bits: A width for each weight, in the order of `paths`.
        """
        with tf.init_scope():
            return self._weights.records(np.asarray(bits, np.int32))

    def masked_weights(self, masks: Masks) -> list[QuantizedWeight]:
        """`quantized_weights`, were the latent weights times some masks.

        Args:
            masks: Arrays that broadcast against the weights, `None` for 1.
        """
        return self._weights.records(self.search.bits.numpy(), masks)

    def skipped_weights(self) -> list[SkippedWeight]:
        """The weights of two or more dimensions that stay in float."""
        return self._weights.skipped_records()

    def products(self) -> int:
        """Number of layers that multiply activations by activations."""
        raise NotImplementedError

    def outputs_at(self, values: Sequence[tf.Tensor], x: Any) -> Any:
        """The outputs in inference mode, `values` in place of `kernels`."""
        raise NotImplementedError

    def mixes_samples(self, x: Any) -> bool:
        """Whether the shape of an output depends on the size of the batch.

        Such a model compares the samples of a batch with each other, so that
        a part of the batch has another loss.
        """
        del x
        return False

    def loss_at(self, values: Sequence[tf.Tensor], batch: Any) -> tf.Tensor:
        """The compiled loss in inference mode, `values` in place of `kernels`.

        A float32 scalar that can be differentiated with respect to them.
        """
        raise NotImplementedError

    def compiled_losses(self) -> CompiledLosses:
        """The losses that the model was compiled with."""
        raise NotImplementedError

    def float_model(
        self, compiled: bool
    ) -> contextlib.AbstractContextManager[Any]:
        """A context with a model that computes with the latent weights.

        Args:
            compiled: Whether `evaluate` shall work, with the losses and the
                metrics of the quantized model.
        """
        raise NotImplementedError

    def training_state(self) -> list[Any]:
        """The variables that training moves, and that a search goes back to.

        Weights, states of layers and slots of optimizers; no bits, nor what
        tells how long the training has been.
        """
        raise NotImplementedError

    def trains_kernels(self) -> list[bool]:
        """Whether training moves them, for each of `kernels`."""
        raise NotImplementedError

    def second_moments(self) -> list[Any]:
        """Means of squared gradients, of `training_state`, that are not young.

        An optimizer like Adam corrects them by the number of its steps, for
        some hundreds of steps. Zeros in place of them would make later steps
        up to six times too long.
        """
        raise NotImplementedError

    def state_kept(self) -> contextlib.AbstractContextManager[None]:
        """A context that undoes what statistics do to states of layers."""
        return contextlib.nullcontext()

    def metrics_kept(self) -> contextlib.AbstractContextManager[None]:
        """A context that undoes what losses do to the metrics of `fit`."""
        raise NotImplementedError

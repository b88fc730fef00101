"""MSQCallback: runs the precision search inside Keras 3's `model.fit`."""

from __future__ import annotations

from typing import Any

import keras

from msq_tf.batches import batch_size_of
from msq_tf.model import MSQModel
from msq_tf.search_callback import SearchCallback


# Its documentation is that of the core.
class MSQCallback(SearchCallback, keras.callbacks.Callback):  # noqa: D101
    __doc__ = SearchCallback.__doc__

    def network(self) -> MSQModel:
        if not isinstance(self.model, MSQModel):
            raise ValueError(
                "MSQCallback needs a model from `msq_tf.quantize_model`. "
                f"Received: {type(self.model).__name__} '{self.model.name}'"
            )
        return self.model

    def fit_data(self) -> tuple[Any, Any]:
        return self.model.fit_data, self.model.fit_validation_data

    def fit_batch_size(self) -> int | None:
        if self.model.fit_data is None:  # a loop of one's own
            return None
        x, *_ = self.model.fit_data
        return batch_size_of(x, self.model.fit_batch_size)

"""MSQCallback: runs the precision search inside Keras 3's `model.fit`."""

from __future__ import annotations

import keras

from msq_tf.fit_inputs import FitInputs
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

    def fit_inputs(self) -> FitInputs:
        return self.model.fit_inputs

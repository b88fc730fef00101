"""Callbacks: the search and its page inside Keras 3's `model.fit`."""

from __future__ import annotations

from typing import NoReturn

import keras

from msq_tf.keras3.model import MSQModel
from msq_tf.reports.page_writer import PageWriter
from msq_tf.search.callback import SearchCallback
from msq_tf.sensitivity.fit_inputs import FitInputs


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

    # tf_keras asks it of every callback before anything else.
    def _implements_train_batch_hooks(self) -> NoReturn:
        raise ValueError(
            "This MSQCallback is that of Keras 3. Expected "
            "`msq_tf.tfmot.MSQCallback(rule, data=(x, y))` in the `fit` of "
            "tf_keras. Received: msq_tf.MSQCallback"
        )

    def fit_inputs(self) -> FitInputs:
        return self.model.fit_inputs


# Its documentation is that of the core.
class ReportCallback(PageWriter, keras.callbacks.Callback):  # noqa: D101
    __doc__ = PageWriter.__doc__

    def network(self) -> MSQModel:
        if not isinstance(self.model, MSQModel):
            raise ValueError(
                "ReportCallback needs a model from `msq_tf.quantize_model`. "
                f"Received: {type(self.model).__name__} '{self.model.name}'"
            )
        return self.model

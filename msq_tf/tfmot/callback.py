"""Callbacks: the search and its page inside tf_keras's `model.fit`."""

from __future__ import annotations

from msq_tf.reports.page_writer import PageWriter
from msq_tf.search.callback import SearchCallback
from msq_tf.tfmot.compat.imports import tf_keras
from msq_tf.tfmot.model_view import ModelView
from msq_tf.tfmot.strip import check_model


# Its documentation is that of the core.
class MSQCallback(SearchCallback, tf_keras.callbacks.Callback):  # noqa: D101
    __doc__ = SearchCallback.__doc__

    def network(self) -> ModelView:
        check_model(self.model)
        if self.data is None:
            raise ValueError(
                "tf_keras does not tell callbacks what `fit` was given. "
                "Expected `MSQCallback(rule, data=(x, y))` with a few hundred "
                "training samples, or a tf.data.Dataset. Received: data=None"
            )
        return ModelView(self.model)


# Its documentation is that of the core.
class ReportCallback(PageWriter, tf_keras.callbacks.Callback):  # noqa: D101
    __doc__ = PageWriter.__doc__

    def network(self) -> ModelView:
        check_model(self.model)
        return ModelView(self.model)

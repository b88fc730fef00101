"""The page of a search, written while it runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from msq_tf import distribute
from msq_tf.arguments import check_path
from msq_tf.core.quantized_network import QuantizedNetwork
from msq_tf.page import charts
from msq_tf.reports import training_log
from msq_tf.reports.precision_report import precision_report


class PageWriter:
    """Writes the page of `PrecisionReport.save` after every epoch.

    The file is whole at any time: the last page stays until the next is done.
    So you can open and reload it during training. Put this callback behind
    `MSQCallback`, as it shows the logs of that one. Of several workers only the
    chief writes.

    Args:
        path: The page, such as `"search.html"`.
        metric: Name of the log to show, as in `precision_report`.

    Raises:
        ValueError: If `path` is no path.
        ImportError: If the extra `look` is not installed.

    Example:
    ```python
    qmodel.fit(
        train,
        epochs=10,
        callbacks=[
            msq_tf.MSQCallback(rule),
            msq_tf.ReportCallback("search.html"),
        ],
    )
    ```
    """

    # Set by Keras.
    model: Any

    def __init__(self, path: str | os.PathLike[str], metric: str | None = None):
        super().__init__()
        check_path("path", path)
        charts.check_installed()
        self.path = path
        self.metric = metric
        self._logs: list[dict[str, Any]] = []

    def network(self) -> QuantizedNetwork:
        """The model that is trained, checked."""
        raise NotImplementedError

    def on_train_begin(self, logs: Any = None) -> None:
        """Checks the model and forgets an earlier training."""
        self.network()
        self._logs = []

    def on_epoch_end(
        self, epoch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Writes the page."""
        network = self.network()
        if not distribute.is_chief(network.distribute_strategy):
            return
        row = {"epoch": epoch + 1, **(logs or {})}
        if training_log.BITS in row:
            self._logs.append(row)
        precision_report(
            network,
            self._logs or None,
            self.metric if self._logs else None,
        ).save(self.path)

"""The one error of the exporter."""

from __future__ import annotations


class ExportError(ValueError):
    """The reason why no file was written.

    The message names the layer, the operator and the figure that stopped the
    export, as far as they are known.
    """

"""The charting library that a page carries: Vega-Lite, as JavaScript."""

from __future__ import annotations

import functools

from msq_tf import extras


def check_installed() -> None:
    """Raises an ImportError where the library is not installed."""
    if extras.missing("look"):
        raise ImportError(
            "Pages are drawn with Vega-Lite, which the package "
            "vl-convert-python carries. Expected it to be installed: "
            f"{extras.install('look')}. Received: no module vl_convert"
        )


@functools.cache
def javascript() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, `vegaEmbed` its global.

    Raises:
        ImportError: If the library is not installed.
    """
    check_installed()
    import vl_convert

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")

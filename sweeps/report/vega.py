"""The charting library that the page carries with it: Vega, Vega-Lite and their embedder."""

from __future__ import annotations

import contextlib
from functools import cache
from importlib.metadata import version

from cifake.data.locate import cache_folder
from cifake.files import write_aside

VEGA_LITE = "6.4"
"""Version of the specifications in `charts.py`."""

_SNIPPET = "window.vegaEmbed = vegaEmbed;"


@cache
def bundle() -> str:
    """JavaScript that sets `window.vegaEmbed`, to be put into a script element.

    To put it together takes three seconds, so that it is kept in the cache folder, where that can
    be written.
    """
    name = f"vega-lite-{VEGA_LITE}-of-vl-convert-{version('vl-convert-python')}.js"
    path = cache_folder() / "scripts" / name
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8")
    import vl_convert

    # Its names would be everybody's without a function around them.
    code = f"(() => {{{vl_convert.javascript_bundle(_SNIPPET, VEGA_LITE)}\n}})();"
    with contextlib.suppress(OSError):
        write_aside(path, code.encode())
    return code

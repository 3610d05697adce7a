"""How figures for a paper look: sizes, colours, and the same bytes for the same data.

A config has a colour, a line style and a marker of its own, so that it is found again by readers
who are colour-blind and on paper without colour.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cifake.tables import score_unit
from sweeps.report.figures.font import families
from sweeps.report.shown import in_words

SINGLE, DOUBLE = 3.3, 6.9
"""Widths of one column and of two, in inches."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C00")
"""Okabe and Ito's palette, by place; the yellow, too light for lines, is an olive."""

LINES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1, 1)),
    (0, (5, 1.5, 1, 1.5)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (8, 2)),
    (0, (2, 2)),
    (0, (6, 1, 2, 1)),
)
"""Line styles, by place."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""Markers, by place."""

OTHER = "0.72"
"""Grey of the configs that have no place."""

HEAT = "cividis"
"""Colours of values: from dark to light, for colour-blind readers and in grey."""

Kind = Literal["png", "svg", "pdf"]

KINDS: tuple[Kind, ...] = ("png", "svg", "pdf")
"""Forms that every figure is written in."""

_DPI = 300

_STYLE: dict[Any, Any] = {
    # Names are text, never formulas.
    "text.parse_math": False,
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlepad": 4,
    "axes.labelpad": 2.5,
    "grid.color": "0.88",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 3,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "legend.columnspacing": 1.2,
    "figure.constrained_layout.h_pad": 0.05,
    "figure.constrained_layout.w_pad": 0.05,
    # Letters as outlines that a printer has and a reader can search.
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    # Names inside a file are drawn from this, not at random.
    "svg.hashsalt": "cifake-sweeps",
}

_METADATA: Mapping[Kind, Mapping[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""Without times and versions, so that the bytes depend on the data alone."""


@contextmanager
def styled() -> Iterator[None]:
    """Draw in this style while the context lasts, whatever the user's own settings are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        mpl.rcParams["font.family"] = families()
        # A letter that no font has is drawn as a box, which says enough.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")
            yield


def lay_out(figure: Figure) -> None:
    """Find where everything lies in a figure, once for all forms that it is saved in."""
    engine = figure.get_layout_engine()
    if engine is not None:
        with styled():
            engine.execute(figure)
            # Saving draws a figure that has an engine twice: once for the engine alone.
            figure.set_layout_engine(None)


def save(figure: Figure, kind: Kind) -> bytes:
    """A figure as a file; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with styled():
        figure.savefig(buffer, format=kind, dpi=_DPI, metadata=dict(_METADATA[kind]))
    return buffer.getvalue()


def canvas(
    panels: int, height: float, *, columns: int = 3, share_y: bool = True, below: float = 0.0
) -> tuple[Figure, list[Axes]]:
    """A figure with panels: one is a column wide, several are two.

    Args:
        panels: how many.
        height: of one row of them, in inches.
        columns: panels side by side at most.
        share_y: whether panels of one row have one vertical axis.
        below: what the legend needs, in inches.
    """
    across = min(panels, columns)
    down = math.ceil(panels / across)
    width = SINGLE if panels == 1 else DOUBLE
    figure = Figure(figsize=(width, height * down + below), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False, sharey="row" if share_y else False)
    axes = list(grid.flat)
    for extra in axes[panels:]:
        extra.set_axis_off()
    return figure, axes[:panels]


def sized(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure with one panel of a given size in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a frame, by column."""
    return [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]


def numbers(rows: pd.DataFrame, column: str) -> npt.NDArray[np.float64]:
    """A column of a frame."""
    return np.asarray(rows[column].to_numpy(), np.float64)


def plain(text: object, limit: int = 48) -> str:
    """Text of a name: one line, shortened in the middle where it is long."""
    line = " ".join(str(text).split())
    if len(line) > limit:
        half = (limit - 1) // 2
        line = f"{line[:half]}…{line[-half:]}"
    return line


def score_title(metric: str) -> str:
    """A score with its unit, as an axis says it; shares are in percent."""
    unit = score_unit(metric)
    words = in_words(metric)
    return f"{words}, %" if unit == "share" else f"{words}, {unit}" if unit else words


def look(place: int) -> dict[str, Any]:
    """Colour and line style of a config or a set, by its place."""
    if place < 0:
        return {"color": OTHER, "linestyle": "-", "linewidth": 0.6, "zorder": 1}
    return {"color": _colour(place), "linestyle": _turned(LINES, place), "zorder": 2.5}


def marker(place: int) -> dict[str, Any]:
    """Colour and marker of a config or a set, by its place."""
    if place < 0:
        return {"color": OTHER, "marker": "o", "zorder": 1}
    return {"color": _colour(place), "marker": _turned(MARKERS, place), "zorder": 2.5}


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _turned(shapes: Sequence[Any], place: int) -> Any:
    """One of some shapes, so that a colour that comes again has another one."""
    return shapes[(place + place // len(COLOURS)) % len(shapes)]


def legend_height(names: Sequence[str], panels: int) -> float:
    """What a legend below a figure needs, in inches."""
    if not names:
        return 0.0
    return 0.08 + 0.155 * math.ceil(len(names) / _legend_columns(names, panels))


def _legend_columns(names: Sequence[str], panels: int) -> int:
    width = SINGLE if panels == 1 else DOUBLE
    widest = max(len(plain(name)) for name in names)
    return max(1, min(len(names), int(width / (0.55 + 0.058 * widest))))


def legend(
    figure: Figure,
    names: Sequence[str],
    panels: int,
    *,
    marked: bool,
    lines: bool = True,
    others: bool = False,
) -> None:
    """What each config looks like, below a figure.

    Args:
        figure: that the legend belongs to.
        names: of the configs that have a place, in its order.
        panels: of the figure.
        marked: whether points are marked.
        lines: whether they are joined by lines.
        others: whether there are configs without a place.
    """
    handles: list[Artist] = []
    for place, name in enumerate(names):
        style = {**look(place), "marker": marker(place)["marker"] if marked else None}
        if not lines:
            style["linestyle"] = "none"
        handles.append(Line2D([], [], label=plain(name), **style))
    if others:
        style = look(-1) if lines else {**marker(-1), "linestyle": "none"}
        handles.append(Line2D([], [], label="others", **style))
    if handles:
        labels = [*names, *(["others"] if others else [])]
        columns = _legend_columns(labels, panels)
        figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def ink_on(share: float) -> str:
    """Black or white, what is read better on a colour of the heat map.

    Args:
        share: place in the range of colours, 0 to 1; NaN is a missing value, on white.
    """
    return "black" if not np.isfinite(share) or share > 0.5 else "white"

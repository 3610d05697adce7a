"""Heat maps: values as colours, written into the cells where there is room."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cifake.tables import higher_is_better
from sweeps.report import charts
from sweeps.report.figures.style import (
    DOUBLE,
    HEAT,
    SINGLE,
    ink_on,
    plain,
    records,
    score_title,
    sized,
)
from sweeps.report.shown import Shown

_CELL = 0.235
"""Height of a row, in inches."""

_LETTER = 0.055
"""Width of a letter of a label, in inches."""

_NUMBER = 0.36
"""Width that a number of three digits needs, in inches."""


def placements(chart: charts.Figure, shown: Shown) -> Figure:
    """Architecture by placement."""
    (panel,) = chart.panels
    return _heat_map(
        panel.data,
        "architecture",
        "placement",
        score_title(shown.metric),
        worse=not higher_is_better(shown.metric),
    )


def classes(chart: charts.Figure, shown: Shown) -> Figure:
    """Accuracy by class or generator."""
    del shown
    (panel,) = chart.panels
    return _heat_map(panel.data, "name", "config", "accuracy, %", worse=False)


def _heat_map(
    data: pd.DataFrame, rows: str, columns: str, title_of_colours: str, *, worse: bool
) -> Figure:
    """A cell for each pair; those without a value are white and crossed out.

    Args:
        data: with the two columns, `mean`, `low` and `high`.
        rows: column whose values are rows, in their order.
        columns: column whose values are columns, likewise.
        title_of_colours: beside the bar of colours.
        worse: whether large values are bad, and so dark.
    """
    down = list(dict.fromkeys(map(str, data[rows])))
    across = list(dict.fromkeys(map(str, data[columns])))
    means = np.full((len(down), len(across)), np.nan)
    for cell in records(data):
        means[down.index(str(cell[rows])), across.index(str(cell[columns]))] = cell["mean"]
    labels = [plain(name, 34) for name in down]
    beside = _LETTER * max(map(len, labels)) + 0.25
    needed = beside + _NUMBER * len(across)
    width = SINGLE if needed <= SINGLE else min(DOUBLE, max(needed, SINGLE))
    numbered = needed <= width
    names = [plain(name, 34) for name in across]
    turned = max(map(len, names)) * _LETTER > (width - beside) / len(across)
    above = _LETTER * max(map(len, names)) * 0.8 if turned else 0.2
    figure, axes = sized(width, _CELL * len(down) + above + 0.32)
    image = axes.imshow(means, cmap=f"{HEAT}_r" if worse else HEAT, aspect="auto")
    _cross_out(axes, means)
    axes.set_yticks(range(len(down)), labels)
    axes.set_xticks(range(len(across)), names)
    axes.tick_params(length=0, top=False, bottom=False, labeltop=True, labelbottom=False)
    if turned:
        for text in axes.get_xticklabels():
            text.set(rotation=40, ha="left", rotation_mode="anchor")
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(len(across) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(down) + 1) - 0.5, minor=True)
    axes.grid(visible=True, which="minor", color="white", linewidth=1)
    axes.tick_params(which="minor", length=0)
    if numbered:
        low, high = image.get_clim()
        for (row, column), value in np.ndenumerate(means):
            if np.isfinite(value):
                share = (value - low) / (high - low) if high > low else 1.0
                ink = ink_on(1 - share if worse else share)
                axes.text(
                    column,
                    row,
                    f"{value:.1f}" if high > 1 else f"{value:.3f}",
                    ha="center",
                    va="center",
                    color=ink,
                    fontsize=6.5,
                )
    if numbered:
        axes.set_xlabel(title_of_colours)
        return figure
    bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
    bar.set_label(title_of_colours)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2)
    bar.ax.yaxis.set_major_locator(MaxNLocator(4))
    return figure


def _cross_out(axes: Axes, means: npt.NDArray[np.float64]) -> None:
    for row, column in np.argwhere(~np.isfinite(means)):
        axes.text(column, row, "–", ha="center", va="center", color="0.5")

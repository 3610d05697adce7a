"""Curves over epochs, images, thresholds and probabilities, with their bands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from sweeps.report import charts
from sweeps.report.figures.style import (
    canvas,
    legend,
    legend_height,
    look,
    marker,
    numbers,
    plain,
    score_title,
)
from sweeps.report.shown import Shown

_HEIGHT = 2.1
_FEW_POINTS = 12


def learning(chart: charts.Figure, shown: Shown) -> Figure:
    """Score by epoch."""
    return _curves(chart, shown, "epoch", "epoch", score_title(shown.metric))


def difficulty(chart: charts.Figure, shown: Shown) -> Figure:
    """Training loss within the first epoch."""
    return _curves(chart, shown, "images_seen", "images seen", "training loss, nats")


def thresholds(chart: charts.Figure, shown: Shown) -> Figure:
    """Scores by decision threshold."""
    figure = _curves(chart, shown, "threshold", "threshold of REAL", "score, %", panels_at_most=3)
    for axes in figure.axes:
        axes.set_xlim(0, 1)
        axes.set_xticks([0.1, 0.3, 0.5, 0.7, 0.9])
        axes.axvline(0.5, color="0.45", linewidth=0.7, linestyle=(0, (4, 3)), zorder=0.9)
    return figure


def reliability(chart: charts.Figure, shown: Shown) -> Figure:
    """Observed against predicted probability."""
    figure = _curves(
        chart,
        shown,
        "predicted",
        "probability of REAL, %",
        "share of REAL, %",
        panels_at_most=3,
        height=2.5,
    )
    for axes in figure.axes:
        axes.plot(
            [0, 100], [0, 100], color="0.45", linewidth=0.7, linestyle=(0, (4, 3)), zorder=0.9
        )
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        axes.set_aspect("equal")
    return figure


def _curves(
    chart: charts.Figure,
    shown: Shown,
    x: str,
    x_title: str,
    y_title: str,
    *,
    panels_at_most: int = 6,
    height: float = _HEIGHT,
) -> Figure:
    panels = chart.panels[:panels_at_most]
    drawn = pd.concat([panel.data for panel in panels])
    names = [name for place, name in enumerate(shown.coloured) if (drawn["place"] == place).any()]
    places = [place for place, name in enumerate(shown.coloured) if name in names]
    marked = drawn[x].nunique() <= _FEW_POINTS
    others = bool((drawn["place"] < 0).any())
    labels = [*names, *(["others"] if others else [])]
    figure, every = canvas(len(panels), height, below=legend_height(labels, len(panels)))
    for axes, panel in zip(every, panels, strict=True):
        for _, rows in panel.data.groupby("config", sort=False):
            _band(axes, rows.sort_values(x), x, marked=marked)
        axes.set_xlabel(x_title)
        axes.grid(visible=True)
        axes.set_title(plain(panel.title))
        _ticks(axes, x, numbers(panel.data, x))
    for axes in _first_of_rows(every):
        axes.set_ylabel(y_title)
    legend(figure, _by_place(shown, places), len(panels), marked=marked, others=others)
    return figure


def _by_place(shown: Shown, places: Sequence[int]) -> list[str]:
    """Names up to the last place that is drawn."""
    return list(shown.coloured[: max(places, default=-1) + 1])


def _band(axes: Axes, rows: pd.DataFrame, x: str, *, marked: bool) -> None:
    """The mean of one config with its interval."""
    place = int(rows["place"].iloc[0])
    style = {**look(place), "marker": marker(place)["marker"] if marked and place >= 0 else None}
    axes.plot(numbers(rows, x), numbers(rows, "mean"), **style)
    there = rows.dropna(subset=["low", "high"])
    at, mean, low, high = (numbers(there, name) for name in (x, "mean", "low", "high"))
    if place >= 0 and len(there) > 1:
        axes.fill_between(
            at,
            low,
            high,
            color=style["color"],
            alpha=0.14,
            linewidth=0,
            zorder=2,
        )
    elif place >= 0 and len(there) == 1:
        spread = np.stack([mean - low, high - mean])
        axes.errorbar(at, mean, spread, color=style["color"], linewidth=0.8)


def _ticks(axes: Axes, x: str, values: npt.NDArray[np.float64]) -> None:
    if x == "epoch":
        few = np.unique(values)
        if len(few) <= 6:
            axes.set_xticks(few)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if x == "images_seen":
        axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
        axes.xaxis.set_major_locator(MaxNLocator(5))


def _thousands(value: float, _: object) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:g}"


def _first_of_rows(every: Sequence[Axes]) -> list[Axes]:
    return [axes for axes in every if (at := axes.get_subplotspec()) and at.is_first_col()]

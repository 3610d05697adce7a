"""Points with their intervals, and bars: differences, transfer, costs, shares, gates."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from sweeps.report import charts
from sweeps.report.figures.style import (
    COLOURS,
    DOUBLE,
    MARKERS,
    SINGLE,
    canvas,
    legend,
    legend_height,
    marker,
    numbers,
    plain,
    records,
    score_title,
    sized,
)
from sweeps.report.shown import Shown

_ROW = 0.2
"""Height of a config, in inches."""

_NAME = 60
"""Letters of a config's name at most."""

_SHORT = 24
"""Letters up to which names leave room for points in one column."""

REAL, FAKE = COLOURS[0], COLOURS[1]


def differences(chart: charts.Figure, shown: Shown) -> Figure:
    """Each config's difference to the reference."""
    (panel,) = chart.panels
    rows = records(panel.data)[::-1]
    names = [plain(row["config"], _NAME) for row in rows]
    figure, axes = sized(_width(names), _ROW * len(rows) + 0.65)
    axes.axvline(0, color="0.45", linewidth=0.7, zorder=0.9)
    for place, row in enumerate(rows):
        significant = not pd.isna(row["significant"]) and bool(row["significant"])
        total = _spread(row["difference"], row["total_low"], row["total_high"])
        if total is not None:
            axes.errorbar(
                row["difference"], place, xerr=total, color="black", linewidth=0.4, capsize=2.2
            )
        axes.errorbar(
            row["difference"],
            place,
            xerr=_spread(row["difference"], row["low"], row["high"]),
            fmt="o",
            color="black",
            markerfacecolor="black" if significant else "white",
            linewidth=1.2,
            capsize=1.5 if total is None else 0,
        )
    _named_rows(axes, names)
    unit = ", points" if score_title(shown.metric).endswith("%") else ""
    axes.set_xlabel(f"difference{unit}, to\n{plain(rows[0]['reference'], _NAME)}")
    return figure


def effects(chart: charts.Figure, shown: Shown) -> Figure:
    """What each value of each parameter makes of the score."""
    (panel,) = chart.panels
    rows = records(panel.data)[::-1]
    names = [plain(row["name"], _NAME) for row in rows]
    figure, axes = sized(_width(names), _ROW * len(rows) + 0.5)
    axes.axvline(0, color="0.45", linewidth=0.7, zorder=0.9)
    terms = list(dict.fromkeys(row["term"] for row in rows[::-1]))
    for place, row in enumerate(rows):
        number = terms.index(row["term"])
        axes.errorbar(
            row["effect"],
            place,
            xerr=_spread(row["effect"], row["low"], row["high"]),
            fmt=MARKERS[number % len(MARKERS)],
            color=COLOURS[number % len(COLOURS)],
            linewidth=0.9,
            capsize=1.5,
        )
    _named_rows(axes, names)
    axes.set_xlabel(f"effect on {score_title(shown.metric)}")
    return figure


def transfer(rows: pd.DataFrame, shown: Shown) -> Figure:
    """The foremost score on every test set, a row a config and a marker a set."""
    share = score_title(shown.metric).endswith("%")
    scale = 100 if share else 1
    configs = list(dict.fromkeys(map(str, rows["config"])))[::-1]
    names = [plain(config, _NAME) for config in configs]
    order = {config: place for place, config in enumerate(configs)}
    datasets = list(dict.fromkeys(map(str, rows["dataset"])))
    width = _width(names)
    panels = 1 if width == SINGLE else 2
    below = legend_height(datasets, panels)
    figure, axes = sized(width, _ROW * 1.3 * len(configs) + 0.45 + below)
    shifts = np.linspace(0.28, -0.28, len(datasets)) if len(datasets) > 1 else np.zeros(1)
    for number, (dataset, shift) in enumerate(zip(datasets, shifts, strict=True)):
        own = rows[rows["dataset"] == dataset]
        places = np.asarray([order[str(config)] for config in own["config"]], np.float64) + shift
        mean, low, high = (scale * numbers(own, name) for name in ("mean", "low", "high"))
        axes.errorbar(
            mean,
            places,
            xerr=np.maximum(np.nan_to_num(np.stack([mean - low, high - mean])), 0),
            linestyle="none",
            linewidth=0.8,
            **marker(number),
        )
    _named_rows(axes, names)
    axes.set_xlabel(score_title(shown.metric))
    legend(figure, datasets, panels, marked=True, lines=False)
    return figure


def costs(chart: charts.Figure, shown: Shown) -> Figure:
    """Cost against score."""
    (panel,) = chart.panels
    rows = panel.data
    names = list(shown.coloured[: int(rows["place"].max()) + 1])
    others = bool((rows["place"] < 0).any())
    labels = [*names, *(["others"] if others else [])]
    figure, axes = sized(SINGLE, 2.3 + legend_height(labels, 1))
    front = rows[rows["pareto"]].sort_values("seconds")
    axes.plot(front["seconds"], front["mean"], color="0.35", linewidth=0.8, zorder=1.5)
    for row in records(rows):
        axes.errorbar(
            row["seconds"],
            row["mean"],
            yerr=_spread(row["mean"], row["low"], row["high"]),
            linewidth=0.7,
            linestyle="none",
            **marker(row["place"]),
        )
    axes.set_xscale("log")
    seconds = numbers(rows, "seconds")
    wide = seconds.max() > 10 * seconds.min()
    axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if wide else (1, 1.5, 2, 3, 5, 7)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("seconds of training, one run")
    axes.set_ylabel(score_title(shown.metric))
    axes.grid(visible=True)
    legend(figure, names, 1, marked=True, lines=False, others=others)
    return figure


def shares(chart: charts.Figure, shown: Shown) -> Figure:
    """Shares of a whole as bars, in percent: variance, or importance in a search."""
    del shown
    panels = chart.panels[:2]
    longest = max(len(panel.data) for panel in panels)
    figure, every = canvas(len(panels), _ROW * longest + 0.5, share_y=False)
    what = "importance" if chart.id == "importances" else "variance"
    for axes, panel in zip(every, panels, strict=True):
        rows = panel.data.iloc[::-1]
        terms = [plain(term, 30) for term in rows["term"]]
        values = numbers(rows, "share")
        axes.barh(range(len(rows)), values, height=0.65, color=COLOURS[0])
        for place, value in enumerate(values):
            axes.text(value, place, f" {value:.1f}", va="center", fontsize=6.5)
        axes.set_yticks(range(len(rows)), terms)
        axes.set_xlabel(f"share of the {what}, %")
        axes.set_xlim(0, max(values.max() * 1.15, 1e-9))
        axes.tick_params(axis="y", length=0)
        axes.set_title(plain(panel.title))
    return figure


def gates(chart: charts.Figure, shown: Shown) -> Figure:
    """Gates of attention modules by channel."""
    del shown
    panels = chart.panels[:6]
    figure, every = canvas(len(panels), 1.8, below=0.2)
    for axes, panel in zip(every, panels, strict=True):
        for label, colour, style, shift in (("REAL", REAL, "o", -0.16), ("FAKE", FAKE, "s", 0.16)):
            rows = panel.data[panel.data["label"] == label]
            axes.errorbar(
                numbers(rows, "channel") + shift,
                numbers(rows, "mean"),
                np.nan_to_num(numbers(rows, "std")),
                fmt=style,
                markersize=2.5,
                linewidth=0.7,
                color=colour,
            )
        axes.set_title(plain(panel.title))
        axes.set_xlabel("channel")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(visible=True)
    every[0].set_ylabel("gate")
    handles = [
        Line2D([], [], color=colour, marker=style, linestyle="none", label=label)
        for label, colour, style in (("REAL", REAL, "o"), ("FAKE", FAKE, "s"))
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def _width(names: list[str]) -> float:
    """A column where names leave room, else two."""
    return SINGLE if max(map(len, names)) <= _SHORT else DOUBLE


def _named_rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=True, axis="x")
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _spread(mean: float, low: float, high: float) -> list[list[float]] | None:
    """The two arms of an interval, as `errorbar` takes them; none where there is no interval."""
    if not (np.isfinite(low) and np.isfinite(high)):
        return None
    return [[max(0.0, mean - low)], [max(0.0, high - mean)]]

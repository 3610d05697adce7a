"""What a search tried: its history, and its proposals across the axes of their parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sweeps.report import charts, search_frames
from sweeps.report.figures.style import (
    COLOURS,
    DOUBLE,
    HEAT,
    canvas,
    numbers,
    plain,
    records,
    sized,
)
from sweeps.report.shown import Shown


def history(chart: charts.Figure, shown: Shown) -> Figure:
    """Proposals in their order."""
    panels = chart.panels[:6]
    search = None if shown.content.spec is None else shown.content.spec.search
    metric = "" if search is None else search.metric[0]
    reach = None if search is None else search.reach
    hollow = "stopped early" if reach is None else "short of the score to be reached"
    figure, every = canvas(len(panels), 2.1, below=0.2)
    for axes, panel in zip(every, panels, strict=True):
        for stopped, rows in panel.data.groupby("stopped"):
            values, low, high = (numbers(rows, name) for name in ("value", "low", "high"))
            spread = np.stack([values - low, high - values])
            axes.errorbar(
                numbers(rows, "number"),
                values,
                np.maximum(spread, 0),
                fmt="o",
                color=COLOURS[0],
                markerfacecolor="white" if stopped else COLOURS[0],
                markersize=2.8,
                linewidth=0.5,
                alpha=0.9,
            )
        best = panel.data.dropna(subset=["best"])
        axes.step(
            numbers(best, "number"), numbers(best, "best"), where="post", color=COLOURS[1], zorder=3
        )
        axes.set_xlabel("proposal")
        axes.grid(visible=True)
        axes.set_title(plain(panel.title))
    every[0].set_ylabel(plain(metric))
    dot: dict[str, Any] = {"color": COLOURS[0], "marker": "o", "linestyle": "none"}
    handles = [
        Line2D([], [], label="proposal", **dot),
        Line2D([], [], label=hollow, markerfacecolor="white", **dot),
        Line2D([], [], label="best so far", color=COLOURS[1]),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def parallel(chart: charts.Figure, shown: Shown) -> Figure:
    """Proposals across their parameters."""
    (panel,) = chart.panels
    data = panel.data
    ticks = search_frames.parallel_ticks(shown.content)
    axes_names = list(dict.fromkeys(data["axis"]))
    order = {name: place for place, name in enumerate(axes_names)}
    search = None if shown.content.spec is None else shown.content.spec.search
    worse = search is not None and search.mode[0] == "min"
    figure, axes = sized(DOUBLE, 2.6)
    threads = dict(iter(data.groupby("proposal")))
    scores = {key: float(rows["score"].iloc[0]) for key, rows in threads.items()}
    shades = Normalize(min(scores.values()), max(scores.values()))
    colours = colormaps[HEAT if worse else f"{HEAT}_r"]
    # The best are drawn last, over the others.
    drawn = sorted(threads, key=lambda key: -scores[key] if worse else scores[key])
    lines = [
        np.column_stack(
            [[order[axis] for axis in threads[key]["axis"]], numbers(threads[key], "position")]
        )
        for key in drawn
    ]
    shade = [colours(shades(scores[key])) for key in drawn]
    dashed: list[Any] = [(0, (3, 2)), "-"]
    styles = [dashed[not bool(threads[key]["stopped"].iloc[0])] for key in drawn]
    axes.add_collection(LineCollection(lines, colors=shade, linestyles=styles, linewidths=0.9))
    for name, place in order.items():
        axes.axvline(place, color="0.25", linewidth=0.7, zorder=3)
        for tick in records(ticks[ticks["axis"] == name]):
            axes.annotate(
                plain(tick["text"], 18),
                (place, tick["position"]),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=6.5,
                zorder=4,
                bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6},
            )
    axes.set_xlim(-0.15, len(axes_names) - 0.6)
    axes.set_ylim(search_frames.NOT_THERE - 0.06, 1.06)
    names = [plain(name.rpartition(".")[2], 20) for name in axes_names]
    axes.set_xticks(range(len(names)), names)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    mappable = ScalarMappable(shades, colours)
    bar = figure.colorbar(mappable, ax=axes, fraction=0.03, pad=0.01, aspect=18)
    bar.set_label(plain(axes_names[-1]))
    bar.outline.set_visible(False)
    return figure

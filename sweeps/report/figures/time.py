"""When what was trained."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sweeps.report import charts
from sweeps.report.figures.style import COLOURS, DOUBLE, OTHER, legend_height, plain, records
from sweeps.report.shown import Shown

HATCHES = ("", "////", "\\\\\\\\", "....", "xxxx", "----", "||||", "++++")
"""Of bars, by place: a second sign beside colour."""

_LANE = 0.19
_HOUR, _MINUTE = 3600.0, 60.0


def timeline(chart: charts.Figure, shown: Shown) -> Figure:
    """Stacks of runs as bars over time, a row a place on a machine."""
    panels = chart.panels
    every = pd.concat([panel.data for panel in panels])
    stacks = records(every)
    origin = min(stack["start"] for stack in stacks)
    lasted = (max(stack["end"] for stack in stacks) - origin).total_seconds()
    unit, name = next(
        (unit, name)
        for unit, name in ((_HOUR, "hours"), (_MINUTE, "minutes"), (1.0, "seconds"))
        if lasted >= 3 * unit or unit == 1
    )
    names = [n for place, n in enumerate(shown.coloured) if (every["place"] == place).any()]
    lanes = [int(panel.data["lane"].max()) for panel in panels]
    height = _LANE * sum(lanes) + 0.35 * len(panels) + 0.35 + legend_height(names, 2)
    figure = Figure(figsize=(DOUBLE, height), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False, sharex=True, height_ratios=lanes)
    for axes, panel in zip(grid[:, 0], panels, strict=True):
        for stack in records(panel.data):
            place = stack["place"]
            failed = stack["status"] in ("failed", "diverged")
            axes.barh(
                stack["lane"],
                (stack["end"] - stack["start"]).total_seconds() / unit,
                left=(stack["start"] - origin).total_seconds() / unit,
                height=0.72,
                color=OTHER if place < 0 else COLOURS[place],
                hatch="" if place < 0 else HATCHES[place],
                edgecolor="black" if failed else "white",
                linewidth=1.2 if failed else 0.4,
            )
        axes.set_ylim(int(panel.data["lane"].max()) + 0.6, 0.4)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.grid(visible=True, axis="x")
        axes.set_title(plain(panel.title), loc="left")
    grid[-1, 0].set_xlabel(f"{name} since the first start")
    handles = [
        Patch(
            facecolor=COLOURS[place], hatch=HATCHES[place], edgecolor="white", label=plain(config)
        )
        for place, config in enumerate(shown.coloured)
        if config in names
    ]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)))
    return figure

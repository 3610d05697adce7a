"""Where seeds were added, look by look."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from sweeps.report import charts
from sweeps.report.figures.style import COLOURS, DOUBLE, OTHER, SINGLE, plain, records, sized
from sweeps.report.shown import Shown

_LANE = 0.2
_NAME = 48

_SHORT = 18
"""Letters up to which names leave room for lanes in one column."""


def lanes(chart: charts.Figure, shown: Shown) -> Figure:
    """A lane for each config as long as it was given seeds, with a sign at each look."""
    del shown
    (panel,) = chart.panels
    looks = records(panel.data)
    configs = list(dict.fromkeys(str(look["config"]) for look in looks))[::-1]
    names = [plain(config, _NAME) for config in configs]
    width = SINGLE if max(map(len, names)) <= _SHORT else DOUBLE
    figure, axes = sized(width, _LANE * len(configs) + 0.5)
    for lane, config in enumerate(configs):
        own = [look for look in looks if look["config"] == config]
        place = own[-1]["place"]
        colour = OTHER if place < 0 else COLOURS[place]
        axes.plot([0, own[-1]["seeds"]], [lane, lane], color=colour, linewidth=2, zorder=1.5)
        for look in own:
            left = look["state"] in ("out", "no scores")
            leads = look["state"] in ("leads", "best")
            axes.plot(
                look["look"],
                lane,
                marker="x" if left else "o",
                color="black",
                markerfacecolor="black" if leads else "white",
                markersize=4.5,
                linestyle="none",
                zorder=2.5,
            )
        axes.annotate(
            str(own[-1]["state"]),
            (own[-1]["look"], lane),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=6.5,
        )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(FixedLocator(sorted({look["look"] for look in looks})))
    axes.set_xlim(0, 1.18 * max(look["seeds"] for look in looks))
    axes.set_xlabel("seeds")
    return figure

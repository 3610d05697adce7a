"""The figures of a report at the size of a paper, drawn with matplotlib.

What they show, and what stands below them, is that of the page's charts: the same frames, the same
captions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from matplotlib.figure import Figure

from sweeps.report import charts, frames
from sweeps.report.content import Content
from sweeps.report.figures import curves, maps, points, race, search, time
from sweeps.report.figures.style import KINDS, lay_out, save, styled
from sweeps.report.shown import Shown, in_words, shown

FOLDER = "figures"
"""Where the files lie beside a report."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One figure with what stands below it."""

    name: str
    """Of its files, without an ending."""

    title: str
    caption: str
    figure: Figure

    def files(self) -> Mapping[str, bytes]:
        """The figure in every form, by file name."""
        lay_out(self.figure)
        return {f"{self.name}.{kind}": save(self.figure, kind) for kind in KINDS}


DRAW: Mapping[str, Callable[[charts.Figure, Shown], Figure]] = {
    "differences": points.differences,
    "race": race.lanes,
    "placements": maps.placements,
    "effects": points.effects,
    "variance": points.shares,
    "learning": curves.learning,
    "difficulty": curves.difficulty,
    "thresholds": curves.thresholds,
    "reliability": curves.reliability,
    "classes": maps.classes,
    "history": search.history,
    "importances": points.shares,
    "parallel": search.parallel,
    "costs": points.costs,
    "timeline": time.timeline,
    "gates": points.gates,
}
"""What draws each chart of the page, by its name up to a hyphen."""


def drawings(content: Content, made: charts.Sections | None = None) -> Iterator[Drawing]:
    """Every figure that there is something to draw for, in the order of the page.

    Args:
        content: of the report.
        made: the page's figures, where they were made already.
    """
    stand = shown(content)
    sections = charts.by_section(stand) if made is None else made
    with styled():
        for chart in chain.from_iterable(sections.values()):
            draw = DRAW[chart.id.partition("-")[0]]
            yield Drawing(
                name=chart.id,
                title=chart.title,
                caption=chart.caption,
                figure=draw(chart, stand),
            )
        moved = frames.transfer(stand)
        if len(moved):
            yield Drawing(
                name="transfer",
                title="Transfer to other sets",
                caption=f"{in_words(stand.metric).capitalize()} on every test set at the longest "
                "length, mean over runs with its 95 % interval (Student’s t).",
                figure=points.transfer(moved, stand),
            )

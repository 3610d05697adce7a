"""The files of a report beside its tables."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow.compute as pc

from sweeps.report.content import PAGE, Content
from sweeps.report.figures import learning_curves, save, threshold_curves, threshold_runs
from sweeps.report.markdown import REPORT, markdown
from sweeps.report.page import page


def files(content: Content) -> Mapping[str, bytes]:
    """Every file of a report, by name."""
    drawn = _figures(content)
    told = {REPORT: markdown(content, list(drawn)).encode(), PAGE: page(content).encode()}
    return {**told, **drawn}


def _figures(content: Content) -> Mapping[str, bytes]:
    shown = content.cells.filter(pc.field("stage") == content.stage)
    thresholds = content.read("thresholds", threshold_runs(shown, content.evaluations))
    figures = {
        "figures/learning-curves.png": learning_curves(shown, content.evaluations),
        "figures/thresholds.png": threshold_curves(shown, thresholds),
    }
    return {name: save(figure) for name, figure in figures.items() if figure is not None}

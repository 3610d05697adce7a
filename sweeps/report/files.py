"""The files of a report beside its tables."""

from __future__ import annotations

from collections.abc import Mapping

from sweeps.report import charts, figures, latex
from sweeps.report.bibliography import FILE as BIBLIOGRAPHY
from sweeps.report.bibliography import bibliography
from sweeps.report.content import PAGE, Content
from sweeps.report.markdown import REPORT, Picture, markdown
from sweeps.report.page import page
from sweeps.report.shown import shown


def files(content: Content) -> Mapping[str, bytes]:
    """Every file of a report, by name."""
    made = charts.by_section(shown(content))
    drawn: dict[str, bytes] = {}
    pictures = []
    for drawing in figures.drawings(content, made):
        drawn |= {f"{figures.FOLDER}/{name}": file for name, file in drawing.files().items()}
        path = f"{figures.FOLDER}/{drawing.name}.png"
        pictures.append(Picture(path=path, title=drawing.title, caption=drawing.caption))
    written = {
        **{f"{latex.FOLDER}/{name}": text for name, text in latex.tables(content).items()},
        f"{latex.FOLDER}/{BIBLIOGRAPHY}": bibliography(content),
        REPORT: markdown(content, pictures),
        PAGE: page(content, made),
    }
    return {**{name: text.encode() for name, text in written.items()}, **drawn}

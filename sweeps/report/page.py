"""The report as one HTML file that needs no network: tables, charts and all that draws them."""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import pyarrow.compute as pc
from PIL import Image

from cifake.tables import score_unit
from sweeps.report import charts, frames, vega
from sweeps.report.charts import Figure
from sweeps.report.content import Content, Explanations
from sweeps.report.findings import BETTER, answer
from sweeps.report.origin import failed_runs, provenance
from sweeps.report.race_frames import look_table
from sweeps.report.shown import Shown, in_words, shown
from sweeps.report.table_of_configs import config_table
from sweeps.report.vega_lite import SHAPES
from sweeps.words import counted

MAX_SHEET_BYTES = 3_000_000
"""Bytes of Grad-CAM sheets; those that would exceed it are left in the store."""

_TITLES = {
    "results": "Results",
    "race": "How the ranking was resolved",
    "learning": "How the scores came about",
    "decisions": "What the probabilities are worth",
    "content": "Classes and generators",
    "search": "The search",
    "cost": "What it took",
    "explanations": "What the best networks look at",
}
"""Headings of the sections with figures."""

_DIGITS = 5
"""Significant digits of a number that a chart draws."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page with a heading."""

    id: str
    title: str
    figures: tuple[Figure, ...] = ()


class Numbers:
    """Numbers of figures or tables, in the order in which the page has them."""

    def __init__(self) -> None:
        self.last = 0

    def next(self) -> int:
        """The number of another one."""
        self.last += 1
        return self.last


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A picture of what one network looks at."""

    run_id: str
    config: str
    source: str
    """As a `data:` address."""


def page(content: Content, made: charts.Sections | None = None) -> str:
    """The whole page of a report.

    Args:
        content: of the report.
        made: its figures, where they were made already.
    """
    stand = shown(content)
    table = config_table(stand)
    transfer = frames.transfer(stand)
    sheets, left_out = _sheets(stand, content.explanations)
    figures = charts.by_section(stand) if made is None else made
    sections = [
        Section(id=id_, title=title, figures=tuple(figures[id_])) for id_, title in _TITLES.items()
    ]
    drawn = [figure for section in sections for figure in section.figures]
    script = _template_text("page.js")
    numbered, tabled = Numbers(), Numbers()
    return (
        _environment()
        .get_template("page.html")
        .render(
            content=content,
            question=content.question.strip(),
            answer=answer(content.results),
            better=BETTER,
            table=table,
            transfer=_transfer_table(transfer, stand.metric),
            looks=look_table(stand),
            sections={section.id: section for section in sections},
            headings=_headings(stand, sections, table=table is not None, sheets=bool(sheets)),
            charts=[_embedded(figure) for figure in drawn],
            sheets=sheets,
            left_out=left_out,
            failed=failed_runs(content),
            provenance=provenance(content),
            next_figure=numbered.next,
            last_figure=lambda: numbered.last,
            next_table=tabled.next,
            legend=[
                {"name": name, "place": place, "shape": SHAPES[place]}
                for place, name in enumerate(stand.coloured)
            ],
            counts=_counts(stand),
            metric=in_words(stand.metric),
            style=_template_text("page.css"),
            scripts=[vega.bundle(), script],
            hashes=[_digest(code) for code in (vega.bundle(), script)],
        )
        .lstrip()
    )


def _headings(
    stand: Shown, sections: Sequence[Section], *, table: bool, sheets: bool
) -> list[tuple[str, str]]:
    """Sections that have something to show, for the list of contents."""
    there = {section.id: bool(section.figures) for section in sections}
    there["results"] |= table
    there["content"] |= not frames.transfer(stand).empty
    there["explanations"] |= sheets
    titles = [(section.id, section.title) for section in sections if there[section.id]]
    failed = [("failed", "Runs that failed")] if failed_runs(stand.content) else []
    return [*titles, *failed, ("provenance", "Provenance")]


def _embedded(figure: Figure) -> dict[str, Any]:
    """A figure's charts as the page's script reads them: specifications, and data by column."""
    return {
        "id": figure.id,
        "panels": [
            {"spec": panel.spec, "columns": _columns(panel.data)} for panel in figure.panels
        ],
    }


def _columns(rows: pd.DataFrame) -> dict[str, list[Any]]:
    return {str(name): [_plain(value) for value in rows[name]] for name in rows}


def _plain(value: Any) -> Any:
    """A value as JSON has it: NaN is null, a time is milliseconds, numbers are rounded."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, pd.Timestamp):
        return None if pd.isna(value) else int(value.timestamp() * 1000)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    return None if value is None or value is pd.NaT or value is pd.NA else str(value)


def _transfer_table(rows: pd.DataFrame, metric: str) -> dict[str, Any] | None:
    """Configs by test set, as text."""
    if rows.empty:
        return None
    datasets = list(dict.fromkeys(rows["dataset"]))
    factor, digits = (100, 2) if score_unit(metric) == "share" else (1, 4)
    cells: dict[str, dict[str, str]] = {}
    for row in rows.to_dict("records"):
        half = factor * (row["high"] - row["low"]) / 2
        spread = "" if pd.isna(half) else f" ± {half:.{digits}f}"
        mean = "–" if pd.isna(row["mean"]) else f"{factor * row['mean']:.{digits}f}{spread}"
        cells.setdefault(row["config"], {})[row["dataset"]] = mean
    one_class = sorted(set(rows[rows["one_class"]]["dataset"]))
    body = [
        (name, [found.get(dataset, "–") for dataset in datasets]) for name, found in cells.items()
    ]
    unit = "%" if score_unit(metric) == "share" else score_unit(metric)
    return {"datasets": datasets, "rows": body, "one_class": one_class, "unit": unit}


def _sheets(stand: Shown, explanations: Explanations | None) -> tuple[list[Sheet], int]:
    """Pictures as WebP, as many as there is room for, and how many there was none for."""
    if explanations is None:
        return [], 0
    labels = dict(zip(stand.asked["run_id"], stand.asked["label"], strict=True))
    sheets, spent = [], 0
    for run_id, content in explanations.sheets.items():
        buffer = io.BytesIO()
        Image.open(io.BytesIO(content)).convert("RGB").save(buffer, "WEBP", quality=82)
        spent += buffer.tell()
        if spent <= MAX_SHEET_BYTES:
            config = stand.names.get(labels.get(run_id, ""), "")
            text = base64.b64encode(buffer.getvalue()).decode()
            sheets.append(
                Sheet(run_id=run_id, config=config, source=f"data:image/webp;base64,{text}")
            )
    return sheets, len(explanations.sheets) - len(sheets)


def _counts(stand: Shown) -> str:
    """How large the sweep is, in a line."""
    seeds = stand.asked["seed"].nunique()
    lengths = sorted({int(n) for n in stand.asked["epochs"]})
    parts = [
        (len(stand.names), "config"),
        (seeds, "seed"),
        (stand.content.cells["run_id"].combine_chunks().unique().__len__(), "run"),
    ]
    words = [counted(count, word) for count, word in parts if count]
    if lengths:
        words.append(f"{', '.join(map(str, lengths))} epoch{'' if lengths == [1] else 's'}")
    # Not the time at which the page is made: the same runs make the same page.
    last = pc.max(stand.content.runs["updated_at"]).as_py()
    if last is not None:
        words.append(f"last run {last:%Y-%m-%d %H:%M} UTC")
    return " · ".join(words)


def _digest(code: str) -> str:
    """What a policy of content names a script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()


@cache
def _template_text(name: str) -> str:
    return (files("sweeps.report") / "templates" / name).read_text(encoding="utf-8")


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(_template_text),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

"""The report as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.compute as pc

from sweeps.proposals import Proposal
from sweeps.report.content import Content, Results
from sweeps.report.findings import Marks, answer, marks
from sweeps.report.headline import (
    Row,
    cell_text,
    header_text,
    headline,
    label_columns,
    score_text,
)
from sweeps.report.tried import best_sentence, proposal_table
from sweeps.spec import Search

CONFIRMED = """## The best, confirmed

Trained again with seeds that chose nothing, and evaluated on test for the first time."""
"""What opens the findings of a search's last stage."""

_CAPTIONS = {
    "learning-curves": "Validation accuracy by epoch: mean over seeds and its 95 % interval.",
    "thresholds": "Accuracy by decision threshold, at each config's longest length.",
}


REPORT = "report.md"
"""The file that a reader opens first."""


def markdown(content: Content, figures: Sequence[str]) -> str:
    """The whole report; its figures lie beside it."""
    results = content.results
    search = results.search
    rows = headline(content.summary.filter(pc.field("stage") != "search"))
    parts = [f"# {content.name}", content.question]
    if search is not None:
        parts += search_findings(search, content.proposals)
    if search is None or rows:
        parts += [*([] if search is None else [CONFIRMED]), *grid_findings(rows, results)]
    states = content.runs.to_pylist()
    parts += [
        "\n".join(f"- {note}" for note in content.notes),
        *map(_figure, figures),
        _failures(states),
        _provenance(content, states),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _figure(name: str) -> str:
    caption = _CAPTIONS[name.rpartition("/")[2].partition(".")[0]]
    return f"![{caption}]({name})\n\n*{caption}*"


def grid_findings(rows: list[Row], results: Results) -> list[str]:
    """The answer, the table of configs, and what a reader must know of it."""
    marked, metrics = marks(results), results.compare.metrics
    return [answer(results), _table(rows, metrics, marked), _notes(rows, metrics, marked)]


def search_findings(search: Search, proposals: Sequence[Proposal]) -> list[str]:
    """The best proposal of a search, and the table of all."""
    tried = list(proposals)
    if not tried:
        return [best_sentence(search, tried)]
    return [best_sentence(search, tried), markdown_table(*proposal_table(search, tried))]


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; a bar inside a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in lines)


def _table(rows: list[Row], metrics: Sequence[str], marked: Marks) -> str:
    if not rows:
        return "No run has been evaluated yet."
    names = label_columns(rows)
    header = [*names, "epochs", "evaluated on", *map(header_text, metrics), "seeds"]
    body = [
        [
            *(cell_text(row.label.get(name)) for name in names),
            str(row.epochs),
            row.where,
            *(
                score_text(row.metrics[metric], marked.of(row.metrics[metric]))
                for metric in metrics
            ),
            str(row.n) + (f" ({row.n_missing} missing)" if row.n_missing else ""),
        ]
        for row in rows
    ]
    return markdown_table(header, body)


def _notes(rows: list[Row], metrics: Sequence[str], marked: Marks) -> str:
    reading = (
        "Means over seeds at threshold 0.5, ± half the 95 % interval of the mean (Student's t over "
        "seeds). An image counts as REAL at a probability of at least the threshold."
    )
    notes = [reading, *([marked.legend] if marked.legend else [])]
    undefined = sorted(
        {
            (metric, row.where)
            for row in rows
            for metric in metrics
            if row.n and row.metrics[metric]["mean"] is None
        }
    )
    notes += [f"{m} is undefined on {where}: it holds one class only." for m, where in undefined]
    return "\n\n".join(notes)


def _failures(states: Sequence[Mapping[str, Any]]) -> str:
    failed = [state for state in states if state["error"]]
    if not failed:
        return ""
    rows = [
        [f"`{s['run_id']}`", str(s["seed"]), s["status"], s["error"].strip().splitlines()[-1]]
        for s in failed
    ]
    return "## Runs that failed\n\n" + markdown_table(["run", "seed", "status", "error"], rows)


def _provenance(content: Content, states: Sequence[Mapping[str, Any]]) -> str:
    def every(name: str) -> str:
        return ", ".join(sorted({str(s[name]) for s in states if s[name] is not None})) or "–"

    seconds = sum(state["train_seconds"] or 0.0 for state in states)
    rows = [
        ["training data", f"{every('data.train')}, fingerprint {every('data.fingerprint')}"],
        ["validation", f"{every('data.validation')} training images set aside"],
        ["runs", f"{len(states)}, {seconds:,.0f} s of training"],
        ["code", every("git_commit")],
        ["versions", every("versions")],
        ["hosts", f"{every('host')}; {every('device')}"],
        ["reproduce", "; ".join(f"`{command}`" for command in content.commands)],
    ]
    return "## Provenance\n\n" + markdown_table(["", ""], rows)

"""The report as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.proposals import Proposal
from sweeps.report.headline import HEADLINE_METRICS, Row, cell_text, label_columns, percent
from sweeps.report.tried import best_sentence, proposal_table
from sweeps.spec import Search, Spec

CONFIRMED = """## The best, confirmed

Trained again with seeds that chose nothing, and evaluated on test for the first time."""
"""What opens the findings of a search's last stage."""

_CAPTIONS = {
    "learning-curves.png": "Validation accuracy by epoch: mean over seeds and its 95 % interval.",
    "thresholds.png": "Accuracy by decision threshold, at each config's longest length.",
}


def render(
    spec: Spec, findings: list[str], states: Sequence[Mapping[str, Any]], figures: list[str]
) -> str:
    """The whole report, from rows of `runs`; figures lie in `figures/` beside it."""
    parts = [
        f"# {spec.name}",
        spec.question,
        *findings,
        *(f"![{_CAPTIONS[name]}](figures/{name})\n\n*{_CAPTIONS[name]}*" for name in figures),
        _failures(states),
        _provenance(spec, states),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def grid_findings(rows: list[Row]) -> list[str]:
    """The table of a grid, and what a reader must know of it."""
    return [_table(rows), _notes(rows)]


def search_findings(search: Search, tried: list[Proposal]) -> list[str]:
    """The best proposal of a search, and the table of all."""
    if not tried:
        return [best_sentence(search, tried)]
    return [best_sentence(search, tried), markdown_table(*proposal_table(search, tried))]


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; a bar inside a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in lines)


def _table(rows: list[Row]) -> str:
    if not rows:
        return "No run has been evaluated yet."
    names = label_columns(rows)
    header = [*names, "epochs", "evaluated on", *(f"{m}, %" for m in HEADLINE_METRICS), "seeds"]
    body = [
        [
            *(cell_text(row.label.get(name)) for name in names),
            str(row.epochs),
            row.where,
            *(percent(row.metrics[metric]) for metric in HEADLINE_METRICS),
            str(row.n) + (f" ({row.n_missing} missing)" if row.n_missing else ""),
        ]
        for row in rows
    ]
    return markdown_table(header, body)


def _notes(rows: list[Row]) -> str:
    reading = (
        "Means over seeds at threshold 0.5, ± half the 95 % interval of the mean (Student's t over "
        "seeds). An image counts as REAL at a probability of at least the threshold."
    )
    notes = [reading]
    few = min((row.n for row in rows if row.n), default=0)
    if 0 < few < 6:
        notes.append(
            f"With {few} seed{'' if few == 1 else 's'} no paired comparison can reach p < 0.05; "
            "6 are needed."
        )
    undefined = sorted(
        {
            (metric, row.where)
            for row in rows
            for metric in HEADLINE_METRICS
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


def _provenance(spec: Spec, states: Sequence[Mapping[str, Any]]) -> str:
    def every(name: str) -> str:
        return ", ".join(sorted({str(s[name]) for s in states if s[name] is not None})) or "–"

    seconds = sum(state["train_seconds"] or 0.0 for state in states)
    rows = [
        ["training data", f"{spec.data.train}, fingerprint {every('data.fingerprint')}"],
        ["validation", f"{every('data.validation')} training images set aside"],
        ["runs", f"{len(states)}, {seconds:,.0f} s of training"],
        ["code", every("git_commit")],
        ["versions", every("versions")],
        ["hosts", f"{every('host')}; {every('device')}"],
        ["reproduce", "`sweeps run spec.yaml` with the file beside this report"],
    ]
    return "## Provenance\n\n" + markdown_table(["", ""], rows)

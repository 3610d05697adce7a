"""The report as Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from sweeps.families import ALPHA
from sweeps.proposals import Proposal
from sweeps.report.content import Content, Results, foremost
from sweeps.report.findings import Marks, answer, marks
from sweeps.report.headline import (
    Row,
    header_text,
    headline,
    label_cells,
    label_text,
    score_text,
    varying,
)
from sweeps.report.race_frames import look_table
from sweeps.report.shown import shown
from sweeps.report.tried import best_sentence, proposal_table, studies
from sweeps.spec import Search
from sweeps.words import after

CONFIRMED = """## The best, confirmed

Trained again with seeds that chose nothing, and evaluated on test for the first time."""
"""What opens the findings of a search's last stage."""

REPORT = "report.md"
"""The file that a reader opens first."""

MAX_PROPOSALS = 50
"""Proposals in the table of a study; the page has the rest."""

MAX_COMPARISONS = 45
"""Comparisons in the table; the parquet table has the rest."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure beside the report."""

    path: str
    title: str
    caption: str


def markdown(content: Content, figures: Sequence[Picture]) -> str:
    """The whole report; its figures lie beside it."""
    results = content.results
    search = results.search
    summary = content.summary.filter(pc.field("stage") != "search")
    rows = headline(summary, results.compare.metrics)
    parts = [f"# {inline(content.name)}", inline(content.question)]
    if search is not None:
        parts += search_findings(search, content.proposals, results.held)
    if search is None or rows:
        parts += [*([] if search is None else [CONFIRMED]), *grid_findings(rows, results)]
    states = content.runs.to_pylist()
    parts += [
        "\n".join(f"- {inline(note)}" for note in content.notes),
        _looks(content),
        _comparisons(content),
        "## Figures" * bool(figures),
        *map(_figure, figures),
        _failures(states),
        _provenance(content, states),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _figure(picture: Picture) -> str:
    title, caption = inline(picture.title), inline(picture.caption)
    return f"### {title}\n\n![{title}]({picture.path})\n\n{caption}"


def grid_findings(rows: list[Row], results: Results) -> list[str]:
    """The answer, the table of configs, and what a reader must know of it."""
    marked, metrics = marks(results), results.compare.metrics
    table = _table(rows, metrics, marked)
    return [inline(answer(results)), table, _notes(rows, metrics, marked)]


def search_findings(
    search: Search, proposals: Sequence[Proposal], held: Sequence[str] = ()
) -> list[str]:
    """The best proposals of a search, and a table of those of each study.

    Args:
        search: the specification's.
        proposals: best first.
        held: parameters of which each combination of values has a study.
    """
    tried = list(proposals)
    parts = [inline(best_sentence(search, tried, held))]
    for study in studies(tried, held):
        header, rows = proposal_table(search, study.tried[:MAX_PROPOSALS])
        if study.name:
            parts.append(f"## Proposals: {inline(study.name)}")
        cells = [[*map(inline, row)] for row in rows]
        parts.append(markdown_table([*map(inline, header)], cells))
        if len(study.tried) > MAX_PROPOSALS:
            parts.append(
                f"The best {MAX_PROPOSALS} of {len(study.tried)} proposals; the page has all."
            )
    return parts


def inline(text: object) -> str:
    """Text that Markdown shows as it is, on one line: no emphasis, link, tag, code or formula."""
    line = " ".join(str(text).split())
    return _LIST.sub(r"\1\\\2", _AT_THE_START.sub(r"\\\g<0>", _MARKUP.sub(r"\\\g<0>", line)))


_MARKUP = re.compile(r"[\\`*$\[\]]|~(?=~)|<(?=[A-Za-z/!?])|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])")
"""Characters that mean something to Markdown where they stand: within a word, _ does not."""

_AT_THE_START = re.compile(r"^(?:[#>|=~]|[-+](?=\s|$|-))")
"""What makes a heading, a quotation, a table, a list or a rule of a line."""

_LIST = re.compile(r"^(\d+)([.)])(?=\s|$)")


def code(text: object) -> str:
    """Text as it is typed."""
    line = " ".join(str(text).split())
    ticks = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " * (len(ticks) > 1)
    return f"{ticks}{space}{line}{space}{ticks}"


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A table of cells in Markdown; a bar inside a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in lines)


def _table(rows: list[Row], metrics: Sequence[str], marked: Marks) -> str:
    if not rows:
        return "No run has been evaluated yet."
    names, labels = label_cells(rows)
    header = [*map(inline, names), "epochs", "evaluated on", *map(header_text, metrics), "seeds"]
    body = [
        [
            *map(inline, label),
            str(row.epochs),
            inline(row.where),
            *(
                score_text(row.metrics[metric], marked.of(row.metrics[metric]))
                for metric in metrics
            ),
            str(row.n) + (f" ({row.n_missing} missing)" if row.n_missing else ""),
        ]
        for row, label in zip(rows, labels, strict=True)
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
    return "\n\n".join(map(inline, notes))


def _looks(content: Content) -> str:
    """How far each config was behind at each look at the ranking."""
    found = look_table(shown(content)) if content.resolution is not None else None
    if found is None:
        return ""
    rows = [[*map(inline, row)] for row in found.rows]
    unit = f", in {found.unit}" if found.unit else ""
    reading = (
        f"How far each config was behind the leader at each look{unit}, with an interval that "
        "holds at all looks together."
    )
    table = markdown_table([*map(inline, found.header)], rows)
    return f"## How the ranking was resolved\n\n{table}\n\n{reading}"


def _comparisons(content: Content) -> str:
    """Each pair that is compared, by the foremost score at the longest length of each.

    Where those differ, pairs at one length come after them.
    """
    rows = _foremost(content)
    if not rows:
        return ""
    if rows[0]["epochs"] is None:
        rows += _at_one_length(content, rows[0])
    labels = [json.loads(row[side]) for row in rows for side in ("label_a", "label_b")]
    telling = varying(labels)
    share = rows[0]["unit"] == "share"

    first, longest = rows[0], content.ends
    uneven = first["epochs"] is None

    def name(row: Mapping[str, Any], side: str) -> str:
        text = label_text(json.loads(row[side]), telling)
        if not uneven:
            return inline(text)
        epochs = longest.of(row["stage"], row[side], row["epochs"])
        return inline(f"{text} {after(epochs)}")

    unit = "points" if share else "a − b"
    header = ["a", "b", f"difference, {unit}", "95 % interval", "p", "corrected p", "P(a > b)", "n"]
    body = [
        [
            name(row, "label_a"),
            name(row, "label_b"),
            _signed(row["difference"], share=share),
            f"{_signed(row['low'], share=share)} to {_signed(row['high'], share=share)}",
            _p(row["p"]),
            _p(row["p_holm"]) + (" *" if row["significant"] else ""),
            "–"
            if row["probability_of_improvement"] is None
            else f"{row['probability_of_improvement']:.2f}",
            str(row["n"]) + (f" ({row['n_missing']} missing)" if row["n_missing"] else ""),
        ]
        for row in rows[:MAX_COMPARISONS]
    ]
    left = len(rows) - MAX_COMPARISONS
    sizes = " or ".join(map(str, sorted({row["comparisons"] for row in rows})))
    lengths = f"{after(None)}, then at one" if uneven else after(first["epochs"])
    reading = (
        f"{first['metric'].replace('_', ' ')} on {first['dataset']} {first['split']} "
        f"{lengths}: a − b, paired by seed; p by the sign-flip permutation test, "
        f"two-sided, corrected by Holm's method over {sizes}; \\* below {ALPHA}."
    )
    more = f" {left} more are in `comparisons.parquet`, as are other scores and lengths."
    less = " Other scores and lengths are in `comparisons.parquet`."
    return "\n\n".join(
        ["## Comparisons", markdown_table(header, body), reading + (more if left > 0 else less)]
    )


def _foremost(content: Content) -> list[Mapping[str, Any]]:
    """Comparisons by the foremost score on the foremost data set, at the longest length."""
    rows = content.comparisons.to_pylist()
    return [row for row in foremost(rows, content.results) if row["n"]]


def _at_one_length(content: Content, at_ends: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Comparisons by the same score at one length, the longest first, of what are no two ends."""
    same = ("stage", "dataset", "split", "metric")
    rows = [
        row
        for row in content.comparisons.to_pylist()
        if all(row[name] == at_ends[name] for name in same)
    ]
    told = [row for row in content.ends.once(rows) if row["epochs"] is not None and row["n"]]
    return sorted(told, key=lambda row: -int(row["epochs"]))


def _signed(value: float | None, *, share: bool) -> str:
    if value is None:
        return "–"
    return (f"{100 * value:+.2f}" if share else f"{value:+.4f}").replace("-", "−")


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _failures(states: Sequence[Mapping[str, Any]]) -> str:
    failed = [state for state in states if state["error"]]
    if not failed:
        return ""
    rows = [
        [
            code(s["run_id"]),
            str(s["seed"]),
            s["status"],
            inline(s["error"].strip().splitlines()[-1]),
        ]
        for s in failed
    ]
    return "## Runs that failed\n\n" + markdown_table(["run", "seed", "status", "error"], rows)


def _provenance(content: Content, states: Sequence[Mapping[str, Any]]) -> str:
    def every(name: str) -> str:
        found = sorted({str(s[name]) for s in states if s[name] is not None})
        return inline(", ".join(found)) or "–"

    seconds = sum(state["train_seconds"] or 0.0 for state in states)
    rows = [
        ["training data", f"{every('data.train')}, fingerprint {every('data.fingerprint')}"],
        ["validation", f"{every('data.validation')} training images set aside"],
        ["runs", f"{len(states)}, {seconds:,.0f} s of training"],
        ["code", every("git_commit")],
        ["versions", every("versions")],
        ["hosts", f"{every('host')}; {every('device')}"],
        ["reproduce", "; ".join(map(code, content.commands))],
    ]
    return "## Provenance\n\n" + markdown_table(["", ""], rows)

"""The tables of a report as LaTeX, for a paper: fragments to take in, and a page that compiles."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import pyarrow.compute as pc

from cifake.tables import score_unit
from sweeps.report.bibliography import FILE as BIBLIOGRAPHY
from sweeps.report.content import Content
from sweeps.report.ends import Ends
from sweeps.report.findings import Marks, marks
from sweeps.report.headline import Row, cell_text, headline, varying
from sweeps.report.tex import Column, TexTable, draw, escape, identifier
from sweeps.report.tried import best_sentence, outcome_table, studies
from sweeps.words import counted

FOLDER = "tables"
"""Where the files lie beside a report."""

RESULTS, COMPARISONS, SEARCH, WHOLE = "results.tex", "comparisons.tex", "search.tex", "tables.tex"

MAX_ROWS = 200
"""Rows of a table; the parquet table has the rest."""

STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))
"""Marks of corrected p-values below a bound, the strictest first."""

METRICS_A_TABLE = 3
PARAMETERS_A_TABLE = 4
"""Columns of parameters; of more, all stand in one."""

_WIDE, _WIDE_PAIR = r"p{0.3\linewidth}", r"p{0.18\linewidth}"
"""Of a column whose text is broken into lines, and of one of two such columns."""

_LONGEST = 24
"""Letters of a text that is not."""

_WORDS = {"auroc": "AUROC", "f1": "F1", "ece": "ECE", "tpr_at_5_fpr": "TPR at 5 % FPR"}

_STANDALONE = r"""\documentclass[10pt]{article}
\usepackage[margin=2cm]{geometry}
\usepackage{booktabs}
\usepackage{longtable}
\usepackage{url}
\setlength{\belowcaptionskip}{6pt}
\begin{document}
\section*{%s}
%s

%s
\nocite{*}
\bibliographystyle{plain}
\bibliography{%s}
\end{document}
"""
_FRAGMENT = (
    "% \\usepackage{booktabs} in the preamble; {longtable} too where a table is of several pages.\n"
)


def tables(content: Content) -> dict[str, str]:
    """Every file by name. `tables.tex` is a page of its own that takes in the others.

    The page cites every entry of the bibliography, which lies beside it.

    Args:
        content: the report's. Its numbers are printed as they stand in its tables: shares in
            percent with two decimals, all others with four.
    """
    drawn = {
        RESULTS: [*results(content)],
        COMPARISONS: [*comparisons(content)],
        SEARCH: [*tried(content)],
    }
    files = {
        name: _FRAGMENT + "\n".join(map(draw, group)) for name, group in drawn.items() if group
    }
    inputs = "\n".join(rf"\input{{{name}}}" for name in files)
    page = _STANDALONE % (
        escape(content.name),
        escape(content.question),
        inputs or "No run has been evaluated yet.",
        BIBLIOGRAPHY.removesuffix(".bib"),
    )
    return {**files, WHOLE: page}


def results(content: Content) -> Iterator[TexTable]:
    """Mean and interval of every config at every length: a table for each data set."""
    rows = headline(content.summary.filter(pc.field("stage") == content.stage))
    shown = _tested(rows)
    if not shown:
        return
    marked = marks(content.results, splits=sorted({row.split for row in shown}))
    for where, part in groupby(shown, key=lambda row: (row.dataset, row.split)):
        found = list(part)
        metrics = [
            m for m in content.compare.metrics if any(_mean(r, m) is not None for r in found)
        ]
        for start in range(0, len(metrics), METRICS_A_TABLE):
            suffix = [] if start == 0 else [str(start // METRICS_A_TABLE + 1)]
            label = identifier(content.name, *where, *suffix)
            chosen = metrics[start : start + METRICS_A_TABLE]
            yield _results(content.name, label, found, chosen, marked)


def _results(
    name: str, label: str, rows: Sequence[Row], metrics: Sequence[str], marked: Marks
) -> TexTable:
    named = _Labels([row.label for row in rows])
    uneven = len({row.n for row in rows}) > 1 or any(row.n_missing for row in rows)
    columns = [*named.columns, Column(title="epochs", align="r")]
    for metric in metrics:
        unit = r", \%" if _is_share(metric) else ""
        columns.append(Column(title=_words(metric) + unit, align="r@{}l", span=2))
    columns += [Column(title="runs", align="r")] * uneven
    body = [
        [
            *named.cells(row.label),
            str(row.epochs),
            *(cell for metric in metrics for cell in _number(row.metrics[metric], marked)),
            *([_runs(row)] if uneven else []),
        ]
        for row in rows[:MAX_ROWS]
    ]
    over = "runs" if uneven else counted(rows[0].n, "run")
    where = f"{escape(rows[0].dataset)}, {escape(rows[0].split)} split"
    caption = [
        f"{escape(name)}: {where}.",
        rf"Mean over {over}, $\pm$ half its 95\,\% interval (Student's $t$).",
        escape(marked.legend),
        *_left_out(rows),
    ]
    by_config = groupby(range(len(body)), key=lambda place: rows[place].label)
    blocks = [[body[place] for place in places] for _, places in by_config]
    if all(len(block) == 1 for block in blocks):
        blocks = [body]
    return TexTable(
        caption=" ".join(filter(None, caption)), label=label, columns=columns, groups=blocks
    )


def comparisons(content: Content) -> Iterator[TexTable]:
    """Differences between configs, paired by seed: a table for each metric and data set."""
    rows = content.comparisons.filter(pc.field("stage") == content.stage).to_pylist()
    rows = [row for row in rows if row["n"]]
    labels = [json.loads(row[side]) for side in ("label_a", "label_b") for row in rows]
    named, longest = _Labels(labels), content.ends
    if any(row["split"] == "test" for row in rows):
        rows = [row for row in rows if row["split"] == "test"]
    rows = longest.once(rows)
    order = {metric: place for place, metric in enumerate(content.compare.metrics)}

    def table_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
        where = (row["metric"], row["dataset"], row["split"])
        return (order.get(row["metric"], len(order)), *where)

    for (_, *where), part in groupby(sorted(rows, key=table_of), key=table_of):
        label = identifier(content.name, "comparisons", *where)
        found = sorted(part, key=lambda row: (row["epochs"] is not None, row["epochs"] or 0))
        yield _comparisons(content.name, label, found, named, longest)


def _comparisons(
    name: str, label: str, rows: Sequence[Mapping[str, Any]], named: _Labels, longest: Ends
) -> TexTable:
    first = rows[0]
    share = first["unit"] == "share"
    body = [
        [
            named.text(json.loads(row["label_a"])),
            named.text(json.loads(row["label_b"])),
            _lengths(row, longest),
            str(row["n"]),
            f"${_scaled(row['difference'], '+', share=share)}$",
            _interval(row["low"], row["high"], share=share),
            _p(row["p"]),
            _p(row["p_holm"], _stars(row["p_holm"])),
            _two_decimals(row["probability_of_improvement"]),
        ]
        for row in rows[:MAX_ROWS]
    ]
    counts = sorted({row["comparisons"] for row in rows})
    legend = ", ".join(rf"$^{{{mark}}}$\,below {bound}" for bound, mark in reversed(STARS))
    what = (
        f"{_words(first['metric'])} on {escape(first['dataset'])}, {escape(first['split'])} split"
    )
    points = ", in percentage points" * share
    total = " or ".join(map(str, counts)) + " comparison" + "s" * (counts != [1])
    caption = [
        f"{escape(name)}: differences $a - b$ in {what}, paired by seed{points}.",
        r"Interval: 95\,\% of their mean (Student's $t$).",
        r"$p$: sign-flip permutation test, two-sided; $p_\mathrm{Holm}$: corrected",
        f"over {total}; {legend}.",
        "$P(a>b)$: probability that a run of $a$ beats one of $b$.",
        *map(escape, _least(rows)),
        *_left_out(rows),
    ]
    columns = [
        Column(title="$a$", align=named.pair),
        Column(title="$b$", align=named.pair),
        Column(title="epochs", align="r"),
        Column(title="pairs", align="r"),
        Column(title="$a - b$", align="r"),
        Column(title=r"95\,\% interval", align="r"),
        Column(title="$p$"),
        Column(title=r"$p_\mathrm{Holm}$"),
        Column(title="$P(a>b)$", align="r"),
    ]
    by_length = groupby(range(len(body)), key=lambda place: rows[place]["epochs"])
    blocks = [[body[place] for place in places] for _, places in by_length]
    return TexTable(
        caption=" ".join(filter(None, caption)), label=label, columns=columns, groups=blocks
    )


def _lengths(row: Mapping[str, Any], longest: Ends) -> str:
    """Epochs of both configs of a comparison."""
    both = [longest.of(row["stage"], row[side], row["epochs"]) for side in ("label_a", "label_b")]
    return ", ".join(map(str, dict.fromkeys(both)))


def tried(content: Content) -> Iterator[TexTable]:
    """What a search tried, a table for each study, best first."""
    search = None if content.spec is None else content.spec.search
    if search is None:
        return
    for study in studies(content.proposals, content.results.held):
        shown = study.tried[:MAX_ROWS]
        named = _Labels([proposal.label for proposal in shown])
        header, rows = outcome_table(search, shown)
        of = [study.name] if study.name else []
        title = escape(", ".join([content.name, *of]))
        sentence = escape(best_sentence(search, study.tried))
        yield TexTable(
            caption=" ".join([f"{title}: {sentence}", *_left_out(study.tried)]),
            label=identifier(content.name, "search", *of),
            columns=[*named.columns, *(Column(title=_last(name)) for name in header)],
            groups=[
                [
                    [*named.cells(proposal.label), *map(escape, row)]
                    for proposal, row in zip(shown, rows, strict=True)
                ]
            ],
        )


class _Labels:
    """How configs are told apart in a table: a column a parameter, or all in one."""

    def __init__(self, labels: Sequence[Mapping[str, Any]]) -> None:
        first = [*labels[0]][:1] if labels else []
        self._names = varying(labels) or first
        self._folded = len(self._names) > PARAMETERS_A_TABLE
        self._longest = {
            name: max(len(cell_text(label.get(name))) for label in labels) for name in self._names
        }
        texts = [self._plain(label) for label in labels]
        self._broken = max(map(len, texts), default=0) > _LONGEST

    @property
    def columns(self) -> list[Column]:
        """Those that `cells` fills."""
        if self._folded:
            return [Column(title="configuration", align=_WIDE if self._broken else "l")]
        return [
            Column(title=_last(name), align=_WIDE if self._longest[name] > _LONGEST else "l")
            for name in self._names
        ]

    @property
    def pair(self) -> str:
        """How one of two columns is aligned that hold a config in a cell each."""
        return _WIDE_PAIR if self._broken else "l"

    def cells(self, label: Mapping[str, Any]) -> list[str]:
        """A config, a cell a column."""
        if self._folded:
            return [self.text(label)]
        return [escape(cell_text(label.get(name))) for name in self._names]

    def text(self, label: Mapping[str, Any]) -> str:
        """A config in one cell."""
        # Ragged, so that narrow columns need no wide gaps.
        return r"\raggedright " * self._broken + escape(self._plain(label))

    def _plain(self, label: Mapping[str, Any]) -> str:
        values = {n: cell_text(label[n]) for n in self._names if label.get(n) is not None}
        if self._folded:
            return ", ".join(f"{name.rpartition('.')[2]} {text}" for name, text in values.items())
        return ", ".join(dict.fromkeys(values.values())) or "–"


def _tested(rows: Sequence[Row]) -> Sequence[Row]:
    """Test splits, and validation where nothing was tested."""
    return [row for row in rows if row.split == "test"] or rows


def _mean(row: Row, metric: str) -> float | None:
    return row.metrics[metric]["mean"]


def _is_share(metric: str) -> bool:
    return score_unit(metric) == "share"


def _number(found: Mapping[str, Any], marked: Marks) -> list[str]:
    """Two cells: the mean, and what follows it."""
    if found["mean"] is None:
        return ["--", ""]
    share = found["unit"] == "share"
    follows = ""
    if found["low"] is not None and found["high"] is not None:
        follows = rf"${{}} \pm {_scaled((found['high'] - found['low']) / 2, share=share)}$"
    mark = escape(marked.of(found))
    return [f"${_scaled(found['mean'], share=share)}$", follows + rf"\,{mark}" * bool(mark)]


def _scaled(value: float | None, sign: str = "", *, share: bool) -> str:
    if value is None:
        return r"\textrm{--}"
    return f"{100 * value:{sign}.2f}" if share else f"{value:{sign}.4f}"


def _interval(low: float | None, high: float | None, *, share: bool) -> str:
    if low is None or high is None:
        return "--"
    return rf"$[{_scaled(low, share=share)},\ {_scaled(high, share=share)}]$"


def _p(value: float | None, mark: str = "") -> str:
    if value is None:
        return "--"
    raised = rf"\rlap{{$^{{{mark}}}$}}" if mark else ""
    return ("$<0.001$" if value < 0.001 else f"{value:.3f}") + raised


def _stars(p: float | None) -> str:
    return next((mark for bound, mark in STARS if p is not None and p < bound), "")


def _least(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """That a family cannot reach significance with so few pairs, where it cannot."""
    bounds = [(r["smallest_p"], r["comparisons"]) for r in rows if r["smallest_p"] is not None]
    if not bounds or any(p * count < STARS[-1][0] for p, count in bounds):
        return []
    return [f"With so few pairs none can fall below {STARS[-1][0]}."]


def _two_decimals(value: float | None) -> str:
    return "--" if value is None else f"{value:.2f}"


def _runs(row: Row) -> str:
    return f"{row.n} of {row.n + row.n_missing}" if row.n_missing else str(row.n)


def _words(metric: str) -> str:
    return escape(_WORDS.get(metric, metric.replace("_", " ")))


def _last(name: str) -> str:
    """A parameter without the section that it stands in."""
    return escape(name.rpartition(".")[2])


def _left_out(rows: Sequence[object]) -> list[str]:
    return [f"The first {MAX_ROWS} of {len(rows)} rows."] if len(rows) > MAX_ROWS else []

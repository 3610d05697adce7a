"""The report on tables made by hand."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from cifake import tables
from sweeps import aggregate, comparisons, rankings
from sweeps.objectives import Reached
from sweeps.proposals import Proposal
from sweeps.report.console import print_results
from sweeps.report.content import Content
from sweeps.report.files import files
from sweeps.report.findings import answer
from sweeps.report.headline import headline, label_columns, label_text, percent, score_text
from sweeps.report.markdown import (
    Picture,
    grid_findings,
    markdown,
    markdown_table,
    search_findings,
)
from sweeps.report.tried import print_proposals
from sweeps.spec import Compare, Confirm, Dimension, Reach, Search

NONE = {"attention": "none", "optimizer.lr": 0.01}
SRM = {"attention": "srm", "optimizer.lr": 0.01}
PICTURE = Picture(path="figures/thresholds.png", title="Thresholds", caption="Which is best?")
SEARCH = Search(
    trials=4,
    metric=["validation.accuracy"],
    space={"optimizer.lr": Dimension(log_uniform=[1e-3, 1e-1])},
)


def run_id(label: dict[str, Any], seed: int) -> str:
    return f"{'-'.join(map(str, label.values()))}-{seed}"


def cells_of(labels: list[dict[str, Any]], lengths: list[int], seeds: int) -> pa.Table:
    rows = [
        {
            "label": json.dumps(label),
            "nuisance": "{}",
            "epochs": length,
            "seed": seed,
            "config_id": run_id(label, 0),
            "run_id": run_id(label, seed),
            "stage": "grid",
            "role": "end" if length == max(lengths) else "milestone",
        }
        for label in labels
        for length in lengths
        for seed in range(seeds)
    ]
    return tables.TABLES["cells"].from_rows(rows)


def evaluation(run: str, epoch: int, split: str, dataset: str = "demo", **scores: Any) -> Any:
    counts = dict.fromkeys(("tp", "fp", "tn", "fn"), 5)
    keys = {"run_id": run, "epoch": epoch, "dataset": dataset, "split": split}
    sizes = {"n": 20, "n_unreadable": 0, "n_deduplicated": 20}
    return {**keys, **sizes, "threshold": 0.5, **counts, **scores}


def evaluations_of(
    labels: list[dict[str, Any]], lengths: list[int], seeds: int, seed: int = 0
) -> pa.Table:
    rng = np.random.default_rng(seed)
    rows = [
        evaluation(run_id(label, s), epoch, split, accuracy=rng.random(), auroc=rng.random())
        for label in labels
        for s in range(seeds)
        for epoch in range(1, max(lengths) + 1)
        for split in (("validation", "test") if epoch in lengths else ("validation",))
    ]
    return tables.TABLES["evaluations"].from_rows(rows)


def runs_of(labels: list[dict[str, Any]], seeds: int, **changes: Any) -> list[dict[str, Any]]:
    return [
        {
            "run_id": run_id(label, seed),
            "config_id": run_id(label, 0),
            "seed": seed,
            "status": "complete",
            "fallbacks": [],
            "epochs_done": 2,
            "evaluated": [],
            "stack": [seed],
            "trainer_version": 1,
            **changes,
        }
        for label in labels
        for seed in range(seeds)
    ]


def table_rows(text: str) -> list[list[list[str]]]:
    """Every Markdown table as rows of cells, split at bars that are not escaped."""
    found: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.endswith("|")
            found[-1].append([c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif found[-1]:
            found.append([])
    return [rows for rows in found if rows]


def assert_tables_parse(text: str) -> list[list[list[str]]]:
    parsed = table_rows(text)
    for rows in parsed:
        assert set(rows[1]) == {"---"}, "a header, a rule, rows"
        assert len({len(row) for row in rows}) == 1, "the same number of cells in each row"
    return parsed


def summarised(cells: pa.Table, evaluations: pa.Table) -> pa.Table:
    return aggregate.summary("a", cells, evaluations)


def content_of(
    cells: pa.Table,
    evaluations: pa.Table,
    runs: list[dict[str, Any]] | None = None,
    thresholds: pa.Table | None = None,
    compare: Compare | None = None,
    **changes: Any,
) -> Content:
    compare = compare or Compare()
    scores = comparisons.scores(cells, evaluations, compare.metrics)
    compared = comparisons.comparisons("a", compare, scores)
    given: dict[str, Any] = {
        "name": "a",
        "question": "Why?",
        "spec": None,
        "compare": compare,
        "cells": cells,
        "runs": tables.TABLES["runs"].from_rows(runs or []),
        "evaluations": evaluations,
        "labels": tables.TABLES["labels"].empty(),
        "summary": summarised(cells, evaluations),
        "comparisons": compared,
        "ranking": rankings.ranking("a", scores, compared),
        "effects": tables.TABLES["effects"].empty(),
        "proposals": [],
        "forecasts": [],
        "explanations": None,
        "notes": [],
        "commands": ["sweeps run spec.yaml"],
        "read": lambda table, _: thresholds or tables.TABLES[table].empty(),
    }
    return Content(**{**given, **changes})


def found_in(content: Content) -> list[str]:
    rows = headline(content.summary)
    return grid_findings(rows, content.results)


def test_every_table_of_a_report_parses() -> None:
    cells = cells_of([NONE, SRM], [1, 2], 6)
    content = content_of(cells, evaluations_of([NONE, SRM], [1, 2], 6), runs_of([NONE, SRM], 6))
    text = markdown(content, [PICTURE])
    results, _, provenance = assert_tables_parse(text)
    assert len(results) == 2 + 2 * 2 * 2
    assert results[0][0] == "attention", "the parameter that tells the rows apart comes first"
    assert "optimizer.lr" not in results[0]
    assert ["reproduce", "`sweeps run spec.yaml`"] in provenance
    assert text.startswith("# a\n\nWhy?\n\nOn demo test after 2 epochs, ")
    assert "(figures/thresholds.png)" in text
    assert text.endswith("\n")


def test_each_row_shows_the_mean_and_half_the_interval() -> None:
    cells = cells_of([NONE], [2], 6)
    content = content_of(cells, evaluations_of([NONE], [2], 6))
    numbers = {
        (row["split"], row["metric"]): row
        for row in content.summary.to_pylist()
        if row["metric"] in ("accuracy", "auroc")
    }
    (rows,) = table_rows(found_in(content)[1])
    for cells_ in rows[2:]:
        split = cells_[-4].split()[-1]
        for metric, text in zip(("accuracy", "auroc"), cells_[-3:-1], strict=True):
            row = numbers[split, metric]
            mean, half = (float(part) for part in text.split("±"))
            assert mean == pytest.approx(100 * row["mean"], abs=0.005)
            assert half == pytest.approx(50 * (row["high"] - row["low"]), abs=0.005)


def test_test_comes_before_validation_and_short_before_long() -> None:
    cells = cells_of([SRM, NONE], [10, 2], 2)
    rows = headline(summarised(cells, evaluations_of([SRM, NONE], [10, 2], 2)))
    order = [(row.split, row.label["attention"], row.epochs) for row in rows]
    assert order == [
        (split, attention, epochs)
        for split in ("test", "validation")
        for attention in ("none", "srm")
        for epochs in (2, 10)
    ]


def test_missing_runs_are_shown() -> None:
    content = content_of(cells_of([NONE], [1], 6), evaluations_of([NONE], [1], 4))
    (row, *_) = headline(content.summary)
    assert (row.n, row.n_missing) == (4, 2)
    assert "4 (2 missing)" in found_in(content)[1]


def test_an_undefined_metric_says_why() -> None:
    rows = [
        evaluation(run_id(NONE, seed), 1, "test", "cifar100", accuracy=0.5, auroc=None)
        for seed in range(6)
    ]
    evaluations = tables.TABLES["evaluations"].from_rows(rows)
    _, table, notes = found_in(content_of(cells_of([NONE], [1], 6), evaluations))
    assert table_rows(table)[0][-1][-2] == "–"
    assert "auroc is undefined on cifar100 test: it holds one class only" in notes
    assert "accuracy is undefined" not in notes


def test_failures_are_listed_with_their_last_line() -> None:
    cells, evaluations = cells_of([NONE], [2], 2), evaluations_of([NONE], [2], 2)
    runs = runs_of([NONE], 2)
    runs[0] |= {"status": "failed", "error": "Traceback\n  ...\nRuntimeError: a | b\n"}
    runs[1] |= {"status": "diverged", "error": "loss became nan in epoch 1, batch 3"}
    _, failures, _ = assert_tables_parse(markdown(content_of(cells, evaluations, runs), []))
    assert [row[2] for row in failures[2:]] == ["failed", "diverged"]
    assert failures[2][3] == r"RuntimeError: a \| b"
    assert failures[3][3] == "loss became nan in epoch 1, batch 3"
    assert "failed" not in markdown(content_of(cells, evaluations, runs_of([NONE], 2)), [])


@pytest.mark.parametrize("text", ["a|b", "|", "", "a || b"])
def test_a_cell_stays_one_cell_whatever_it_holds(text: str) -> None:
    table = markdown_table(["x", "y"], [[text, "1"], ["2", text]])
    (rows,) = assert_tables_parse(table)
    assert len(rows) == 4
    assert {len(row) for row in rows} == {2}


def test_without_evaluations_the_report_says_so() -> None:
    content = content_of(cells_of([NONE], [1], 2), tables.TABLES["evaluations"].empty())
    text = markdown(content, [])
    assert_tables_parse(text)
    assert "No run has been evaluated yet" in text


def test_labels_in_words() -> None:
    assert label_text({"attention": "srm", "placement": "both", "optimizer.lr": 0.001}) == (
        "srm · both · lr 0.001"
    )
    assert label_text({"attention": "none", "placement": "none"}) == "no attention"
    assert label_text({"model.batch_norm": True, "augment.flip": False}) == "batch norm · no flip"
    assert label_text({"optimizer.weight_decay": 0, "seed": None}) == "weight decay 0"
    assert label_text({"data.leave_out": None}) == "with all classes"
    assert label_text({"data.leave_out": "cat", "data.train_images": 500}) == (
        "without cat · 500 images"
    )
    assert label_text({}) == "all"
    assert percent({"mean": None, "low": None, "high": None}) == "–"
    assert percent({"mean": 0.5, "low": None, "high": None}) == "50.00"


def test_scores_that_are_no_shares_stand_in_their_own_unit() -> None:
    loss = {"mean": 0.25, "low": 0.2, "high": 0.3, "unit": "nats"}
    assert score_text(loss) == "0.2500 ± 0.0500"
    assert score_text({**loss, "low": None}) == "0.2500"
    assert score_text({**loss, "mean": None}) == "–"
    assert score_text({**loss, "unit": "share"}, "↓") == "25.00 ± 5.00 ↓"


def test_the_console_shows_what_the_report_shows() -> None:
    cells = cells_of([NONE, SRM], [1, 2], 6)
    content = content_of(cells, evaluations_of([NONE, SRM], [1, 2], 6), notes=["One is [missing]."])
    text = printed(content)
    rows = headline(content.summary)
    for row in rows:
        shown = percent(row.metrics["accuracy"]) in text
        assert shown == (row.split == "test")
    assert label_columns(rows) == ["attention"]
    assert answer(content.results) in text.replace("\n", " ")
    assert "note: One is [missing]." in text


def test_a_narrow_console_folds_names_and_cuts_no_number() -> None:
    labels = [
        {**label, "attention_options.reduction_of_channels": size, "placement": "after_pool1"}
        for label in (NONE, SRM)
        for size in (1_000_000, 2_000_000)
    ]
    content = content_of(cells_of(labels, [1], 6), evaluations_of(labels, [1], 6))
    text = printed(content, width=80)
    assert "…" not in text
    for row in headline(content.summary):
        assert row.split != "test" or percent(row.metrics["accuracy"]) in text


def printed(content: Content, width: int = 1000) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_results(content.results, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


# A search.


def proposal(value: float, *, stopped: bool = False, **label: Any) -> Proposal:
    metric = "validation.accuracy"
    reached = Reached(1 if stopped else 2, {metric: value}, {metric: 0.01})
    return Proposal(label, reached, stopped, 2, {metric: value - 0.1}, {metric: value + 0.1})


def test_the_best_proposal_is_told_with_what_it_is_worth() -> None:
    tried = [proposal(0.85, lr=0.01), proposal(0.95, lr=0.1, stopped=True)]
    sentence, table = search_findings(SEARCH, tried)
    assert (
        "Best of 2 proposals after 2 epochs: validation.accuracy 0.8500 with lr = 0.01" in sentence
    )
    assert "chosen on validation; the test split was not looked at" in sentence
    assert "| 0.1 | 1 (stopped) | 0.9500 | 0.8500 – 1.0500 | 2 |" in table
    assert_tables_parse(table)
    confirmed = SEARCH.model_copy(update={"confirm": Confirm()})
    assert "by what is confirmed alone" in search_findings(confirmed, tried)[0]


def test_several_metrics_are_told_as_a_front() -> None:
    both = ["validation.accuracy", "parameters"]
    search = SEARCH.model_copy(update={"metric": both, "mode": ["max", "min"]})
    tried = [
        Proposal(
            {"lr": lr}, Reached(2, scores, dict.fromkeys(both, 0.0)), False, 2, scores, scores, f
        )
        for lr, f, values in (
            (0.1, 0, (0.9, 61241.0)),
            (0.2, 0, (0.8, 100.0)),
            (0.3, 1, (0.7, 200.0)),
        )
        for scores in [dict(zip(both, values, strict=True))]
    ]
    sentence, table = search_findings(search, tried)
    assert "On the front of 3 proposals after 2 epochs: 2," in sentence
    assert "validation.accuracy 0.9000 and parameters 61,241 with lr = 0.1" in sentence
    assert [row.split(" | ")[-1] for row in table.splitlines()[2:]] == ["1 |", "1 |", "2 |"]
    assert_tables_parse(table)


def test_a_score_to_be_reached_is_told_with_its_time() -> None:
    reach = Reach(metric="validation.accuracy", value=0.9)
    goal = Search.model_validate({"trials": 2, "reach": reach.model_dump(), "space": SEARCH.space})
    scores = {"train_seconds": 41.0, "validation.accuracy": 0.91}
    there = Proposal({"lr": 0.1}, Reached(2, scores, scores), False, 2, scores, scores)
    scores = {"train_seconds": 7.0, "validation.accuracy": 0.85}
    short = Proposal({"lr": 0.2}, Reached(4, scores, scores), False, 2, scores, scores, short=True)
    sentence, table = search_findings(goal, [there, short])
    assert sentence.startswith(
        "1 of 2 proposals reached a validation.accuracy of 0.9. Soonest after 2 epochs: "
        "train_seconds 41 and validation.accuracy 0.9100 with lr = 0.1."
    )
    assert "| 0.2 | 4 (short) | 7.0000 |" in table
    assert_tables_parse(table)
    (nothing, _) = search_findings(goal, [short])
    assert nothing.startswith("No proposal of 1 reached a validation.accuracy of 0.9; nearest: ")


def test_every_study_of_a_search_has_its_best_told_and_a_table_of_its_own_parameters() -> None:
    tried = [
        proposal(0.9, model="base", lr=0.1, leaves=None),
        *(proposal(0.8, model="statistics", lr=None, leaves=n) for n in range(15, 66)),
    ]
    sentence, base, rows, statistics, others, left = search_findings(SEARCH, tried, ["model"])
    assert "Best of 52 proposals after 2 epochs: validation.accuracy 0.9000 with" in sentence
    assert "Of statistics, best after 2 epochs: validation.accuracy 0.8000 with" in sentence
    assert (base, statistics) == ("## Proposals: base", "## Proposals: statistics")
    assert (rows.count("\n"), others.count("\n")) == (2, 51)
    assert ("lr" in rows, "leaves" in rows) == (True, False)
    assert ("lr" in others, "leaves" in others) == (False, True)
    assert left == "The best 50 of 51 proposals; the page has all."


def test_many_parameters_of_proposals_are_a_line_each_on_a_console() -> None:
    names = [f"parameter{n}" for n in range(7)]
    tried = [proposal(0.9 - n / 100, **dict.fromkeys(names, 1000 + n)) for n in range(6)]
    console = Console(file=io.StringIO(), width=80)
    print_proposals(SEARCH, tried, [], console)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    (first,) = [line for line in lines if line.startswith("│ parameter0 ")]
    assert [cell.strip() for cell in first.strip("│").split("│")][1:] == [
        *map(str, range(1000, 1005))
    ]


def test_many_parameters_of_configs_stand_in_one_column() -> None:
    labels = [{f"optimizer.parameter{n}": base + n for n in range(7)} for base in (100, 200)]
    content = content_of(cells_of(labels, [1], 6), evaluations_of(labels, [1], 6))
    text = printed(content, width=80)
    assert "┃ config" in text
    assert "parameter0 100" in text
    found = files(content)["report.md"].decode()
    assert "| config | epochs |" in found


def test_a_search_without_values_says_so() -> None:
    assert search_findings(SEARCH, []) == ["No proposal has a value yet."]
    console = Console(file=io.StringIO(), width=120)
    print_proposals(SEARCH, [], [], console)
    assert isinstance(console.file, io.StringIO)
    assert "No proposal has a value yet." in console.file.getvalue()


def test_a_report_links_only_figures_that_are_made() -> None:
    content = content_of(cells_of([NONE, SRM], [2], 3), evaluations_of([NONE, SRM], [2], 3))
    found = files(content)
    text = found["report.md"].decode()
    linked = re.findall(r"\]\((figures/[^)]+)\)", text)
    assert {"figures/differences.png", "figures/learning.png"} <= set(linked)
    drawn = {name for name in found if name.startswith("figures/")}
    assert drawn == {name.replace("png", kind) for name in linked for kind in ("png", "svg", "pdf")}
    tables_ = {"tables/results.tex", "tables/comparisons.tex", "tables/tables.tex"}
    assert found.keys() - drawn == {"report.md", "report.html", "tables/references.bib", *tables_}
    assert_tables_parse(text)

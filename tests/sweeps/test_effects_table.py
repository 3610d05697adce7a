"""The table of effects: cells and evaluations of a grid, and proposals of a search, to its rows."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cifake import tables
from sweeps.effects import at_border, effects, importances
from sweeps.objectives import Reached
from sweeps.proposals import Proposal
from sweeps.spec import Dimension, Spec
from sweeps.statistics import decompose

Rows = list[dict[str, Any]]

ATTENTION = [("none", "none"), ("srm", "after_pool1"), ("srm", "both")]


def cell(label: dict[str, Any], epochs: int, seed: int, **fields: Any) -> dict[str, Any]:
    nuisance = fields.pop("nuisance", {})
    text = json.dumps(label, sort_keys=True)
    run_id = f"{text}-{json.dumps(nuisance)}-{seed}"
    keys = {"label": text, "nuisance": json.dumps(nuisance), "epochs": epochs, "seed": seed}
    return {**keys, "config_id": text, "run_id": run_id, "stage": "grid", "role": "end", **fields}


def evaluation(row: dict[str, Any], split: str = "test", **scores: float | None) -> dict[str, Any]:
    counts = dict.fromkeys(("tp", "fp", "tn", "fn"), 5)
    sizes = {"n": 20, "n_unreadable": 0, "n_deduplicated": 20, "threshold": 0.5}
    keys = {"run_id": row["run_id"], "epoch": row["epochs"], "dataset": "demo", "split": split}
    return {**keys, **sizes, **counts, **scores}


def made(seeds: int = 6) -> tuple[Rows, Rows]:
    """Attention, its placement and two lengths; both splits."""
    rng = np.random.default_rng(4)
    cells = [
        cell({"attention": attention, "placement": placement}, epochs, seed)
        for attention, placement in ATTENTION
        for epochs in (1, 2)
        for seed in range(seeds)
    ]
    evaluations = [
        evaluation(row, split, accuracy=rng.random(), loss=rng.random())
        for row in cells
        for split in ("validation", "test")
    ]
    return cells, evaluations


def table(cells: Rows, evaluations: Rows, metrics: Sequence[str] = ("accuracy",)) -> pa.Table:
    return effects(
        "a",
        tables.TABLES["cells"].from_rows(cells),
        tables.TABLES["evaluations"].from_rows(evaluations),
        metrics,
    )


def rows_of(found: pa.Table, **where: Any) -> Rows:
    return [row for row in found.to_pylist() if all(row[k] == v for k, v in where.items())]


# A grid.


def test_every_split_and_metric_has_a_row_for_each_term_and_level() -> None:
    found = table(*made(), ("accuracy", "loss"))
    assert found.schema.equals(tables.TABLES["effects"].schema)
    keys = tables.TABLES["effects"].keys
    assert len({tuple(row[key] for key in keys) for row in found.to_pylist()}) == len(found)
    for split in ("validation", "test"):
        for metric, unit in (("accuracy", "share"), ("loss", "nats")):
            rows = rows_of(found, split=split, metric=metric, level="")
            assert [(row["kind"], row["term"], row["df"]) for row in rows] == [
                ("main", "attention", 1),
                ("main", "placement", 1),
                ("main", "epochs", 1),
                ("interaction", "attention × epochs", 1),
                ("interaction", "placement × epochs", 1),
                ("seed", "seed", 5),
                ("residual", "residual", 25),
            ]
            assert {row["unit"] for row in rows} == {unit}
            assert sum(row["share"] for row in rows) == pytest.approx(1)


def test_the_rows_are_what_the_split_of_the_same_numbers_says() -> None:
    cells, evaluations = made()
    values = {(r["run_id"], r["epoch"]): r["accuracy"] for r in evaluations if r["split"] == "test"}
    labels = [
        {"attention": a, "placement": None if p == "none" else p, "epochs": epochs}
        for a, p in ATTENTION
        for epochs in (1, 2)
    ]
    grid = np.asarray([values[row["run_id"], row["epochs"]] for row in cells]).reshape(6, 6)
    found = table(cells, evaluations)
    for term in decompose(labels, grid):
        name = " × ".join(term.parameters) or term.kind
        (row,) = rows_of(found, split="test", term=name, level="")
        assert (row["n"], row["df"], row["p"]) == (term.n, term.df, term.p)
        assert row["sum_of_squares"] == pytest.approx(term.sum_of_squares)
        for level in term.levels:
            text = json.dumps(level.values, sort_keys=True)
            (row,) = rows_of(found, split="test", term=name, level=text)
            assert row["n"] == level.n
            assert (row["effect"], row["low"], row["high"]) == pytest.approx(
                (level.effect, level.low, level.high)
            )


def test_the_placement_of_no_attention_is_no_placement() -> None:
    rows = rows_of(table(*made()), split="test", kind="main", term="placement")
    assert [row["level"] for row in rows[1:]] == [
        '{"placement": "after_pool1"}', '{"placement": "both"}',
    ]  # fmt: skip


def test_the_order_of_rows_is_irrelevant() -> None:
    cells, evaluations = made()
    expected = table(cells, evaluations).to_pylist()
    rng = random.Random(1)  # noqa: S311 - an order, not a secret
    rng.shuffle(cells)
    rng.shuffle(evaluations)
    for row, other in zip(expected, table(cells, evaluations).to_pylist(), strict=True):
        for name, value in row.items():
            assert other[name] == (pytest.approx(value) if isinstance(value, float) else value)


def test_what_a_search_tried_or_confirmed_is_no_grid() -> None:
    cells, evaluations = made()
    for stage in ("search", "confirm"):
        assert len(table([{**row, "stage": stage} for row in cells], evaluations)) == 0
    extra = [cell({"attention": "se", "placement": "both"}, 2, 0, stage="search")]
    more = [*evaluations, evaluation(extra[0], accuracy=0.5)]
    assert table([*cells, *extra], more).to_pylist() == table(cells, evaluations).to_pylist()


def test_epochs_that_no_cell_asks_for_are_ignored() -> None:
    cells, evaluations = made()
    more = [{**row, "epoch": 7, "accuracy": 0.0} for row in evaluations if row["epoch"] == 2]
    assert table(cells, [*evaluations, *more]) == table(cells, evaluations)


def test_seeds_and_nuisance_values_make_the_blocks() -> None:
    cells = [
        cell({"attention": attention}, 1, seed, nuisance={"batch_size": size, "shuffle": "x"})
        for attention in ("none", "srm")
        for size in (8, 16)
        for seed in (0, 1, 2)
    ]
    rng = np.random.default_rng(0)
    found = table(cells, [evaluation(row, accuracy=rng.random()) for row in cells])
    (blocks,) = rows_of(found, kind="seed")
    assert (blocks["term"], blocks["df"], blocks["n"]) == ("seed × batch_size", 5, 12)


def test_missing_runs_leave_what_is_there_and_its_count() -> None:
    cells, evaluations = made()
    lost = cells[0]["run_id"]
    found = table(cells, [row for row in evaluations if row["run_id"] != lost])
    (row,) = rows_of(found, split="test", kind="residual")
    assert row["n"] == 34
    (none,) = rows_of(found, split="test", level='{"attention": "none"}')
    assert none["n"] == 10
    assert none["effect"] is not None


def test_a_metric_that_is_undefined_has_no_rows() -> None:
    assert len(table(*made(), ("auroc",))) == 0


def test_without_evaluations_the_table_is_empty_and_valid() -> None:
    cells, _ = made()
    assert table(cells, []).equals(tables.TABLES["effects"].empty())
    assert table([], []).equals(tables.TABLES["effects"].empty())


def test_parameters_that_change_together_say_so() -> None:
    cells = [
        cell({"model": model, "optimizer.lr": lr}, 1, seed)
        for model, lr in (("base", 0.1), ("deep", 0.01))
        for seed in (0, 1)
    ]
    rng = np.random.default_rng(0)
    found = table(cells, [evaluation(row, accuracy=rng.random()) for row in cells])
    for row in rows_of(found, kind="main"):
        assert (row["df"], row["share"], row["p"], row["level"]) == (0, None, None, "")
        assert "cannot be told" in row["method"]


@pytest.mark.parametrize(
    ("best", "metric", "expected"),
    [
        (0.1, "accuracy", True),
        (0.01, "accuracy", False),
        (0.001, "accuracy", True),
        (0.01, "loss", False),
        (0.1, "loss", True),
    ],
)
def test_a_grid_says_whether_its_best_is_at_its_border(
    best: float, metric: str, expected: bool
) -> None:
    cells = [
        cell({"optimizer.lr": lr, "attention": attention}, 1, seed)
        for lr in (0.001, 0.01, 0.1)
        for attention in ("none", "srm")
        for seed in (0, 1)
    ]
    good, bad = (0.9, 0.5) if metric == "accuracy" else (0.5, 0.9)
    evaluations = [
        evaluation(row, **{metric: good if f'"optimizer.lr": {best}' in row["label"] else bad})
        for row in cells
    ]
    found = rows_of(table(cells, evaluations, (metric,)), kind="main", level="")
    assert {row["term"]: row["at_border"] for row in found} == {
        "optimizer.lr": expected,
        "attention": None,
    }


# A search.

SEARCH = """\
name: hunt
data: {train: demo, validation: 500}
fixed: {model: base, epochs: 2}
nuisance: {seed: 2}
search:
  sampler: random
  trials: 40
  metric: [validation.auroc, train_seconds]
  mode: [max, min]
  space:
    optimizer.lr: {log_uniform: [1.0e-4, 1.0e-1]}
    batch_size: {choice: [16, 32, 64]}
    optimizer.momentum: {uniform: [0.5, 0.9]}
    attention: {choice: [none, srm]}
    placement: {choice: [after_pool1, both], when: {attention: srm}}
"""

STUDIES = SEARCH.replace("nuisance", "scientific: {batch_size: [16, 32]}\nnuisance").replace(
    "    batch_size: {choice: [16, 32, 64]}\n", ""
)


def point(rng: np.random.Generator) -> dict[str, Any]:
    attention = str(rng.choice(["none", "srm"]))
    values = {
        "optimizer.lr": float(10 ** rng.uniform(-4, -1)),
        "batch_size": int(rng.choice([16, 32, 64])),
        "optimizer.momentum": float(rng.uniform(0.5, 0.9)),
        "attention": attention,
    }
    placement = {"placement": str(rng.choice(["after_pool1", "both"]))}
    return values | (placement if attention == "srm" else {})


def proposal(label: Mapping[str, Any], auroc: float, *, stopped: bool = False) -> Proposal:
    scores = {"validation.auroc": auroc, "train_seconds": 100.0 / label["batch_size"]}
    return Proposal(
        label=label, reached=Reached(2, scores, dict.fromkeys(scores, 0.0)), stopped=stopped,
        seeds=2, lows=scores, highs=scores,
    )  # fmt: skip


def tried(count: int, best_lr: float = 1e-2, seed: int = 0) -> list[Proposal]:
    """Proposals of which the learning rate alone decides, the better the nearer to the best."""
    rng = np.random.default_rng(seed)
    labels = [point(rng) for _ in range(count)]
    return [
        proposal(label, 0.9 - 0.1 * abs(np.log10(label["optimizer.lr"] / best_lr)))
        for label in labels
    ]


def test_what_decides_a_score_is_the_important_dimension(
    parse_text: Callable[..., Spec],
) -> None:
    found = importances(parse_text(SEARCH), tried(60))
    assert found.schema.equals(tables.TABLES["effects"].schema)
    by_auroc = {row["term"]: row for row in rows_of(found, metric="auroc")}
    assert set(by_auroc) == set(parse_text(SEARCH).search.space)  # type: ignore[union-attr]
    assert by_auroc["optimizer.lr"]["share"] > 0.8
    assert by_auroc["optimizer.lr"]["p"] <= 0.01
    assert min(row["p"] for term, row in by_auroc.items() if term != "optimizer.lr") > 0.01
    assert sum(row["share"] for row in by_auroc.values()) == pytest.approx(1)
    by_time = {row["term"]: row for row in rows_of(found, metric="train_seconds")}
    assert max(by_time, key=lambda term: by_time[term]["share"]) == "batch_size"


def test_rows_of_a_search_say_where_its_metrics_were_taken(
    parse_text: Callable[..., Spec],
) -> None:
    found = importances(parse_text(SEARCH), tried(20)).to_pylist()
    where = {(r["dataset"], r["split"], r["metric"], r["unit"]) for r in found}
    assert where == {
        ("demo", "validation", "auroc", "share"),
        ("demo", "train", "train_seconds", "s"),
    }
    assert {(r["stage"], r["kind"], r["level"]) for r in found} == {("search", "importance", "")}


def test_a_conditional_dimension_is_counted_where_it_exists(
    parse_text: Callable[..., Spec],
) -> None:
    given = tried(40)
    rows = rows_of(importances(parse_text(SEARCH), given), metric="auroc")
    count = {row["term"]: row["n"] for row in rows}
    assert count["placement"] == sum("placement" in each.label for each in given)
    assert count["optimizer.lr"] == 40


def test_a_value_that_had_no_meaning_was_not_tried(parse_text: Callable[..., Spec]) -> None:
    # Nothing says when there is a placement, and what has none comes back as such.
    spec = parse_text(SEARCH.replace(", when: {attention: srm}", ""))
    given = [
        proposal({"placement": "none", **each.label}, each.reached.scores["validation.auroc"])
        for each in tried(20)
    ]
    rows = rows_of(importances(spec, given), metric="auroc")
    expected = rows_of(importances(parse_text(SEARCH), tried(20)), metric="auroc")
    assert rows == expected


def test_proposals_that_were_stopped_early_count_for_nothing(
    parse_text: Callable[..., Spec],
) -> None:
    spec, given = parse_text(SEARCH), tried(30)
    rng = np.random.default_rng(9)
    stopped = [proposal(point(rng), 0.99, stopped=True) for _ in range(30)]
    assert importances(spec, [*given, *stopped]).equals(importances(spec, given))


def test_of_few_proposals_the_border_alone_is_told(parse_text: Callable[..., Spec]) -> None:
    for row in importances(parse_text(SEARCH), tried(9)).to_pylist():
        assert (row["share"], row["p"]) == (None, None)
        assert "too few" in row["method"]
    found = importances(parse_text(SEARCH), tried(9, best_lr=1e3))
    best = max(tried(9, best_lr=1e3), key=lambda each: each.label["optimizer.lr"])
    (row,) = rows_of(found, metric="auroc", term="optimizer.lr")
    assert row["at_border"] == (best.label["optimizer.lr"] > 10**-1.15)


def test_each_study_is_looked_at_by_itself(parse_text: Callable[..., Spec]) -> None:
    spec = parse_text(STUDIES)
    given = []
    for each in tried(60):
        size = 16 if len(given) % 2 else 32
        given.append(
            proposal({**each.label, "batch_size": size}, each.reached.scores["validation.auroc"])
        )
    found = importances(spec, given)
    levels = {row["level"] for row in found.to_pylist()}
    assert levels == {'{"batch_size": 16}', '{"batch_size": 32}'}
    own = [each for each in given if each.label["batch_size"] == 16]
    alone = rows_of(importances(spec, own), level='{"batch_size": 16}')
    assert rows_of(found, level='{"batch_size": 16}') == alone


def test_a_grid_has_no_importances(parse_text: Callable[..., Spec]) -> None:
    spec = parse_text("name: small\nfixed: {epochs: 1}\n")
    assert importances(spec, []).equals(tables.TABLES["effects"].empty())
    searched = importances(parse_text(SEARCH), [])
    assert searched.equals(tables.TABLES["effects"].empty())


@pytest.mark.parametrize(
    ("dimension", "value", "expected"),
    [
        ({"log_uniform": [1e-4, 1e-1]}, 1e-4, True),
        ({"log_uniform": [1e-4, 1e-1]}, 1.3e-4, True),
        ({"log_uniform": [1e-4, 1e-1]}, 2e-3, False),
        ({"log_uniform": [1e-4, 1e-1]}, 0.06, False),
        ({"log_uniform": [1e-4, 1e-1]}, 0.08, True),
        ({"uniform": [0.0, 1.0]}, 0.04, True),
        ({"uniform": [0.0, 1.0]}, 0.06, False),
        ({"uniform": [-1.0, 1.0]}, 0.95, True),
        ({"int_uniform": [1, 8]}, 8, True),
        ({"int_uniform": [1, 8]}, 2, False),
        ({"int_uniform": [1, 100]}, 4, True),
        ({"int_uniform": [1, 2]}, 2, None),
        ({"choice": [18, 32, 64]}, 64, True),
        ({"choice": [64, 18, 32]}, 32, False),
        ({"choice": [18, 64]}, 64, None),
        ({"choice": ["a", "b", "c"]}, "a", None),
        ({"choice": [None, 1, 2, 3]}, 1, None),
        ({"choice": [True, False]}, True, None),
    ],
)
def test_the_border_is_the_outer_twentieth_on_the_scale_that_is_drawn_on(
    dimension: dict[str, Any], value: Any, expected: bool | None
) -> None:
    assert at_border(Dimension.model_validate(dimension), value) is expected

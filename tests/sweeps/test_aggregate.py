"""Summary tables against the same numbers by hand."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cifake import tables
from cifake.config import Config
from sweeps.aggregate import METRICS, cells_table, summary
from sweeps.plan import make_cells
from sweeps.spec import Variant
from sweeps.statistics import INTERVAL, summarise

KEYS = ["label", "epochs", "dataset", "split", "metric"]


def cell(label: dict[str, Any], epochs: int, seed: int, nuisance: int = 0) -> dict[str, Any]:
    config_id = f"{label['attention']}{nuisance}"
    return {
        "label": json.dumps(label),
        "nuisance": json.dumps({"batch_size": nuisance}),
        "epochs": epochs,
        "seed": seed,
        "config_id": config_id,
        "run_id": f"{config_id}-{seed}",
        "stage": "grid",
        "role": "end" if epochs == 2 else "milestone",
    }


def evaluation(run_id: str, epoch: int, split: str, **scores: float | None) -> dict[str, Any]:
    counts = dict.fromkeys(("tp", "fp", "tn", "fn"), 5)
    keys = {"run_id": run_id, "epoch": epoch, "dataset": "demo", "split": split}
    sizes = {"n": 20, "n_unreadable": 0, "n_deduplicated": 20}
    return {**keys, **sizes, "threshold": 0.5, **counts, **scores}


def made() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Two configs, two lengths, four seeds; epoch 3 is asked for by no cell."""
    rng = np.random.default_rng(3)
    cells = [
        cell({"attention": attention}, epochs, seed)
        for attention in ("none", "srm")
        for epochs in (1, 2)
        for seed in range(4)
    ]
    evaluations = [
        evaluation(
            run_id, epoch, split, **dict(zip(METRICS, rng.random(len(METRICS)), strict=True))
        )
        for run_id in sorted({row["run_id"] for row in cells})
        for epoch in (1, 2, 3)
        for split in ("validation", "test")
    ]
    return cells, evaluations


def summarised(cells: list[dict[str, Any]], evaluations: list[dict[str, Any]]) -> pa.Table:
    return summary(
        "a",
        tables.TABLES["cells"].from_rows(cells),
        tables.TABLES["evaluations"].from_rows(evaluations),
    )


def by_key(table: pa.Table) -> dict[tuple[Any, ...], dict[str, Any]]:
    return {tuple(row[key] for key in KEYS): row for row in table.to_pylist()}


def test_a_summary_is_that_of_pandas() -> None:
    cells, evaluations = made()
    found = by_key(summarised(cells, evaluations))
    joined = pd.DataFrame(cells).merge(
        pd.DataFrame(evaluations), left_on=["run_id", "epochs"], right_on=["run_id", "epoch"]
    )
    long = joined.melt(id_vars=["label", "epochs", "dataset", "split"], value_vars=list(METRICS))
    expected = long.groupby(["label", "epochs", "dataset", "split", "variable"])["value"].agg(
        ["count", "mean", "std", "median", "min", "max"]
    )
    assert set(found) == set(expected.index)
    assert len(found) == 2 * 2 * 2 * len(METRICS)
    for key, numbers in expected.iterrows():
        row = found[key]
        assert (row["n"], row["n_missing"]) == (4, 0)
        for name in ("mean", "std", "median", "min", "max"):
            assert row[name] == pytest.approx(numbers[name], rel=1e-12)
        half = stats.t.ppf(0.975, 3) * numbers["std"] / 2
        assert row["low"] == pytest.approx(numbers["mean"] - half, rel=1e-9)
        assert row["high"] == pytest.approx(numbers["mean"] + half, rel=1e-9)


def test_rows_have_the_interquartile_mean_and_the_bootstrap_interval_of_their_runs() -> None:
    cells, evaluations = made()
    for key, row in by_key(summarised(cells, evaluations)).items():
        label, epochs, _, split, metric = key
        runs = {c["run_id"] for c in cells if c["label"] == label}
        values = [
            e[metric]
            for e in evaluations
            if e["run_id"] in runs and e["epoch"] == epochs and e["split"] == split
        ]
        found = summarise(np.asarray(values))
        assert row["iqm"] == pytest.approx(stats.trim_mean(values, 0.25), rel=1e-12)
        assert (row["bca_low"], row["bca_high"]) == (found.bca_low, found.bca_high)
        assert row["bca_low"] < row["mean"] < row["bca_high"]


def test_milestones_are_rows_of_their_own_and_other_epochs_none() -> None:
    found = by_key(summarised(*made()))
    assert {key[1] for key in found} == {1, 2}
    label = json.dumps({"attention": "srm"})
    one, two = (found[label, epochs, "demo", "test", "accuracy"] for epochs in (1, 2))
    assert one["mean"] != two["mean"]


def test_the_order_of_rows_is_irrelevant() -> None:
    cells, evaluations = made()
    expected = summarised(cells, evaluations)
    rng = random.Random(1)  # noqa: S311 - an order, not a secret
    for _ in range(3):
        rng.shuffle(cells)
        rng.shuffle(evaluations)
        assert summarised(cells, evaluations).to_pylist() == expected.to_pylist()


def test_rows_say_whether_they_are_their_runs_end_or_a_milestone() -> None:
    found = by_key(summarised(*made()))
    assert {(key[1], row["role"]) for key, row in found.items()} == {(1, "milestone"), (2, "end")}
    mixed = [cell({"attention": "none"}, 2, seed) for seed in (0, 1)]
    mixed[0]["role"] = "milestone"
    rows = summarised(mixed, made()[1]).to_pylist()
    assert {row["role"] for row in rows} == {None}


def test_stages_of_a_search_are_never_averaged() -> None:
    cells, evaluations = made()
    for row in cells:
        row["stage"] = "confirm" if row["seed"] == 3 else "search"
    rows = summarised(cells, evaluations).to_pylist()
    assert {(row["stage"], row["n"]) for row in rows} == {("search", 3), ("confirm", 1)}


def test_a_stage_that_was_never_evaluated_on_a_split_has_no_rows_of_it() -> None:
    cells, evaluations = made()
    for row in cells:
        row["stage"] = "confirm" if row["seed"] == 3 else "search"
    kept = [r for r in evaluations if r["split"] == "validation" or r["run_id"].endswith("-3")]
    rows = summarised(cells, kept).to_pylist()
    assert {row["stage"] for row in rows if row["split"] == "test"} == {"confirm"}


def test_missing_runs_are_counted() -> None:
    cells, evaluations = made()
    lost = {"srm0-1", "srm0-3"}
    kept = [row for row in evaluations if row["run_id"] not in lost]
    found = by_key(summarised(cells, kept))
    for key, row in found.items():
        missing = 2 if "srm" in key[0] else 0
        assert (row["n"], row["n_missing"]) == (4 - missing, missing)


def test_a_config_of_which_every_run_is_missing_still_has_its_rows() -> None:
    cells, evaluations = made()
    kept = [row for row in evaluations if not row["run_id"].startswith("srm")]
    found = by_key(summarised(cells, kept))
    row = found[json.dumps({"attention": "srm"}), 2, "demo", "test", "accuracy"]
    assert (row["n"], row["n_missing"], row["mean"]) == (0, 4, None)


def test_an_undefined_metric_stays_null() -> None:
    cells, evaluations = made()
    one_class = [{**row, "auroc": None, "precision": None} for row in evaluations]
    for key, row in by_key(summarised(cells, one_class)).items():
        undefined = key[-1] in ("auroc", "precision")
        assert (row["mean"] is None) == undefined
        assert row["n"] == (0 if undefined else 4)
        if undefined:
            assert (row["low"], row["high"], row["std"], row["median"]) == (None,) * 4


def test_one_seed_has_no_interval() -> None:
    cells, evaluations = made()
    single = [row for row in cells if row["seed"] == 0]
    for row in summarised(single, evaluations).to_pylist():
        assert row["n"] == 1
        assert row["mean"] == row["min"] == row["max"]
        assert (row["std"], row["low"], row["high"]) == (None, None, None)
        assert (row["bca_low"], row["bca_high"], row["iqm"]) == (None, None, row["mean"])


def test_nuisance_values_are_averaged_over() -> None:
    label = {"attention": "none"}
    cells = [cell(label, 1, seed, nuisance) for nuisance in (8, 16) for seed in (0, 1)]
    values = {row["run_id"]: 0.1 * (number + 1) for number, row in enumerate(cells)}
    evaluations = [evaluation(run_id, 1, "test", accuracy=v) for run_id, v in values.items()]
    row = by_key(summarised(cells, evaluations))[json.dumps(label), 1, "demo", "test", "accuracy"]
    assert (row["n"], row["config_id"]) == (2, None)
    assert row["mean"] == pytest.approx(0.25)
    # The seeds' means are 0.2 and 0.3.
    assert (row["min"], row["max"]) == (pytest.approx(0.2), pytest.approx(0.3))
    assert row["std"] == pytest.approx(0.1 / 2**0.5)
    lacking = evaluations[1:]
    row = by_key(summarised(cells, lacking))[json.dumps(label), 1, "demo", "test", "accuracy"]
    assert (row["n"], row["n_missing"]) == (1, 1)
    assert row["mean"] == pytest.approx(0.3)


def test_without_evaluations_the_summary_is_empty_and_valid() -> None:
    cells, _ = made()
    found = summarised(cells, [])
    assert found.schema.equals(tables.TABLES["summary"].schema)
    assert all(row["n"] == 0 for row in found.to_pylist())


def test_the_cells_of_a_sweep_as_a_table() -> None:
    variants = [
        Variant({"attention": "none"}, {"batch_size": 8}, Config(batch_size=8), n) for n in (1, 2)
    ]
    cells = make_cells(variants, [0, 5])
    rows = cells_table(cells).to_pylist()
    assert [(row["epochs"], row["seed"]) for row in rows] == [(1, 0), (1, 5), (2, 0), (2, 5)]
    assert {row["label"] for row in rows} == {'{"attention": "none"}'}
    assert {row["nuisance"] for row in rows} == {'{"batch_size": 8}'}
    assert [row["run_id"] for row in rows] == [cell.run_id for cell in cells]
    assert [row["role"] for row in rows] == ["milestone", "milestone", "end", "end"]
    assert {row["stage"] for row in rows} == {"grid"}


def test_lengths_that_share_no_epoch_are_each_their_runs_end() -> None:
    configs = [Config(batch_size=size) for size in (8, 16)]
    cells = make_cells(
        [Variant({}, {}, config, n) for n, config in enumerate(configs, start=1)], [0]
    )
    assert [row["role"] for row in cells_table(cells).to_pylist()] == ["end", "end"]


def plainly(cells: list[dict[str, Any]], evaluations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a summary, each metric of each group by itself."""
    configs: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in cells:
        configs.setdefault((row["stage"], row["label"], row["epochs"]), []).append(row)
    scored: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in evaluations:
        scored.setdefault((row["run_id"], row["epoch"]), []).append(row)
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for key, runs in configs.items():
        for run in runs:
            for row in scored.get((run["run_id"], run["epochs"]), []):
                where = (*key, row["dataset"], row["split"])
                groups.setdefault(where, []).append({**row, "seed": run["seed"]})
    places = {(stage, *where) for stage, _, _, *where in groups}
    every = sorted((*key, *where) for key in configs for stage, *where in places if stage == key[0])
    return [
        plain_row(key, metric, configs[key[:3]], groups.get(key, []))
        for key in every
        for metric in METRICS
    ]


def plain_row(
    key: tuple[Any, ...], metric: str, runs: list[dict[str, Any]], scored: list[dict[str, Any]]
) -> dict[str, Any]:
    asked = Counter(run["seed"] for run in runs)
    seeds: dict[int, list[float]] = {}
    for row in scored:
        if row.get(metric) is not None:
            seeds.setdefault(row["seed"], []).append(row[metric])
    means = [
        np.mean(seeds[seed]) if len(seeds.get(seed, [])) == count else np.nan
        for seed, count in sorted(asked.items())
    ]
    found = summarise(np.asarray(means, np.float64))
    alike = {name: {run[name] for run in runs} for name in ("config_id", "role")}
    return {
        "sweep": "a",
        **dict(zip(("stage", "label", "epochs", "dataset", "split"), key, strict=True)),
        **{name: words.pop() if len(words) == 1 else None for name, words in alike.items()},
        "metric": metric,
        "unit": tables.score_unit(metric),
        "interval": INTERVAL,
        "n_missing": len(asked) - found.n,
        **vars(found),
    }


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_groups_at_once_are_to_the_bit_what_each_is_by_itself(data: st.DataObject) -> None:
    cells, evaluations = made()
    cells += [{**row, "stage": "confirm", "role": "end"} for row in cells if row["seed"] < 2]
    cells += [cell({"attention": "none"}, 2, seed, nuisance=1) for seed in (0, 1)]
    kept = data.draw(st.lists(st.sampled_from(range(len(evaluations))), unique=True, max_size=30))
    holes = data.draw(st.sets(st.sampled_from(METRICS), max_size=5))
    scored = [evaluations[place] for place in kept]
    scored = [{**row, **dict.fromkeys(holes)} if row["run_id"] < "o" else row for row in scored]
    expected = [] if not scored else plainly(cells, scored)
    found = summarised(cells, scored)
    assert found.equals(tables.TABLES["summary"].from_rows(expected))

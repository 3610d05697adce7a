"""Which configs are compared, by what numbers, and how they are ranked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cifake import tables
from sweeps import foresight
from sweeps.comparisons import Scores, comparisons, scores
from sweeps.families import family
from sweeps.image_tests import MAX_PAIRS, image_test
from sweeps.rankings import ranking
from sweeps.spec import Compare, Spec

Parse = Callable[..., Spec]
EVERY = Compare(metrics=["accuracy"])


def json_of(label: Mapping[str, Any]) -> str:
    return json.dumps(dict(label), sort_keys=True)


def made(
    values: Mapping[str, Sequence[float | None]],
    *,
    length: int = 2,
    split: str = "test",
    metric: str = "accuracy",
    dataset: str = "demo",
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Cells and evaluations of configs that are told apart by a name: a value for each seed."""
    cells, evaluations = [], []
    for name, row in values.items():
        for seed, value in enumerate(row):
            run = f"{name}-{seed}"
            cells.append(
                {
                    "label": json_of({"model": name}),
                    "nuisance": "{}",
                    "epochs": length,
                    "seed": seed,
                    "config_id": name,
                    "run_id": run,
                    "stage": "grid",
                    "role": "end",
                }
            )
            if value is not None:
                keys = {"run_id": run, "epoch": length, "dataset": dataset, "split": split}
                sizes = {"n": 20, "n_unreadable": 0, "n_deduplicated": 20, "threshold": 0.5}
                counts = dict.fromkeys(("tp", "fp", "tn", "fn"), 5)
                evaluations.append({**keys, **sizes, **counts, metric: value})
    return cells, evaluations


def found_in(
    *parts: tuple[list[dict[str, Any]], list[dict[str, Any]]], metric: str = "accuracy"
) -> list[Scores]:
    cells = {(c["run_id"], c["epochs"]): c for part, _ in parts for c in part}
    rows = [row for _, part in parts for row in part]
    return scores(
        tables.TABLES["cells"].from_rows(cells.values()),
        tables.TABLES["evaluations"].from_rows(rows),
        [metric],
    )


def compared(*parts: Any, compare: Compare = EVERY) -> list[dict[str, Any]]:
    found = found_in(*parts, metric=compare.metrics[0])
    rows: list[dict[str, Any]] = comparisons("a", compare, found).to_pylist()
    return rows


def names(row: Mapping[str, Any]) -> tuple[str, str]:
    return json.loads(row["label_a"])["model"], json.loads(row["label_b"])["model"]


SEEDS = 8
RNG = np.random.default_rng(3)
DRAWN = {
    name: RNG.normal(mean, 0.02, SEEDS).tolist()
    for name, mean in zip("abcd", (0.8, 0.81, 0.85, 0.7), strict=True)
}


# Families.


def test_every_pair_of_few_configs_is_compared() -> None:
    labels = [{"model": name} for name in "abcd"]
    found = family(labels, Compare())
    assert found.size == len(set(found.pairs)) == 6
    assert found.wording == "every pair of 4 configs"
    assert family(labels[:1], Compare()).pairs == []


def test_each_config_is_compared_with_the_nearest_baseline() -> None:
    labels = [
        {"model": model, "attention": attention}
        for model in ("base", "mini")
        for attention in ("none", "se", "srm")
    ]
    found = family(labels, Compare(baseline={"attention": "none"}))
    assert [(labels[a], labels[b]) for a, b in found.pairs] == [
        ({"model": model, "attention": attention}, {"model": model, "attention": "none"})
        for model in ("base", "mini")
        for attention in ("se", "srm")
    ]
    assert found.size == 4
    assert "4 configs with the baseline, attention = none" in found.wording


def test_a_baseline_that_no_config_has_leaves_every_pair() -> None:
    labels = [{"model": name} for name in "abc"]
    assert family(labels, Compare(baseline={"model": "z"})).size == 3


@settings(deadline=None)
@given(st.integers(21, 60), st.data())
def test_of_many_configs_each_is_compared_with_the_best_but_corrected_for_every_pair(
    configs: int, data: st.DataObject
) -> None:
    best = data.draw(st.integers(0, configs - 1))
    found = family([{"model": n} for n in range(configs)], Compare(), best)
    assert {b for _, b in found.pairs} == {best}
    assert {a for a, _ in found.pairs} == set(range(configs)) - {best}
    assert found.size == configs * (configs - 1) // 2


# Comparisons.


def test_a_comparison_is_of_pairs_by_seed_and_agrees_with_scipy() -> None:
    for row in compared(made(DRAWN)):
        a, b = (np.asarray(DRAWN[name]) for name in names(row))
        assert (row["n"], row["n_missing"]) == (SEEDS, 0)
        assert row["difference"] == pytest.approx((a - b).mean())
        interval = stats.ttest_rel(a, b).confidence_interval(0.95)
        assert (row["low"], row["high"]) == pytest.approx(tuple(interval))
        exact = stats.permutation_test(
            (a - b,), np.mean, permutation_type="samples", n_resamples=np.inf
        )
        assert row["p"] == pytest.approx(exact.pvalue)
        assert row["smallest_p"] == 2 ** (1 - SEEDS)


def test_p_values_are_corrected_within_a_family_and_it_is_named() -> None:
    rows = compared(made(DRAWN), made(DRAWN, split="validation"))
    for split in ("test", "validation"):
        own = [row for row in rows if row["split"] == split]
        assert {row["comparisons"] for row in own} == {len(own)} == {6}
        assert {row["family"] for row in own} == {
            f"accuracy on demo {split} after 2 epochs: every pair of 4 configs"
        }
        order = sorted(own, key=lambda row: row["p"])
        least = 0.0
        for place, row in enumerate(order):  # Holm 1979, by hand
            least = max(least, min(1.0, row["p"] * (len(own) - place)))
            assert row["p_holm"] == pytest.approx(least)
            assert row["significant"] == (least < 0.05)


def test_lengths_of_one_run_are_families_of_their_own() -> None:
    rows = compared(made(DRAWN, length=1), made(DRAWN, length=2))
    assert {row["epochs"] for row in rows} == {1, 2}
    assert {row["n"] for row in rows} == {SEEDS}, "milestones are not counted as runs"
    assert {row["comparisons"] for row in rows} == {6}


def test_runs_that_are_missing_leave_their_pairs_out_and_are_counted() -> None:
    gap = {**DRAWN, "a": [None, None, *DRAWN["a"][2:]]}
    for row in compared(made(gap)):
        missing = 2 if "a" in names(row) else 0
        assert (row["n"], row["n_missing"]) == (SEEDS - missing, missing)
    nothing = compared(made({"a": [None] * 3, "b": [0.5, 0.6, 0.7]}))
    assert [(row["n"], row["p"], row["significant"]) for row in nothing] == [(0, None, None)]


def with_nuisance(cells: list[dict[str, Any]], values: int) -> None:
    """Make so many seeds that follow each other nuisance values of one."""
    for cell in cells:
        cell |= {
            "nuisance": json.dumps({"x": cell["seed"] % values}),
            "seed": cell["seed"] // values,
        }


def test_a_seed_is_one_pair_however_many_nuisance_values_it_has() -> None:
    cells, evaluations = made({"a": [0.5, 0.6, 0.7, 0.9], "b": [0.4, 0.3, 0.5, 0.3]})
    with_nuisance(cells, 2)
    (row,) = compared((cells, evaluations))
    (same,) = compared(made({"a": [0.55, 0.8], "b": [0.35, 0.4]}))
    assert row["n"] == same["n"] == 2
    for name in ("difference", "low", "high", "p"):
        assert row[name] == pytest.approx(same[name])


def test_a_seed_counts_where_every_nuisance_value_has_a_score() -> None:
    cells, evaluations = made({"a": [0.5, 0.6, 0.7, 0.9], "b": [0.4, None, 0.5, 0.3]})
    with_nuisance(cells, 2)
    (row,) = compared((cells, evaluations))
    assert (row["n"], row["n_missing"], row["difference"]) == (1, 1, pytest.approx(0.4))


def test_runs_that_a_seed_makes_alike_are_no_evidence_by_their_number() -> None:
    """6 seeds with 4 nuisance values each, which as 24 pairs would differ in a fifth of sweeps."""
    rng = np.random.default_rng(3)
    sweeps, seeds, values = 400, 6, 4
    found = 0
    for _ in range(sweeps):
        luck = np.repeat(rng.normal(0, 0.01, (2, seeds)), values, axis=1)
        drawn = 0.8 + luck + rng.normal(0, 0.01, luck.shape)
        cells, evaluations = made({"a": drawn[0].tolist(), "b": drawn[1].tolist()})
        with_nuisance(cells, values)
        (row,) = compared((cells, evaluations))
        found += row["p"] < 0.05
    assert found / sweeps < 0.06


def test_a_config_is_compared_with_the_best_on_validation_not_on_test() -> None:
    many = {f"m{n:02}": [0.5 + 0.001 * n, 0.51 + 0.001 * n] for n in range(30)}
    turned = {name: [1 - value for value in values] for name, values in many.items()}
    rows = compared(made(many, split="validation"), made(turned, split="test"))
    on_test = [row for row in rows if row["split"] == "test"]
    assert {names(row)[1] for row in on_test} == {"m29"}
    assert len(on_test) == 29
    assert {row["comparisons"] for row in on_test} == {30 * 29 // 2}
    assert all("corrected for every pair" in row["family"] for row in on_test)


def test_no_difference_at_all_is_found_among_many_equal_configs_too_often() -> None:
    """The best on validation is so by the luck of its seeds, which its test scores share."""
    rng = np.random.default_rng(11)
    sweeps, configs, seeds = 60, 24, 16
    wrong = 0
    for _ in range(sweeps):
        luck = rng.normal(0.9, 0.02, (configs, seeds))
        on = {
            split: {
                f"m{n:02}": row.tolist()
                for n, row in enumerate(luck + rng.normal(0, 0.002, luck.shape))
            }
            for split in ("validation", "test")
        }
        rows = compared(*(made(values, split=split) for split, values in on.items()))
        wrong += any(row["significant"] for row in rows if row["split"] == "test")
    # 5 % of 60 are 3, and 8 or more have a chance of 1 %. Corrected for 23 comparisons, a fifth
    # of such sweeps have a false difference.
    assert wrong < 8


def test_the_order_of_rows_changes_nothing() -> None:
    cells, evaluations = made(DRAWN)
    turned = (cells[::-1], evaluations[::-1])
    found, again = (
        comparisons("a", EVERY, found_in(part)) for part in ((cells, evaluations), turned)
    )
    assert found.equals(again)
    ranked = [ranking("a", found_in(part), found) for part in ((cells, evaluations), turned)]
    assert ranked[0].equals(ranked[1])


def test_what_a_search_tried_is_not_compared() -> None:
    cells, evaluations = made(DRAWN)
    for cell in cells:
        cell["stage"] = "search"
    assert compared((cells, evaluations)) == []


def test_a_loss_is_better_where_it_is_less() -> None:
    parts = made({"a": [0.1, 0.2, 0.1], "b": [0.5, 0.6, 0.7]}, metric="loss")
    found = found_in(parts, metric="loss")
    rows = ranking("a", found, comparisons("a", Compare(metrics=["loss"]), found)).to_pylist()
    assert [(json.loads(row["label"])["model"], row["rank"]) for row in rows] == [
        ("a", 1),
        ("b", 2),
    ]
    assert rows[1]["behind"] == pytest.approx(0.6 - 0.4 / 3)


# Rankings.


def ranked(values: Mapping[str, Sequence[float | None]]) -> dict[str, dict[str, Any]]:
    found = found_in(made(values))
    rows = ranking("a", found, comparisons("a", EVERY, found)).to_pylist()
    return {json.loads(row["label"])["model"]: row for row in rows}


def test_configs_are_ranked_by_their_means() -> None:
    rows = ranked(DRAWN)
    order = sorted(rows, key=lambda name: rows[name]["rank"])
    assert order == sorted(DRAWN, key=lambda name: -np.mean(DRAWN[name]))
    assert rows[order[0]]["behind"] == 0
    assert sum(row["p_best"] for row in rows.values()) == pytest.approx(1)
    for row in rows.values():
        assert row["rank_low"] <= row["rank"] <= row["rank_high"]
        assert row["tau_low"] <= row["tau"] <= row["tau_high"]


def test_letters_are_shared_by_those_that_are_not_told_apart() -> None:
    values = {"a": [0.9 + 0.001 * n for n in range(10)], "b": [0.5 + 0.001 * n for n in range(10)]}
    rows = ranked({**values, "c": [v + (-1) ** n * 0.01 for n, v in enumerate(values["a"])]})
    assert {name: row["group"] for name, row in rows.items()} == {"a": "a", "b": "b", "c": "a"}


def test_a_config_without_a_run_has_no_rank() -> None:
    row = ranked({"a": [0.5, 0.6], "b": [None, None]})["b"]
    assert (row["n"], row["rank"], row["mean"], row["group"]) == (0, None, None, None)


# Images.


def predictions_of(
    right: Mapping[str, Sequence[bool]], truth: Sequence[int], length: int = 2
) -> pa.Table:
    rows = [
        {
            "run_id": run,
            "epoch": length,
            "dataset": "demo",
            "split": "test",
            "image_id": image,
            "probability": float(label if is_right else 1 - label),
        }
        for run, calls in right.items()
        for image, (label, is_right) in enumerate(zip(truth, calls, strict=True))
    ]
    return tables.TABLES["predictions"].from_rows(rows)


def labels_of(truth: Sequence[int]) -> pa.Table:
    rows = [
        {"dataset": "demo", "split": "test", "image_id": image, "label": label}
        for image, label in enumerate(truth)
    ]
    return tables.TABLES["labels"].from_rows(rows)


def judged(
    right: Mapping[str, Sequence[bool]], labels: pa.Table | None = None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Comparisons of runs `config-seed` by what they got right; and the runs that were read."""
    images = len(next(iter(right.values())))
    truth = [image % 2 for image in range(images)]
    values: dict[str, list[float | None]] = {}
    for run, calls in right.items():
        values.setdefault(run.partition("-")[0], []).append(float(np.mean(calls)))
    cells, rows = made(values)
    for row in rows:
        calls = right[row["run_id"]]
        row |= {"tp": sum(calls[1::2]), "tn": sum(calls[::2]), "n": images}
    stored = predictions_of(right, truth)
    asked: list[str] = []

    def read(table: str, run_ids: Iterable[str]) -> pa.Table:
        assert table == "predictions"
        wanted = list(run_ids)
        asked.extend(wanted)
        return stored.filter(pa.compute.is_in(stored["run_id"].cast(pa.string()), pa.array(wanted)))

    found = found_in((cells, rows))
    evaluations = tables.TABLES["evaluations"].from_rows(rows)
    known = labels_of(truth) if labels is None else labels
    test = image_test(found, evaluations, known, read)
    return comparisons("a", EVERY, found, test).to_pylist(), asked


def calls(rng: np.random.Generator, share: float, images: int = 400) -> list[bool]:
    return [bool(x) for x in rng.random(images) < share]


def test_runs_are_told_apart_by_the_images_they_are_wrong_on() -> None:
    rng = np.random.default_rng(0)
    right = {f"a-{seed}": calls(rng, 0.95) for seed in range(4)}
    right |= {f"b-{seed}": calls(rng, 0.8) for seed in range(4)}
    ((row,), asked) = judged(right)
    expected = 0
    for seed in range(4):
        a, b = (np.asarray(right[f"{name}-{seed}"]) for name in "ab")
        one, other = int((a & ~b).sum()), int((b & ~a).sum())
        expected += stats.binomtest(one, one + other).pvalue < 0.05
    assert (row["mcnemar_runs"], row["mcnemar_different"]) == (4, expected)
    assert row["total_low"] < row["difference"] < row["total_high"]
    assert row["total_high"] - row["total_low"] > 2 * 1.96 * np.sqrt(0.05 * 0.95 / 400 / 4)
    assert sorted(asked) == sorted(right)


def test_predictions_are_read_of_the_best_and_few_others() -> None:
    rng = np.random.default_rng(1)
    right = {
        f"m{n:02}-{seed}": calls(rng, 0.5 + 0.015 * n, 100) for n in range(30) for seed in (0, 1)
    }
    rows, asked = judged(right)
    tested = [row for row in rows if row["mcnemar_runs"]]
    assert len(tested) == MAX_PAIRS
    assert len(set(asked)) == len(asked) == 2 * (MAX_PAIRS + 1)
    best = {names(row)[1] for row in rows}
    assert len(best) == 1
    assert best < {run.partition("-")[0] for run in asked}


def test_labels_that_do_not_fit_the_counts_are_not_believed() -> None:
    rng = np.random.default_rng(2)
    right = {f"{name}-{seed}": calls(rng, 0.9, 60) for name in "ab" for seed in (0, 1)}
    others = labels_of([1 - image % 2 for image in range(60)])
    for labels in (others, labels_of([0] * 20), tables.TABLES["labels"].empty()):
        ((row,), _) = judged(right, labels)
        assert (row["mcnemar_runs"], row["total_low"]) == (None, None)


# Beforehand.

GRID = """\
name: a
data: {train: demo, validation: 10}
scientific: {attention: [none, srm], placement: [after_pool1, both], epochs: [1, 2]}
"""


def noted(spec: Spec) -> list[str]:
    cells = [(variant, seed) for variant in spec.variants("") for seed in spec.seeds]
    return list(foresight.notes(cells, spec.compare))


@pytest.mark.parametrize(
    ("seeds", "baseline", "parts"),
    [
        (6, "{}", ["6 seeds", "least p is 0.094", "3 comparisons", "3 configs", "; 7 seeds can"]),
        (1, "{}", ["1 seed:", "least p is 1"]),
        (7, "{}", []),
        (6, "{attention: none}", ["0.062", "2 comparisons", "attention = none", "7 seeds can"]),
        (7, "{attention: none}", []),
    ],
)
def test_a_plan_says_what_its_seeds_cannot_show(
    parse_text: Parse, seeds: int, baseline: str, parts: Sequence[str]
) -> None:
    text = f"{GRID}nuisance: {{seed: {seeds}}}\ncompare: {{baseline: {baseline}}}\n"
    notes = noted(parse_text(text))
    assert len(notes) == bool(parts)
    assert all(part in note for note in notes for part in parts)


def test_two_configs_need_six_seeds_and_one_needs_none(parse_text: Parse) -> None:
    two = GRID.replace("[after_pool1, both]", "[both]")
    (note,) = noted(parse_text(two + "nuisance: {seed: 5}\n"))
    assert note == (
        "5 seeds: no difference can be significant, as the least p is 0.062; 6 seeds can show one"
    )
    assert noted(parse_text(two + "nuisance: {seed: 6}\n")) == []
    one = two.replace("[none, srm]", "[none]")
    assert noted(parse_text(one + "nuisance: {seed: 1}\n")) == []


def test_nothing_smaller_is_found_than_the_plan_said(parse_text: Parse) -> None:
    """Differences of one sign for every seed have the least p that there is."""
    spec = parse_text(GRID + "nuisance: {seed: 6}\n")
    (note,) = noted(spec)
    values = {name: [0.1 * place + 0.01 * n for n in range(6)] for place, name in enumerate("abc")}
    rows = compared(made(values))
    assert f"{min(row['p_holm'] for row in rows):.2g}" in note


def test_a_baseline_is_advised_where_it_needs_fewer_seeds() -> None:
    (note,) = foresight.unnamed_notes(10, 6)
    assert "45 comparisons" in note
    assert (
        "11 seeds can show one, or 9 where each config is compared with a compare.baseline" in note
    )
    assert list(foresight.unnamed_notes(10, 11)) == []
    assert list(foresight.unnamed_notes(1, 1)) == []


def test_of_seeds_whose_flips_are_drawn_fewer_may_be_advised() -> None:
    (note,) = foresight.unnamed_notes(120, 31)
    assert "7,140 comparisons" in note
    assert "19 to 30 seeds can show one" in note
    assert list(foresight.unnamed_notes(120, 30)) == []

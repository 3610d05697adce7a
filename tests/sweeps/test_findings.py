"""The answer in two sentences, and what is marked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from cifake import tables
from cifake.runs import run_state
from sweeps import aggregate
from sweeps.comparisons import comparisons, scores
from sweeps.gaps import gap_notes
from sweeps.rankings import ranking
from sweeps.report.content import Results
from sweeps.report.ends import ends
from sweeps.report.findings import BETTER, WORSE, answer, marks
from sweeps.spec import Compare
from tests.sweeps.reported import raced

EVERY = Compare()
SEEDS = 8
NOISE = [0.001 * n for n in (3, -2, 1, 0, -1, 2, -3, 1)]


def results_of(
    means: Mapping[str, float],
    *,
    compare: Compare = EVERY,
    seeds: int = SEEDS,
    splits: Sequence[str] = ("validation", "test"),
    metric: str = "accuracy",
    spread: float = 1.0,
    without: Mapping[str, int] | None = None,
    lengths: Sequence[int] = (2,),
) -> Results:
    """Configs that are told apart by their attention; some lack their first runs."""
    cells, evaluations = [], []
    for place, (name, mean) in enumerate(means.items()):
        for seed in range(seeds):
            cells += [
                {
                    "label": json.dumps({"attention": name, "model": "base"}),
                    "nuisance": "{}",
                    "epochs": length,
                    "seed": seed,
                    "config_id": name,
                    "run_id": f"{name}-{seed}",
                    "stage": "grid",
                    "role": "end",
                }
                for length in lengths
            ]
            if seed < (without or {}).get(name, 0):
                continue
            for length in lengths:
                for split in splits:
                    value = mean + spread * NOISE[(seed + 3 * place) % len(NOISE)]
                    keys = {"run_id": f"{name}-{seed}", "epoch": length, "dataset": "demo"}
                    sizes = {"n": 20, "n_unreadable": 0, "n_deduplicated": 20, "threshold": 0.5}
                    counts = dict.fromkeys(("tp", "fp", "tn", "fn"), 5)
                    row = {**keys, **sizes, **counts, "split": split, metric: value}
                    evaluations.append(row)
    asked = tables.TABLES["cells"].from_rows(cells)
    rows = tables.TABLES["evaluations"].from_rows(evaluations)
    found = scores(asked, rows, compare.metrics)
    compared = comparisons("a", compare, found)
    return Results(
        name="a",
        question="",
        search=None,
        compare=compare,
        datasets=["demo"],
        summary=aggregate.summary("a", asked, rows),
        comparisons=compared,
        ranking=ranking("a", found, compared),
        ends=ends(asked),
        proposals=[],
        notes=[],
    )


def test_a_lead_that_is_significant_is_told_with_its_interval_and_p() -> None:
    results = results_of({"none": 0.8, "srm": 0.9})
    (row,) = [r for r in results.comparisons.to_pylist() if r["split"] == "test"]
    first, second = answer(results).split(". ", 1)
    assert first.startswith("On demo test after 2 epochs, srm is best with accuracy 90.01 % (95 %")
    assert f"{-100 * row['difference']:.2f} points above no attention" in first
    assert f"(95 % interval {-100 * row['high']:.2f} to {-100 * row['low']:.2f}" in first
    assert f"p = {row['p_holm']:.2g})" in first
    assert "n = 8" in first
    assert second == "That difference is significant."


def test_an_interval_is_told_only_as_far_as_a_score_can_be() -> None:
    results = results_of({"none": 0.995}, seeds=2)
    assert max(row["high"] for row in results.summary.to_pylist() if row["high"] is not None) > 1
    assert " to 100.00, n = 2)" in answer(results)
    assert "(95 % interval 0.00 to " in answer(results_of({"none": 0.005}, seeds=2))


def test_a_lead_over_some_of_several_says_over_how_many() -> None:
    text = answer(results_of({"none": 0.8, "se": 0.82, "srm": 0.9}))
    assert text.endswith("That difference is significant, and so is its lead over the other.")
    assert "corrected p" in text
    close = answer(results_of({"none": 0.8, "se": 0.9, "srm": 0.9001}))
    assert close.endswith("while 2 of the 3 comparisons are significant.")
    assert "That difference is not significant; to resolve that lead takes about" in close


def test_of_a_race_the_leader_answers_and_what_its_looks_decided_and_no_p() -> None:
    results = results_of({"none": 0.8, "se": 0.89, "srm": 0.9})
    labels = [json.dumps({"attention": name, "model": "base"}) for name in ("none", "se", "srm")]
    values = [[0.5 + 0.01 * ((n * k) % 5) for n in range(8)] for k in (1, 2, 3)]
    ahead = [values[0], [v + 0.3 for v in values[1]], values[2]]
    told = answer(replace(results, resolution=raced(labels, ahead, [4, 8])))
    first, second = told.split(". ", 1)
    assert first.startswith("On demo test after 2 epochs, se, which leads on validation, has")
    assert "points below srm" in first, "of the others the best on test"
    assert "p =" not in told
    assert second == (
        "By accuracy on validation, with every look allowed for, the ranking is resolved: se is "
        "best of 3 at 4 seeds."
    )
    tied = answer(replace(results, resolution=raced(labels, values, [4, 8])))
    assert "is not resolved between no attention, se, srm with the 8 seeds allowed" in tied
    unseen = replace(results, resolution=raced(labels, [row[:3] for row in values], [4, 8]))
    assert answer(unseen) == answer(results), "nobody has looked"


def test_marks_of_a_race_say_that_their_p_knows_nothing_of_the_looks() -> None:
    results = results_of({"none": 0.8, "srm": 0.9})
    labels = [json.dumps({"attention": name, "model": "base"}) for name in ("none", "srm")]
    looked = raced(labels, [[0.1, 0.2, 0.3], [0.2, 0.2, 0.2]], [3])
    plain, told = marks(results), marks(replace(results, resolution=looked))
    assert told.marks == plain.marks != {}
    legend = plain.legend.replace("the best of its length", "the leader")
    assert told.legend == (
        f"{legend} These p-values know nothing of the looks after which seeds were added."
    )


def test_marks_of_a_race_are_held_against_its_leader_and_not_against_who_was_lucky() -> None:
    results = results_of({"none": 0.8, "se": 0.89, "srm": 0.9}, seeds=10)
    labels = [json.dumps({"attention": name, "model": "base"}) for name in ("none", "se", "srm")]
    values = [[0.5 + 0.01 * ((n * k) % 5) for n in range(4)] for k in (1, 2, 3)]
    ahead = [[v + 0.3 for v in values[0]], values[1], values[2]]
    told = marks(replace(results, resolution=raced(labels, ahead, [4])))
    marked = {key[-1]: sign for key, sign in told.marks.items() if "test" in key}
    assert marked == {labels[1]: BETTER, labels[2]: BETTER}
    assert "better than the leader" in told.legend


def test_too_few_seeds_are_said_to_be_too_few() -> None:
    results = results_of({"none": 0.8, "srm": 0.9}, seeds=4)
    assert (
        "That difference is not significant, nor could one be: with 4 seeds p = 0.12 is the least, "
        "and 6 or more are needed"
    ) in answer(results)
    three = answer(results_of({"none": 0.8, "se": 0.85, "srm": 0.9}, seeds=6))
    assert "with 6 seeds p = 0.094 is the least over 3 comparisons, and 7 or more" in three


def test_a_baseline_is_what_the_best_is_held_against() -> None:
    compare = Compare(baseline={"attention": "none"})
    text = answer(results_of({"none": 0.8, "se": 0.895, "srm": 0.9}, compare=compare))
    assert "srm is best" in text
    assert "points above no attention" in text
    ahead = answer(results_of({"none": 0.95, "se": 0.895, "srm": 0.9}, compare=compare))
    assert "no attention is best" in ahead
    assert "points above srm" in ahead


def test_without_a_test_set_the_answer_says_so() -> None:
    text = answer(results_of({"none": 0.8, "srm": 0.9}, splits=["validation"]))
    assert text.startswith("On demo validation, as no test set was evaluated, after 2 epochs, srm")


def test_of_several_lengths_the_longest_answers() -> None:
    text = answer(results_of({"none": 0.8, "srm": 0.9}, lengths=[1, 5]))
    assert "after 5 epochs" in text


def test_less_is_better_for_a_loss() -> None:
    compare = Compare(metrics=["loss"])
    text = answer(results_of({"none": 0.8, "srm": 0.4}, metric="loss", compare=compare))
    assert "srm is best with loss 0.4001 nats" in text
    assert "0.4000 nats below no attention (95 % interval 0.3" in text


def test_one_config_is_compared_with_nothing() -> None:
    text = answer(results_of({"none": 0.8}))
    assert "no attention · base has accuracy 80.0" in text
    assert text.endswith("Nothing is compared, since it is the only config of that length.")
    apart = results_of({"none": 0.8, "srm": 0.9}, without={"none": SEEDS - 1, "srm": 0})
    assert "n = 1" in answer(apart)


def test_equal_configs_are_level() -> None:
    text = answer(results_of({"none": 0.8, "srm": 0.8}, spread=0))
    assert "level with" in text
    assert "−0.00" not in text
    assert "not significant" in text


def test_no_run_no_answer() -> None:
    assert answer(results_of({"none": 0.8}, without={"none": SEEDS})) == (
        "No run has been evaluated yet."
    )


def test_what_is_significantly_worse_than_the_best_is_marked() -> None:
    results = results_of({"none": 0.8, "se": 0.9, "srm": 0.9001})
    marked = marks(results)
    shown = {
        json.loads(row["label"])["attention"]: marked.of(row)
        for row in results.ranking.to_pylist()
        if row["split"] == "test"
    }
    assert shown == {"none": WORSE, "se": "", "srm": ""}
    assert marked.legend == (
        "↓ significantly worse than the best of its length (p < 0.05, sign-flip test paired by "
        "seed, Holm's correction over 3 comparisons: every pair of 3 configs)."
    )


def test_marks_of_a_baseline_say_which_way() -> None:
    compare = Compare(baseline={"attention": "none"})
    results = results_of({"none": 0.85, "se": 0.8, "srm": 0.9}, compare=compare)
    marked = marks(results)
    found = {json.loads(key[-1])["attention"]: mark for key, mark in marked.marks.items()}
    assert found == {"se": WORSE, "srm": BETTER}
    assert "↑ significantly better, ↓ significantly worse than its reference" in marked.legend


@pytest.mark.parametrize(("seeds", "spread"), [(4, 1.0), (8, 0.0)])
def test_nothing_is_marked_that_is_not_significant(seeds: int, spread: float) -> None:
    mean = 0.8 if spread == 0 else 0.9
    marked = marks(results_of({"none": 0.8, "srm": mean}, seeds=seeds, spread=spread))
    assert marked.marks == {}
    assert marked.legend.startswith("No score differs significantly from the best of its length")


def test_where_nothing_is_compared_nothing_is_said_of_marks() -> None:
    assert marks(results_of({"none": 0.8})).legend == ""


# What is missing.


def cells_of(stage: str, *runs: str, label: str = "{}") -> list[dict[str, Any]]:
    basis = {"label": label, "nuisance": "{}", "epochs": 3, "config_id": "c", "role": "end"}
    return [{**basis, "seed": seed, "run_id": run, "stage": stage} for seed, run in enumerate(runs)]


def state(run: str, status: str, epochs_done: int) -> Any:
    row = {
        "run_id": run,
        "config_id": "c",
        "seed": 0,
        "status": status,
        "fallbacks": [],
        "epochs_done": epochs_done,
        "evaluated": [],
        "stack": [0],
        "trainer_version": 1,
    }
    return run_state(tables.TABLES["runs"].from_rows([row]).to_pylist()[0])


def test_every_kind_of_gap_is_counted_and_named() -> None:
    statuses = {"f": "failed", "g": "failed", "d": "diverged", "r": "running"}
    states = {run: state(run, status, 1) for run, status in statuses.items()}
    states["done"] = state("done", "complete", 3)
    table = tables.TABLES["cells"].from_rows(cells_of("grid", *states, "never"))
    (note,) = gap_notes(table, states)
    assert note == (
        "5 of 6 cells have no result: 2 of failed runs, 1 of runs that diverged, 1 stopped "
        "half-way and 1 not trained yet. Means are over the runs that have one, and tables say of "
        "how many"
    )


def test_a_config_without_any_run_is_named_beside() -> None:
    rows = [*cells_of("grid", "done"), *cells_of("grid", "never", label='{"a": 1}')]
    (note,) = gap_notes(
        tables.TABLES["cells"].from_rows(rows), {"done": state("done", "complete", 3)}
    )
    assert note.startswith("1 of 2 cells has no result: 1 not trained yet.")
    assert note.endswith("; 1 of 2 configs and lengths have no run at all")


def test_what_a_search_stopped_is_told_apart() -> None:
    rows = [*cells_of("search", "p", "done"), *cells_of("confirm", "done")]
    states = {"p": state("p", "pruned", 1), "done": state("done", "complete", 3)}
    (note,) = gap_notes(tables.TABLES["cells"].from_rows(rows), states)
    assert note == (
        "1 of 2 cells of the search has no result: 1 of runs that a search stopped early"
    )


def test_a_whole_sweep_has_nothing_to_note() -> None:
    table = tables.TABLES["cells"].from_rows(cells_of("grid", "done"))
    assert gap_notes(table, {"done": state("done", "complete", 4)}) == []

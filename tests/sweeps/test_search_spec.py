"""What the section `search` of a specification means, and how mistakes in it are named."""

from __future__ import annotations

import pytest

from tests.sweeps.specs import Parse, refused, searched


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "data: {validation: 0}\n" + searched("batch_size: {choice: [1]}"),
            ["validation", "least 1"],
        ),
        (
            searched("batch_size: {choice: [1]}", "  metric: test.auroc\n"),
            ["search.metric", "'test.auroc'", "the test split chooses nothing"],
        ),
        (
            searched("batch_size: {choice: [1]}", "  metric: validation.f2\n"),
            ["search.metric", "f1"],
        ),
        (searched("batch_size: {choice: [1]}", "  trails: 3\n"), ["search.trails", "mean trials"]),
        (searched("batch_sizes: {choice: [1]}"), ["batch_sizes", "mean batch_size"]),
        (searched("batch_size: {choice: [18, 0]}"), ["choice[1]", "0", "greater"]),
        (searched("batch_size: {choice: []}"), ["search.space.batch_size.choice"]),
        (searched("batch_size: {chioce: [1]}"), ["chioce", "mean choice"]),
        (searched("batch_size: {}"), ["search.space.batch_size", "exactly one"]),
        (
            searched("batch_size: {choice: [1], int_uniform: [1, 2]}"),
            ["search.space.batch_size", "exactly one"],
        ),
        (searched("optimizer.lr: {log_uniform: [0, 1]}"), ["optimizer.lr", "log scale", "above 0"]),
        (searched("optimizer.lr: {uniform: [0.5, 0.1]}"), ["optimizer.lr", "low end"]),
        (searched("optimizer.momentum: {uniform: [0.5, 1.5]}"), ["momentum", "1.5", "less than"]),
        (searched("optimizer.lr: {uniform: [0.1, 0.2, 0.3]}"), ["optimizer.lr.uniform"]),
        (searched("epochs: {choice: [1, 2]}"), ["search.space.epochs", "schedule.horizon here"]),
        (
            searched("batch_size: {choice: [1]}", "  reach: {metric: test.auroc, value: 0.9}\n"),
            ["search.reach.metric", "'test.auroc'", "the test split chooses nothing"],
        ),
        (
            searched("batch_size: {choice: [1]}", "  reach: {metric: train_seconds, value: 9}\n"),
            ["search.reach.metric", "must be validation.<score>"],
        ),
        (
            searched("batch_size: {choice: [1]}", "  reach: {metric: validation.auroc}\n"),
            ["search.reach.value", "missing"],
        ),
        (
            searched(
                "batch_size: {choice: [1]}",
                "  reach: {value: 0.9}\n  metric: validation.auroc\n",
            ),
            ["search", "least train_seconds", "remove metric"],
        ),
        (
            searched("batch_size: {choice: [1]}", "  reach: {value: 0.9}\n  scheduler: {}\n"),
            ["search", "takes longer than the best is stopped", "drop scheduler"],
        ),
        (
            searched("batch_size: {choice: [1]}", "  reach: {value: 0.9}\n  sampler: cma_es\n"),
            ["search", "cma_es", "take tpe or gp"],
        ),
        (
            "nuisance: {seed: 2, data.validation_seed: [0, 1]}\n"
            + searched("batch_size: {choice: [1]}"),
            ["nuisance.data.validation_seed", "[0, 1]", "one value"],
        ),
        (
            searched("batch_size: {choice: [1]}", fixed="epochs: 1, batch_size: 4"),
            ["search.space.batch_size", "fixed"],
        ),
        (
            searched("placement: {choice: [both], when: {attention: srm}}"),
            ["when.attention", "no value in this sweep"],
        ),
        (
            searched("placement: {choice: [both], when: {atention: srm}}"),
            ["when.atention", "mean attention"],
        ),
        (
            searched("placement: {choice: [both], when: {attention: seat}}"),
            ["when.attention", "'seat'", "did you mean se"],
        ),
        (
            searched(
                "attention: {choice: [none, srm], when: {placement: both}}\n"
                "placement: {choice: [both], when: {attention: srm}}"
            ),
            ["search.space", "circle"],
        ),
        (searched("batch_size: {choice: [1]}", "  trials: 3\n"), ["search.trials", "twice"]),
        (
            searched("optimizer.lr: {uniform: [0.1, 0.2]}", "  sampler: grid\n"),
            ["search.space.optimizer.lr", "choice or int_uniform"],
        ),
        (
            searched("data_seed: {int_uniform: [0, 9223372036854775806]}", "  sampler: grid\n"),
            ["search.space", "100,000 points at most", "9,223,372,036,854,775,807"],
        ),
        (
            searched(
                "batch_size: {choice: [1]}\noptimizer.lr: {uniform: [0.1, 0.2]}",
                "  sampler: cma_es\n",
            ),
            ["search.space.batch_size", "cma_es needs ranges"],
        ),
        (
            searched("optimizer.lr: {uniform: [0.1, 0.2]}", "  sampler: cma_es\n"),
            ["search.space", "two dimensions"],
        ),
        (
            searched("batch_size: {choice: [1]}", "  metric: [validation.auroc, parameters]\n"),
            ["search", "2 metrics and 1 mode", "one mode, max or min, for each"],
        ),
        (
            searched(
                "batch_size: {choice: [1]}",
                "  metric: [validation.auroc, parameters]\n  mode: [max, min]\n"
                "  scheduler: {name: asha}\n",
            ),
            ["search", "a scheduler compares by one metric"],
        ),
        (
            searched("batch_size: {choice: [1]}", "  confirm: {seeds: [7, 0]}\n"),
            ["search.confirm.seeds", "the search used 0", "fresh"],
        ),
        (
            searched("batch_size: {choice: [1]}", "  confirm: {seeds: 0}\n"),
            ["search.confirm.seeds", "at least 1"],
        ),
        (
            searched("batch_size: {choice: [1]}", "  confirm: {tops: 2}\n"),
            ["search.confirm.tops", "mean top"],
        ),
        (
            searched("batch_size: {choice: [1]}", "  confirm: 3\n"),
            ["search.confirm: 3: must be a mapping"],
        ),
        (
            searched("batch_size: {choice: [1]}").replace("  trials: 3\n", ""),
            ["search", "needs a budget: trials, hours, core_hours or gpu_hours"],
        ),
        (
            searched("attention: {choice: [none, srm]}"),
            ["placement", "attention srm needs one of", "after_pool1"],
        ),
        (
            searched("batch_size: {choice: [1]}", "  core_hours: 0\n"),
            ["search.core_hours", "greater than 0"],
        ),
    ],
)
def test_a_mistake_in_a_search_is_named(parse_text: Parse, text: str, parts: list[str]) -> None:
    message = refused(parse_text, text)
    for part in parts:
        assert part in message


def test_a_search_may_have_one_metric_or_several_and_any_budget(parse_text: Parse) -> None:
    one = parse_text(searched("batch_size: {choice: [1]}")).search
    assert one is not None
    assert one.objectives == [("validation.auroc", "max")]
    assert one.budget == {"trials": 3}
    several = parse_text(
        searched(
            "batch_size: {choice: [1]}",
            "  metric: [validation.loss, train_seconds]\n  mode: [min, min]\n  hours: 2\n",
        )
    ).search
    assert several is not None
    assert several.objectives == [("validation.loss", "min"), ("train_seconds", "min")]
    assert several.budget == {"trials": 3, "hours": 2}


def test_a_search_for_a_score_is_for_the_least_training_time(parse_text: Parse) -> None:
    text = searched("optimizer.lr: {uniform: [0.1, 0.2]}", "  reach: {value: 0.9}\n")
    search = parse_text(text).search
    assert search is not None
    assert search.objectives == [("train_seconds", "min")]
    assert search.read == ["train_seconds", "validation.accuracy"]
    assert search.watched == ("validation.accuracy", "max")
    less = parse_text(text.replace("{value", "{metric: validation.brier, value")).search
    assert less is not None
    assert less.watched == ("validation.brier", "min")


def test_a_trial_ends_where_the_schedule_that_is_proposed_for_it_ends(parse_text: Parse) -> None:
    text = searched(
        "schedule.horizon: {int_uniform: [1, 9]}", fixed="epochs: 4, schedule.name: one_cycle"
    )
    spec = parse_text(text)
    found = {n: spec.variants("f", {"schedule.horizon": n})[0] for n in (1, 3, 4, 9)}
    assert {n: each.epochs for n, each in found.items()} == {1: 1, 3: 3, 4: 4, 9: 4}
    assert {n: each.config.schedule.horizon for n, each in found.items()} == {n: n for n in found}
    constant = parse_text(text.replace("one_cycle", "constant"))
    assert constant.variants("f", {"schedule.horizon": 1})[0].epochs == 4


def test_a_search_takes_one_grid(parse_text: Parse) -> None:
    text = searched("optimizer.lr: {uniform: [0.1, 0.2]}")
    grids = "\nscientific: [{batch_size: [8]}, {batch_size: [16]}]\n"
    message = refused(parse_text, text + grids)
    assert "scientific: '2 grids': a search has a study for each combination" in message


def test_a_grid_needs_no_budget(parse_text: Parse) -> None:
    text = searched("batch_size: {choice: [1, 2]}", "  sampler: grid\n")
    grid = parse_text(text.replace("  trials: 3\n", "")).search
    assert grid is not None
    assert grid.budget == {}


def test_seeds_that_confirm_are_fresh_and_they_alone_see_the_test_sets(parse_text: Parse) -> None:
    text = "data: {evaluate: [cifar100]}\n" + searched(
        "batch_size: {choice: [1]}", "  confirm: {}\n"
    )
    spec = parse_text(text, "seed=[3, 11]")
    confirming = spec.confirming
    assert confirming is not None
    assert confirming.seeds == list(range(12, 22))
    assert confirming.evaluate == ["cifar100"]
    assert spec.evaluate == []
    assert spec.datasets == ["cifake", "cifar100"], "opened before anything starts"
    assert parse_text(text, "seed=2", "search.confirm.seeds=[5, 9]").confirming.seeds == [5, 9]

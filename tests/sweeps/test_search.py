"""The search space as Optuna sees it, its points, and the names of studies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import optuna
import pytest

from cifake.data.pack import Pack
from sweeps.parts import split_scientific, study_name
from sweeps.search.space import Space
from sweeps.spec import Dimension, Search, Spec, ordered_space, point_of, points
from sweeps.sweep import Sweep

Parse = Callable[..., Spec]

SPACE = {
    "placement": {"choice": ["after_pool1", "both"], "when": {"attention": "srm"}},
    "attention": {"choice": ["none", "srm"]},
    "optimizer.lr": {"log_uniform": [1e-4, 1e-1]},
    "optimizer.momentum": {"uniform": [0.5, 0.98]},
    "batch_size": {"int_uniform": [8, 16]},
    "attention_options.std": {"choice": ["biased", "unbiased"], "when": {"placement": "both"}},
}


def search(space: Mapping[str, Any] = SPACE) -> Search:
    dimensions = {path: Dimension.model_validate(value) for path, value in space.items()}
    return Search(trials=3, space=dimensions)


def drawn(space: Space, trials: int, seed: int = 0) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))

    def objective(trial: optuna.Trial) -> float:
        space(trial)
        return 0.0

    study.optimize(objective, n_trials=trials)
    return [trial.params for trial in study.trials]


def test_a_dimension_is_asked_where_its_condition_holds_and_nowhere_else() -> None:
    proposals = drawn(Space(search(), {}), 200)
    for params in proposals:
        assert ("placement" in params) == (params["attention"] == "srm")
        assert ("attention_options.std" in params) == (params.get("placement") == "both")
    counts = Counter(params["attention"] for params in proposals)
    assert min(counts["none"], counts["srm"]) > 50
    assert any("attention_options.std" in params for params in proposals)


def test_every_value_lies_in_its_range() -> None:
    proposals = drawn(Space(search(), {}), 200)
    for params in proposals:
        assert 1e-4 <= params["optimizer.lr"] <= 1e-1
        assert 0.5 <= params["optimizer.momentum"] <= 0.98
        assert params["batch_size"] in range(8, 17)
        assert isinstance(params["batch_size"], int)
    assert {params["batch_size"] for params in proposals} == set(range(8, 17)), "both ends too"
    below = sum(params["optimizer.lr"] < 10**-2.5 for params in proposals)
    assert 70 <= below <= 130, "half of the draws lie below the middle of the log scale"


@pytest.mark.parametrize(("attention", "asked"), [("srm", True), ("none", False)])
def test_a_condition_may_look_at_a_parameter_with_one_value(attention: str, asked: bool) -> None:
    space = {"placement": {"choice": ["both"], "when": {"attention": "srm"}}}
    proposals = drawn(Space(search(space), {"attention": attention}), 3)
    assert all(("placement" in params) == asked for params in proposals)


def test_dimensions_are_asked_after_those_that_they_depend_on() -> None:
    order = [path for path, _ in ordered_space(search())]
    assert sorted(order) == sorted(SPACE)
    assert order.index("attention") < order.index("placement")
    assert order.index("placement") < order.index("attention_options.std")


def test_conditions_in_a_circle_are_refused() -> None:
    space = {
        "attention": {"choice": ["srm"], "when": {"placement": "both"}},
        "placement": {"choice": ["both"], "when": {"attention": "srm"}},
    }
    with pytest.raises(ValueError, match="circle"):
        ordered_space(search(space))


DISCRETE = {
    "attention": {"choice": ["none", "srm", "se"]},
    "placement": {"choice": ["after_pool1", "both"], "when": {"attention": "srm"}},
    "batch_size": {"int_uniform": [8, 10]},
    "attention_options.std": {"choice": ["biased", "unbiased"], "when": {"placement": "both"}},
}


def test_the_points_of_a_space_are_all_that_can_be_drawn_from_it_each_once() -> None:
    given = search(DISCRETE)
    found = [repr(sorted(point.items())) for point in points(given, {})]
    assert len(found) == (1 + (1 + 2) + 1) * 3
    proposals = {repr(sorted(params.items())) for params in drawn(Space(given, {}), 600)}
    assert len(set(found)) == len(found)
    assert set(found) == proposals


def test_a_range_of_real_numbers_has_no_points() -> None:
    with pytest.raises(ValueError, match=r"optimizer\.lr is a range"):
        list(points(search(), {}))


@pytest.mark.parametrize("space", [SPACE, DISCRETE])
def test_a_config_made_of_a_point_lies_at_that_point(space: Mapping[str, Any]) -> None:
    given = search(space)
    for params in drawn(Space(given, {}), 50):
        config = {"placement": "none", "attention_options.std": "biased", "model": "base", **params}
        assert point_of(given, {}, config) == params


@pytest.mark.parametrize(
    "changed",
    [
        {"optimizer.lr": 1.0},
        {"optimizer.momentum": None},
        {"batch_size": 17},
        {"batch_size": 8.5},
        {"batch_size": True},
        {"attention": "se"},
        {"attention": "srm", "placement": "after_pool2"},
    ],
)
def test_a_config_outside_the_space_lies_at_no_point(changed: dict[str, Any]) -> None:
    inside = {"attention": "none", "optimizer.lr": 0.01, "optimizer.momentum": 0.9, "batch_size": 8}
    assert point_of(search(), {}, inside) == inside
    assert point_of(search(), {}, {**inside, **changed}) is None


SPEC = """\
name: a
data: {train: demo, validation: 50}
scientific: {attention: [none, srm], placement: [both], epochs: [1, 2]}
nuisance: {seed: 2}
search:
  trials: 4
  space:
    optimizer.lr: {log_uniform: [1e-3, 1e-1]}
"""


def name_of(parse_text: Parse, pack: Pack, *settings: str) -> str:
    spec = parse_text(SPEC, *settings)
    assert spec.search is not None
    return study_name(Sweep(spec, {"demo": pack}), spec.search)


@pytest.mark.parametrize(
    "setting",
    [
        "search.space.optimizer.lr={log_uniform: [1e-3, 1.0]}",
        "search.space.batch_size={choice: [8, 16]}",
        "search.metric=validation.loss",
        "search.mode=min",
        "search.sampler=random",
        "search.seed=1",
        "search.scheduler={name: asha}",
        "epochs=[1, 3]",
        "seed=3",
        "batch_size=8",
        "attention=[srm]",
        "data.validation=40",
        "data.train_images=100",
    ],
)
def test_a_study_changes_its_name_with_all_that_its_values_depend_on(
    parse_text: Parse, demo_pack: Pack, setting: str
) -> None:
    assert name_of(parse_text, demo_pack, setting) != name_of(parse_text, demo_pack)


@pytest.mark.parametrize(
    "setting",
    ["search.trials=40", "search.hours=1", "search.confirm={top: 2}", "resources.cpus=2"],
)
def test_a_study_goes_on_with_another_budget_or_other_resources(
    parse_text: Parse, demo_pack: Pack, setting: str
) -> None:
    assert name_of(parse_text, demo_pack, setting) == name_of(parse_text, demo_pack)


@pytest.mark.parametrize(
    "space",
    [
        "optimizer.lr: {log_uniform: [1e-3, 1e-1]}",
        "attention_options.std: {choice: [biased], when: {attention: srm}}",
    ],
)
def test_placements_of_no_attention_have_one_study(parse_text: Parse, space: str) -> None:
    spec = parse_text(
        "name: a\nfixed: {epochs: 1}\n"
        "scientific: {attention: [none, srm], placement: [after_pool1, both]}\n"
        f"search:\n  trials: 2\n  space:\n    {space}\n"
    )
    found = [
        (part.scientific["attention"][0], part.scientific["placement"][0])
        for part in split_scientific(spec)
    ]
    assert found == [("none", "after_pool1"), ("srm", "after_pool1"), ("srm", "both")]


def test_a_placement_matters_where_the_search_may_propose_attention(parse_text: Parse) -> None:
    spec = parse_text(
        "name: a\nfixed: {epochs: 1}\nscientific: {placement: [after_pool1, both]}\n"
        "search:\n  trials: 2\n  space:\n    attention: {choice: [none, srm]}\n"
    )
    assert len(split_scientific(spec)) == 2


def test_each_combination_of_scientific_values_has_a_study_of_its_own(
    parse_text: Parse, demo_pack: Pack
) -> None:
    spec = parse_text(SPEC)
    assert spec.search is not None
    parts = split_scientific(spec)
    assert [part.scientific["attention"] for part in parts] == [["none"], ["srm"]]
    assert all(part.scientific["epochs"] == [1, 2] for part in parts)
    names = {study_name(Sweep(part, {"demo": demo_pack}), spec.search) for part in parts}
    assert len(names) == 2
    assert split_scientific(replace(spec, grids=[{"epochs": [2]}]))[0].scientific == {"epochs": [2]}

"""What a specification means."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cifake.parameters import make_config
from sweeps import specfile
from sweeps.parse import parse
from tests.sweeps.specs import DESIGN, GRIDS, MINIMAL, Parse, refused


def test_the_example_of_the_design_parses(parse_text: Parse) -> None:
    spec = parse_text(DESIGN)
    assert spec.name == "placements"
    assert spec.question.startswith("Does style")
    assert spec.scientific["placement"] == ["after_pool1", "after_pool2", "both"]
    assert spec.fixed["optimizer.momentum"] == 0.9
    assert spec.seeds == [0, 1, 2, 3, 4, 5]
    assert (spec.resources.cpus, spec.resources.gpus) == (1, 0.25)
    assert spec.search is not None
    assert spec.search.trials == 40
    assert spec.search.space["attention_options.std"].when == {"attention": "srm"}
    assert spec.datasets == ["cifake"], "a search looks at validation alone"


def test_the_examples_of_the_readme_parse(parse_text: Parse) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    whole, grids = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
    spec = parse_text(whole)
    assert spec.compare.baseline == {"attention": "none"}
    assert spec.search is not None
    assert len(parse_text("name: a\n" + grids).variants("")) == 1 + 2 * 2


def test_data_set_names_take_their_one_spelling(parse_text: Parse) -> None:
    spec = parse_text(
        "data:\n  train: folders/mine@filter=bilinear,blur=1.0\n"
        '  evaluate: [generators, folders/kaggle, "demo@jpeg=075,greyscale"]\n' + MINIMAL
    )
    assert spec.data.train == "folders/mine@blur=1"
    assert spec.evaluate == ["generators", "folders/kaggle", "demo@jpeg=75,greyscale"]
    assert spec.datasets == ["folders/mine@blur=1", *spec.evaluate]
    (variant,) = spec.variants("f" * 16)
    assert variant.config.data.train == "folders/mine@blur=1"


def test_variant_can_be_set_on_the_command_line(parse_text: Parse) -> None:
    spec = parse_text(MINIMAL, "data.evaluate=[demo, demo@noise=2.50]", "data.train=demo@blur=2")
    assert spec.datasets == ["demo@blur=2", "demo", "demo@noise=2.5"]


def test_subsets_can_be_compared(parse_text: Parse) -> None:
    spec = parse_text(
        "name: a\nscientific: {data.leave_out: [null, cat, dog]}\nfixed: {epochs: 1}\n"
    )
    configs = [variant.config for variant in spec.variants("f" * 16)]
    assert [config.data.leave_out for config in configs] == [None, "cat", "dog"]
    assert len({config.config_id for config in configs}) == 3


@pytest.mark.parametrize("name", sorted(specfile.shipped()))
def test_every_study_that_ships_parses(name: str) -> None:
    spec = parse(specfile.read(specfile.find(name)))
    assert spec.name == name
    assert spec.question


@pytest.mark.parametrize(
    "fixed",
    [
        "scientific: {epochs: 3}\nfixed: {batch_size: 16, optimizer: {lr: 0.5}}",
        "scientific: {epochs: [3]}\nfixed: {batch_size: 16, optimizer.lr: 0.5}",
        "fixed: {epochs: 3, batch_size: 16, optimizer.lr: 5e-1}",
        "fixed:\n  epochs: 3\n  batch_size: 16\n  optimizer:\n    lr: 0.5\n",
        "nuisance: {batch_size: [16]}\nfixed: {epochs: 3, optimizer: {lr: 0.5}}",
    ],
)
def test_bare_listed_dotted_and_nested_forms_are_one_config(parse_text: Parse, fixed: str) -> None:
    variants = parse_text(f"name: a\n{fixed}").variants("f")
    assert len(variants) == 1
    assert variants[0].epochs == 3
    expected = make_config(parse_text(MINIMAL).data, {"batch_size": 16, "optimizer.lr": 0.5}, "f")
    assert variants[0].config.config_id == expected.config_id


# Schedules.


def test_a_constant_rate_shares_epochs_across_lengths(parse_text: Parse) -> None:
    variants = parse_text("name: a\nscientific: {epochs: [2, 5]}").variants("f")
    assert len({variant.config.config_id for variant in variants}) == 1


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_a_schedule_spans_the_epochs_asked_for(parse_text: Parse, schedule: str) -> None:
    text = f"name: a\nscientific: {{epochs: [2, 5]}}\nfixed: {{schedule: {{name: {schedule}}}}}"
    variants = parse_text(text).variants("f")
    assert [variant.config.schedule.horizon for variant in variants] == [2, 5]
    assert len({variant.config.config_id for variant in variants}) == 2


def test_a_horizon_that_is_given_shares_epochs_across_lengths(parse_text: Parse) -> None:
    text = "name: a\nscientific: {epochs: [2, 5]}\nfixed: {schedule: {name: cosine, horizon: 5}}"
    variants = parse_text(text).variants("f")
    assert len({variant.config.config_id for variant in variants}) == 1


def test_a_horizon_below_the_length_is_refused(parse_text: Parse) -> None:
    text = "name: a\nscientific: {epochs: [2, 5]}\nfixed: {schedule: {name: cosine, horizon: 4}}"
    assert "fixed.schedule.horizon: 4: must be at least the 5 epochs" in refused(parse_text, text)


def test_horizon_follows_the_length_that_a_model_is_cut_to(parse_text: Parse) -> None:
    text = "name: a\nfixed: {model: mini, epochs: 9, schedule.name: cosine}"
    (variant,) = parse_text(text).variants("f")
    assert (variant.epochs, variant.config.schedule.horizon) == (1, 1)


# Architectures.


def test_parameters_of_an_architecture_are_compared(parse_text: Parse) -> None:
    """What a model does not have is dropped from its configuration."""
    variants = parse_text(
        "name: a\nscientific: {model: [base, paper], model_options.filters: [16, 32]}\n"
        "fixed: {epochs: 1}"
    ).variants("f")
    assert len({variant.config.config_id for variant in variants}) == 3


@pytest.mark.parametrize(
    ("gpus", "counts"),
    [(0, True), (0.0001, True), (0.25, True), (1, True), (2, True), (1.5, False), (0.00001, False)],
)
def test_shares_of_gpus_that_ray_cannot_count_are_refused(
    parse_text: Parse, gpus: float, counts: bool
) -> None:
    text = f"{MINIMAL}resources: {{gpus: {gpus:f}}}\n"
    if counts:
        assert parse_text(text).resources.gpus == gpus
    else:
        said = refused(parse_text, text)
        assert "resources.gpus" in said
        assert "Ray counts GPUs: give a whole number, or a share from 0.0001 to 1" in said


def test_every_mistake_of_a_combination_is_named(parse_text: Parse) -> None:
    message = refused(
        parse_text,
        "name: a\nscientific: {attention: [srm], placement: [after_pool9]}\n"
        "fixed: {epochs: 1, batch_size: 1, model: resnet, model_options: {depth: 19}}",
    )
    for part in ("scientific.placement: 'after_pool9'", "fixed.batch_size: 1", "depth: 19"):
        assert part in message


@pytest.mark.parametrize(
    ("given_", "seeds"),
    [("6", [0, 1, 2, 3, 4, 5]), ("1", [0]), ("[7, 3]", [7, 3]), ("[6]", [6]), (None, [0])],
)
def test_a_number_of_seeds_counts_from_zero_and_a_list_names_them(
    parse_text: Parse, given_: str | None, seeds: list[int]
) -> None:
    nuisance = "" if given_ is None else f"nuisance: {{seed: {given_}}}"
    assert parse_text(f"{MINIMAL}{nuisance}").seeds == seeds


def test_no_attention_is_one_config_whatever_its_placement(parse_text: Parse) -> None:
    text = DESIGN.partition("search:")[0]
    variants = parse_text(text).variants("f")
    configs = {variant.config.config_id for variant in variants}
    assert len(configs) == 1 + 3
    assert len(variants) == (1 + 3) * 4
    labels = [v.label for v in variants if v.label["attention"] == "none"]
    assert {label["placement"] for label in labels} == {"none"}


def test_options_of_absent_attention_change_nothing(parse_text: Parse) -> None:
    plain = parse_text("name: a\nfixed: {epochs: 1}").variants("f")
    optioned = parse_text("name: a\nfixed: {epochs: 1, attention_options: {std: biased}}")
    assert [v.config for v in optioned.variants("f")] == [v.config for v in plain]


def test_two_spellings_of_a_placement_are_one_config(parse_text: Parse) -> None:
    text = "name: a\nscientific: {placement: [both, after_pool2+after_pool1]}\n"
    variants = parse_text(text + "fixed: {epochs: 1, attention: srm}").variants("f")
    assert len(variants) == 1


def test_mini_is_cut_to_one_epoch(parse_text: Parse) -> None:
    text = "name: a\nscientific: {model: [base, mini], epochs: [1, 5]}\n"
    variants = parse_text(text).variants("f")
    lengths = {(v.label["model"], v.epochs) for v in variants}
    assert lengths == {("base", 1), ("base", 5), ("mini", 1)}
    assert len(variants) == 3
    assert len({v.config.config_id for v in variants}) == 1, "mini shares the runs of base"


def test_attn_is_base_with_recalibration(parse_text: Parse) -> None:
    preset = parse_text("name: a\nfixed: {epochs: 1, model: attn}").variants("f")
    spelled = "name: a\nfixed: {epochs: 1, attention: srm, placement: after_pool1}"
    assert [v.config for v in preset] == [v.config for v in parse_text(spelled).variants("f")]


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.0e-4", "1.e-4", "0.0001", "+1e-4"])
def test_a_number_in_scientific_notation_is_a_number(parse_text: Parse, text: str) -> None:
    spec = parse_text(f"name: a\nfixed: {{epochs: 1, optimizer.lr: {text}}}")
    assert spec.fixed["optimizer.lr"] == 1e-4


def test_the_training_set_is_evaluated_unless_others_are_named(parse_text: Parse) -> None:
    assert parse_text("data: {train: demo}\n" + MINIMAL).evaluate == ["demo"]
    others = parse_text("data: {train: demo, evaluate: [cifar100]}\n" + MINIMAL)
    assert others.evaluate == ["cifar100"]
    assert others.datasets == ["demo", "cifar100"]
    assert parse_text("data: {train: demo, evaluate: []}\n" + MINIMAL).evaluate == []


def test_a_list_of_grids_asks_for_the_combinations_of_each(parse_text: Parse) -> None:
    spec = parse_text(GRIDS)
    variants = spec.variants("f")
    assert [
        (v.label["model"], v.config.batch_size, v.config.optimizer.lr, v.epochs) for v in variants
    ] == [
        ("base", 18, 0.001, 2),
        ("attn", 18, 0.001, 2),
        ("base", 32, 0.001, 2),
        ("base", 32, 0.001, 10),
        ("mini", 32, 0.01, 1),
        ("base", 32, 0.01, 10),
    ]
    assert {tuple(v.label) for v in variants} == {("model", "batch_size", "optimizer.lr")}
    assert spec.scientific == {
        "model": ["base", "attn", "mini"],
        "batch_size": [18, 32],
        "epochs": [2, 10],
        "optimizer.lr": [0.01],
    }


def test_a_list_of_one_grid_is_that_grid_and_what_two_grids_name_is_there_once(
    parse_text: Parse,
) -> None:
    grid = "{model: [base, linear], epochs: [1, 2]}"
    texts = [
        f"name: a\nscientific: {each}"
        for each in (grid, f"[{grid}]", f"[{grid}, {{epochs: [2], model: [linear]}}]")
    ]
    found = [parse_text(text).variants("f") for text in texts]
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 4


def test_a_baseline_may_lie_in_any_grid(parse_text: Parse) -> None:
    text = GRIDS + "compare: {baseline: {batch_size: 18}}\n"
    assert parse_text(text).compare.baseline == {"batch_size": 18}
    default = parse_text(text.replace("batch_size: 18}}", "optimizer.lr: 0.001}}"))
    assert [default.compare.is_baseline(each.label) for each in default.variants("")].count(True)
    message = refused(parse_text, text.replace("batch_size: 18}}", "model: linear}}"))
    assert "none of its values here; valid: attn, base, mini" in message
    message = refused(parse_text, text.replace("batch_size: 18}}", "batch_size: 64}}"))
    assert "no config has these values" in message


# What is compared.

COMPARED = """\
name: a
data: {train: demo, validation: 10}
scientific: {attention: [none, srm], placement: [both], optimizer: {lr: [0.1, 0.01]}, epochs: [1]}
fixed: {batch_size: 8}
compare: """


def test_accuracy_and_auroc_of_every_pair_are_compared_unless_others_are_named(
    parse_text: Parse,
) -> None:
    compare = parse_text(MINIMAL).compare
    assert (compare.metrics, compare.baseline) == (["accuracy", "auroc"], {})
    given = parse_text(COMPARED + "{metrics: loss, baseline: {optimizer: {lr: 0.01}}}").compare
    assert given.metrics == ["loss"]
    assert given.baseline == {"optimizer.lr": 0.01}
    assert given.is_baseline({"optimizer.lr": 0.01, "attention": "srm"})
    assert not given.is_baseline({"optimizer.lr": 0.1})
    metrics = parse_text(COMPARED + "{}", "compare.metrics=[ece, f1_deduplicated]").compare.metrics
    assert metrics == ["ece", "f1_deduplicated"]


@pytest.mark.parametrize(
    ("section", "parts"),
    [
        ("{metrics: [acuracy]}", ["compare.metrics", "'acuracy' is no metric", "mean accuracy"]),
        ("{metrics: temperature}", ["compare.metrics", "'temperature' is no metric"]),
        ("{metrics: [loss, loss]}", ["compare.metrics", "twice"]),
        ("{metrics: []}", ["compare.metrics", "at least 1"]),
        ("{metric: [loss]}", ["compare.metric:", "mean metrics"]),
        ("[loss]", ["compare", "mapping"]),
        ("{baseline: none}", ["compare.baseline", "'none'", "mapping"]),
        ("{baseline: {atention: none}}", ["compare.baseline.atention", "mean attention"]),
        ("{baseline: {attention: se}}", ["compare.baseline.attention", "'se'", "none, srm"]),
        ("{baseline: {optimizer: {lr: 0.5}}}", ["compare.baseline.optimizer.lr", "0.5", "0.1"]),
        ("{baseline: {batch_size: 8}}", ["compare.baseline.batch_size", "one value here"]),
        ("{baseline: {epochs: 1}}", ["compare.baseline.epochs", "one length"]),
        (
            "{baseline: {attention: none, placement: both}}",
            ["compare.baseline", "no config has these values"],
        ),
    ],
)
def test_a_mistake_of_what_is_compared_is_named_with_what_is_near(
    parse_text: Parse, section: str, parts: list[str]
) -> None:
    message = refused(parse_text, COMPARED + section)
    assert all(part in message for part in (":5", *parts))


def test_mistakes_of_what_is_compared_are_named_with_all_others(parse_text: Parse) -> None:
    text = COMPARED.replace("batch_size: 8", "batch_size: 0")
    message = refused(parse_text, text + "{metrics: [los, f2], baseline: {atention: x, epochs: 1}}")
    assert all(
        part in message for part in ("batch_size", "'los'", "'f2'", "atention", "baseline.epochs")
    )


def test_a_baseline_of_a_search_lies_within_its_space(parse_text: Parse) -> None:
    text = DESIGN + "compare: {baseline: {optimizer.weight_decay: VALUE}}\n"
    baseline = parse_text(text.replace("VALUE", "0.001")).compare.baseline
    assert baseline == {"optimizer.weight_decay": 0.001}
    assert "search.space.optimizer.weight_decay" in refused(parse_text, text.replace("VALUE", "7"))

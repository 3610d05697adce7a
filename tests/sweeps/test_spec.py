"""What a specification means, and how mistakes in it are named."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cifake.errors import InputError, Mistake
from cifake.parameters import PARAMETERS, make_config
from sweeps import overrides, specfile
from sweeps.parse import parse
from sweeps.spec import Shape, Spec

Parse = Callable[..., Spec]

DESIGN = """\
name: placements
question: Does style recalibration help, and where?
data: {train: cifake, validation: 5000, train_images: null, evaluate: [cifake, cifar100]}
scientific:
  model: [base]
  attention: [none, srm]
  placement: [after_pool1, after_pool2, both]
  epochs: [1, 2, 5, 10]
nuisance: {seed: 6}
fixed:
  batch_size: 32
  optimizer: {name: sgd, lr: 0.001, momentum: 0.9}
resources: {cpus: 1, gpus: 0.25}
search:
  sampler: tpe
  trials: 40
  metric: validation.auroc
  mode: max
  scheduler: {name: asha, grace_epochs: 1}
  space:
    optimizer.weight_decay: {log_uniform: [1.0e-4, 1.0e-1]}
    attention_options.std: {choice: [biased, unbiased], when: {attention: srm}}
"""

MINIMAL = "name: small\nfixed: {epochs: 1}\n"


def refused(parse_text: Parse, text: str, *settings_: str) -> str:
    with pytest.raises(InputError) as caught:
        parse_text(text, *settings_)
    return str(caught.value)


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


# Schedules


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


# Architectures


def test_parameters_of_an_architecture_are_compared(parse_text: Parse) -> None:
    """What a model does not have is dropped from its configuration."""
    variants = parse_text(
        "name: a\nscientific: {model: [base, paper], model_options.filters: [16, 32]}\n"
        "fixed: {epochs: 1}"
    ).variants("f")
    assert len({variant.config.config_id for variant in variants}) == 3


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


GRIDS = """\
name: a
data: {train: demo, validation: 100}
scientific:
- {model: [base, attn], batch_size: [18], epochs: [2]}
- {model: [base], batch_size: [32], epochs: [2, 10]}
- {model: [mini, base], epochs: [10], optimizer: {lr: [0.01]}}
fixed: {optimizer.momentum: 0.8}
"""


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


# Mistakes: file, line, field, value, and what would be right.


@pytest.mark.parametrize(
    ("text", "line", "parts"),
    [
        ("name: a\nfixed: {epochs: 1}\nscientifc: {}", 3, ["scientifc", "mean scientific"]),
        ("name: a\nfixed:\n  epochs: 1\n  optimizer: {lrr: 1}", 4, ["lrr", "mean optimizer.lr"]),
        ("name: a\nfixed: {epochs: 1}\ndata: {trian: demo}", 3, ["data.trian", "mean train"]),
        ("name: a\nfixed:\n  epochs: soon", 3, ["fixed.epochs", "'soon'", "valid integer"]),
        ("name: a\nfixed:\n  epochs: 1.0", 3, ["fixed.epochs", "1.0", "integer"]),
        ("name: a\nfixed:\n  epochs: true", 3, ["fixed.epochs", "True", "integer"]),
        ("name: a\nfixed:\n  epochs: '2'", 3, ["fixed.epochs", "'2'", "integer"]),
        ("name: a\nscientific:\n  epochs: []", 3, ["scientific.epochs", "at least one"]),
        ("name: a\nscientific:\n  epochs: [1, -5]", 3, ["epochs[1]", "-5", "greater"]),
        ("name: a\nscientific:\n  epochs: [0]", 3, ["scientific.epochs", "0", "greater"]),
        ("name: a\nscientific:\n  epochs:\n  - 1\n  - 1", 5, ["epochs[1]", "twice"]),
        ("name: a\nfixed:\n  epochs: 1\n  epochs: 2", 4, ["fixed.epochs", "twice"]),
        ("name: a\nname: b", 2, ["name", "twice"]),
        ("name: a\nfixed:\n  epochs: 1\n  model: bose", 4, ["'bose'", "mean base"]),
        (
            "name: a\nfixed:\n  epochs: 1\n  attention: srm\n  placement: after_pool9",
            5,
            ["fixed.placement", "'after_pool9'", "after_pool1", "after_pool2"],
        ),
        (
            "name: a\nscientific:\n  attention: [none, srm]\n  epochs: 1",
            None,
            ["placement", "srm needs one of", "after_pool1"],
        ),
        ("name: a\nfixed: {epochs: 1}\ndata:\n  train: cifke", 4, ["'cifke'", "mean cifake"]),
        ("name: a\nfixed: {epochs: 1}\ndata: {train: cifar100}", 3, ["only be evaluated"]),
        (
            "name: a\nfixed: {epochs: 1}\ndata:\n  evaluate:\n  - demo\n  - dmo",
            4,
            ["data.evaluate", "'dmo'", "mean demo"],
        ),
        ("name: a\nfixed: {epochs: 1}\ndata: {evaluate: [demo, demo]}", 3, ["twice"]),
        (
            "name: a\nfixed: {epochs: 1}\ndata: {evaluate: [demo@blur=1, demo@blur=1.0]}",
            3,
            ["twice"],
        ),
        (
            "name: a\nfixed: {epochs: 1}\ndata: {evaluate: [demo@jpeg=0, folders/A, dmo]}",
            3,
            ["data.evaluate", "1 to 100", "lower-case", "mean demo"],
        ),
        (
            "name: a\nfixed: {epochs: 1}\ndata: {evaluate: [demo@blur=1,jpeg=50]}",
            3,
            ["'jpeg=50'", '"NAME@STEP,STEP"'],
        ),
        (
            "name: a\nfixed: {epochs: 1}\ndata: {train: generators@blur=1}",
            3,
            ["data.train", "only be evaluated"],
        ),
        (
            "name: a\nfixed: {epochs: 1}\ndata: {train_images: 9, images_per_class: 3}",
            3,
            ["images_per_class", "one of the two"],
        ),
        (
            "name: a\nfixed: {epochs: 1}\ndata: {only: cat, leave_out: dog}",
            3,
            ["leave_out", "leaves out all others"],
        ),
        (
            "name: a\nfixed: {epochs: 1, data.images_per_class: 3}\ndata: {train_images: 9}",
            None,
            ["fixed.data.images_per_class", "one of the two"],
        ),
        ("name: a\nfixed: {epochs: 1}\ndata: {validation: -1}", 3, ["data.validation", "-1"]),
        ("name: a\nfixed: {epochs: 1}\ndata: {fingerprint: x}", 3, ["data.fingerprint"]),
        ("name: a\nfixed:\n  epochs: 1\n  seed: 3", 4, ["fixed.seed", "nuisance"]),
        ("name: a\nscientific:\n  seed: [1, 2]\n  epochs: 1", 3, ["scientific.seed", "nuisance"]),
        ("name: a\nfixed: {epochs: 1}\nnuisance:\n  seed: 0", 4, ["nuisance.seed", "0", "least 1"]),
        ("name: a\nfixed: {epochs: 1}\nnuisance: {seed: [1, 1]}", 3, ["nuisance.seed", "twice"]),
        ("name: a\nfixed: {epochs: 1}\nnuisance: {seed: [-1]}", 3, ["nuisance.seed", "[-1]"]),
        ("name: a\nfixed: {epochs: 1}\nnuisance: {seed: two}", 3, ["nuisance.seed", "'two'"]),
        ("name: a\nfixed: {epochs: 1}\nnuisance: {seed: true}", 3, ["nuisance.seed", "True"]),
        ("name: a\nfixed: {epochs: 1}\nnuisance: {seed: []}", 3, ["nuisance.seed", "least 1"]),
        (
            "name: a\nscientific: {batch_size: [1, 2]}\nfixed:\n  epochs: 1\n  batch_size: 3",
            5,
            ["fixed.batch_size", "scientific"],
        ),
        (
            "name: a\nfixed:\n  epochs: 1\n  batch_size: [1, 2]",
            4,
            ["fixed.batch_size", "one value"],
        ),
        (
            "name: a\nscientific:\n- {epochs: 1}\n- {model: bose, epochs: 1}",
            4,
            ["scientific[1].model", "'bose'", "mean base"],
        ),
        (
            "name: a\nscientific:\n- {epochs: 1}\n- {model: base}",
            4,
            ["scientific[1].epochs", "missing", "other grids"],
        ),
        (
            "name: a\nscientific:\n- {epochs: 1}\n- {epochs: 2, input: rgb}\nfixed: {input: rgb}",
            5,
            ["fixed.input", "scientific[1]", "one of the two"],
        ),
        ("name: a\nfixed: {epochs: 1}\nscientific: []", 3, ["scientific", "list of mappings"]),
        ("name: a\nfixed: {epochs: 1}\nscientific: [1]", 3, ["scientific", "list of mappings"]),
        ("name: a\nnuisance: {epochs: 1}", 2, ["nuisance.epochs", "belongs into"]),
        ("name: a\nfixed: {batch_size: 8}", None, ["epochs", "missing"]),
        ("fixed: {epochs: 1}", None, ["name", "missing"]),
        ("name: No spaces!\nfixed: {epochs: 1}", 1, ["name", "'No spaces!'"]),
        ("name: ../up\nfixed: {epochs: 1}", 1, ["name", "'../up'"]),
        ("name: a\nfixed: {epochs: 1, optimizer.lr: .nan}", 2, ["optimizer.lr", "finite"]),
        ("name: a\nfixed: {epochs: 1, optimizer.lr: -0.1}", 2, ["optimizer.lr", "-0.1"]),
        ("name: a\nfixed: {epochs: 1, optimizer: {momentum: 1}}", 2, ["momentum", "less than 1"]),
        ("name: a\nfixed: {epochs: 1}\nresources: {cpus: 0}", 3, ["resources.cpus", "greater"]),
        ("name: a\nfixed: {epochs: 1}\nresources: {cpu: 1}", 3, ["resources.cpu", "mean cpus"]),
        ("name: a\nfixed: {epochs: 1}\nresources: {width: 0}", 3, ["resources.width", "greater"]),
        ("name: a\nfixed: {epochs: 1}\nresources: {width: 2.0}", 3, ["width", "2.0", "integer"]),
        ("name: a\nfixed: {epochs: 1}\nresources: {width: true}", 3, ["width", "True", "integer"]),
        ("name: a\nfixed: {epochs: 1}\nresources: {width: all}", 3, ["width", "'all'", "integer"]),
    ],
)
def test_a_mistake_is_named_with_its_line_field_and_remedy(
    parse_text: Parse, text: str, line: int | None, parts: list[str]
) -> None:
    message = refused(parse_text, text)
    where = r"spec\.yaml" if line is None else rf"spec\.yaml:{line}:"
    assert re.search(where, message), message
    for part in parts:
        assert part in message


def searched(space: str, rest: str = "", fixed: str = "epochs: 2") -> str:
    return (
        f"name: a\nfixed: {{{fixed}}}\n"
        f"search:\n  trials: 3\n{rest}  space:\n    {space.replace(chr(10), chr(10) + '    ')}\n"
    )


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


def test_all_mistakes_of_a_file_are_named_at_once(parse_text: Parse) -> None:
    with pytest.raises(InputError) as caught:
        parse_text(
            "name: a\n"
            "data: {train: nowhere, validation: 10}\n"
            "scientific:\n"
            "  epochs: [1, -1, 1]\n"
            "  attenton: [none]\n"
            "nuisance: {seed: 0}\n"
            "fixed:\n"
            "  batch_size: many\n"
            "  optimizer: {lr: -1}\n"
        )
    fields = {mistake.field for mistake in caught.value.mistakes}
    assert fields == {
        "data.train",
        "scientific.epochs[1]",
        "scientific.epochs[2]",
        "scientific.attenton",
        "nuisance.seed",
        "fixed.batch_size",
        "fixed.optimizer.lr",
    }
    assert all(
        mistake.where.endswith(tuple(f":{n}" for n in range(2, 10)))
        for mistake in caught.value.mistakes
    )


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "must be a mapping"),
        (b"# nothing but a comment\n", "must be a mapping"),
        (b"- 1\n- 2\n", "must be a mapping"),
        (b"just text", "must be a mapping"),
        (b"name: [unclosed", "not readable YAML"),
        (b"name: a\n\tfixed: 1\n", "not readable YAML"),
        (b"name: !!python/object/apply:os.system [true]", "not readable YAML"),
        (bytes(range(256)) * 4, "not readable YAML"),
        (b"PK\x03\x04\x00\x00", "not readable YAML"),
        (b"name: a\nfixed: {epochs: 2026-13-45}", ""),
        (b"name: a\nfixed: {epochs: !!int many}", ""),
        (b"name: a\nfixed: {epochs: !!bool perhaps}", ""),
        (b"name: a\n? [a, b]\n: c\n", ""),
        (b"name: a\nfixed: &loop {epochs: 1, optimizer: *loop}\n", ""),
        (b"name: a\nfixed: {epochs: " + b"[" * 3000 + b"]" * 3000 + b"}", ""),
    ],
    ids=[
        "empty",
        "comment",
        "list",
        "text",
        "unclosed",
        "tab",
        "python-tag",
        "binary",
        "zip",
        "impossible-date",
        "int-tag",
        "bool-tag",
        "list-as-key",
        "loop",
        "deep",
    ],
)
def test_a_file_that_is_no_specification_is_refused(
    tmp_path: Path, content: bytes, part: str
) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        parse(specfile.read(path))
    assert str(path) in str(caught.value)
    assert part in str(caught.value)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("key", ["x]", "x[", "x[a]", "]", "[[0]", "x\n"])
def test_a_bracket_in_an_unknown_key_is_refused(parse_text: Parse, key: str) -> None:
    message = refused(parse_text, f"name: a\nfixed: {{epochs: 1}}\ndata: {{{key!r}: 1}}")
    assert "data." in message
    unlisted = specfile.SpecFile("spec.yaml", {"name": "a", "data": {key: 1}}, {"data": 7})
    with pytest.raises(InputError) as caught:
        parse(unlisted)
    assert "spec.yaml:7" in str(caught.value), "the line of what holds it"


def test_a_file_of_nested_aliases_does_not_explode(tmp_path: Path) -> None:
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 8)}]" for n in range(1, 7))
    path = tmp_path / "spec.yaml"
    path.write_text(f"name: a\nfixed: {{epochs: 1}}\nl0: &l0 [x]\n{levels}\n")
    try:
        lines = specfile.read(path).lines
    except InputError:
        return
    assert len(lines) < 10_000, "8^6 lines of a file of ten"


@pytest.mark.parametrize("seed", ["1000000000000000000000000000000", "[100000000000000000000000]"])
def test_a_seed_that_no_table_can_hold_is_refused(parse_text: Parse, seed: str) -> None:
    assert "nuisance.seed" in refused(parse_text, f"{MINIMAL}nuisance: {{seed: {seed}}}")


@pytest.mark.parametrize("name", ["demmo", "no/such.yaml", "x" * 400])
def test_a_specification_that_is_nowhere_is_refused(name: str) -> None:
    with pytest.raises(InputError) as caught:
        specfile.find(name)
    message = str(caught.value)
    assert "no such file" in message
    assert "demo" in message


# Overrides.


OVERRIDDEN = """\
name: a
data: {train: demo, validation: 100}
scientific:
  epochs: [1, 2]
  optimizer: {lr: [0.1, 0.2]}
nuisance: {seed: 2, optimizer.momentum: [0.5, 0.9]}
fixed: {batch_size: 8}
"""


def test_an_override_replaces_a_parameter_where_the_file_has_it(parse_text: Parse) -> None:
    spec = parse_text(
        OVERRIDDEN,
        "epochs=[3]",
        "optimizer.lr=1e-3",
        "optimizer.momentum=[0.1]",
        "seed=[4, 5]",
        "batch_size=16",
    )
    assert spec.scientific == {"epochs": [3], "optimizer.lr": [1e-3]}
    assert spec.nuisance == {"optimizer.momentum": [0.1]}
    assert spec.seeds == [4, 5]
    assert spec.fixed == {"batch_size": 16}


def test_an_override_of_a_parameter_that_the_file_lacks_is_fixed(parse_text: Parse) -> None:
    spec = parse_text(OVERRIDDEN, "optimizer.weight_decay=0.01", "model=attn")
    assert spec.fixed == {"batch_size": 8, "optimizer.weight_decay": 0.01, "model": "attn"}
    assert parse_text(MINIMAL, "seed=3").seeds == [0, 1, 2]


def test_an_override_can_name_its_section(parse_text: Parse) -> None:
    assert parse_text(OVERRIDDEN, "scientific.model=[base]").scientific["model"] == ["base"]
    moved = parse_text(MINIMAL, "nuisance.batch_size=[8, 16]")
    assert moved.nuisance == {"batch_size": [8, 16]}


def test_an_override_changes_every_grid_that_has_the_parameter(parse_text: Parse) -> None:
    spec = parse_text(GRIDS, "epochs=[3]", "optimizer.lr=[0.1, 0.2]", "label_smoothing=0.1")
    assert [grid["epochs"] for grid in spec.grids] == [[3], [3], [3]]
    assert [grid.get("optimizer.lr") for grid in spec.grids] == [None, None, [0.1, 0.2]]
    assert spec.fixed["label_smoothing"] == 0.1
    named = parse_text(GRIDS, "scientific.shuffle=[reshuffle]")
    assert all(grid["shuffle"] == ["reshuffle"] for grid in named.grids)


def test_an_override_reaches_data_name_and_resources(parse_text: Parse) -> None:
    spec = parse_text(
        OVERRIDDEN,
        "data.validation=7",
        "data.train_images=50",
        "data.evaluate=[demo]",
        "name=other",
        "resources.cpus=2",
    )
    assert (spec.data.validation, spec.data.train_images) == (7, 50)
    assert spec.data.evaluate == ["demo"]
    assert (spec.name, spec.resources.cpus) == ("other", 2)


def test_an_override_reaches_a_dotted_parameter_of_the_search_space(parse_text: Parse) -> None:
    text = searched("optimizer.lr: {log_uniform: [1e-4, 1e-1]}")
    search = parse_text(text, "search.space.optimizer.lr={uniform: [0.1, 0.2]}").search
    assert search is not None
    assert set(search.space) == {"optimizer.lr"}
    assert search.space["optimizer.lr"].uniform == [0.1, 0.2]
    added = parse_text(text, "search.space.optimizer.momentum={choice: [0.5]}", "search.trials=9")
    assert added.search is not None
    assert set(added.search.space) == {"optimizer.lr", "optimizer.momentum"}
    assert added.search.trials == 9


def test_of_two_overrides_of_a_key_the_last_counts(parse_text: Parse) -> None:
    assert parse_text(OVERRIDDEN, "epochs=[3]", "epochs=[4]").scientific["epochs"] == [4]


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("epochs", ["'epochs'", "key=value"]),
        ("=3", ["key=value"]),
        ("epoch=3", ["epoch", "mean epochs"]),
        ("optimizer.lrr=3", ["optimizer.lrr", "mean optimizer.lr"]),
        ("scientific.batchsize=3", ["scientific.batchsize", "mean batch_size"]),
        ("sarch.trials=3", ["sarch.trials", "search"]),
        ("epochs=[1", ["epochs", "'[1'", "YAML"]),
        ("epochs=2026-13-45", ["epochs"]),
        ("epochs=0", ["scientific.epochs", "0"]),
        ("epochs=", ["scientific.epochs"]),
        ("data.nothing=1", ["data.nothing"]),
        ("search.trials=3", ["search.space"]),
    ],
)
def test_a_wrong_override_is_refused(parse_text: Parse, override: str, parts: list[str]) -> None:
    message = refused(parse_text, OVERRIDDEN, override)
    for part in parts:
        assert part in message


def test_overrides_leave_the_file_as_read_alone(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(OVERRIDDEN)
    file = specfile.read(path)
    overrides.apply(file, ["epochs=[9]", "optimizer.lr=[1.0]", "data.validation=1"])
    assert file.content == yaml.safe_load(OVERRIDDEN)


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


# Whatever the content, a mistake is all that comes of it.

_WORDS = st.sampled_from([*Shape.model_fields, *PARAMETERS, "seed", "optimizer", "when", "choice"])
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.floats()
    | st.sampled_from(["base", "srm", "none", "demo", "cifar100", "asha", "validation.auroc"])
    | st.text(max_size=5)
    | st.dates()
)
_CONTENT = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(_WORDS | st.text(max_size=3) | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)
_SECTIONS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("a") | _CONTENT,
        "question": _CONTENT,
        "data": st.dictionaries(
            st.sampled_from(["train", "validation", "evaluate", "train_images"]), _CONTENT
        ),
        "scientific": st.dictionaries(_WORDS, _CONTENT, max_size=3)
        | st.lists(st.dictionaries(_WORDS, _CONTENT, max_size=3), max_size=3)
        | _CONTENT,
        "nuisance": st.dictionaries(_WORDS, _CONTENT, max_size=2) | _CONTENT,
        "fixed": st.dictionaries(_WORDS, _CONTENT, max_size=3) | st.just({"epochs": 1}),
        "resources": _CONTENT,
        "compare": _CONTENT
        | st.fixed_dictionaries(
            {},
            optional={
                "metrics": st.lists(st.sampled_from(["loss", "auroc"])) | _CONTENT,
                "baseline": st.dictionaries(_WORDS, _CONTENT, max_size=2) | _CONTENT,
            },
        ),
        "search": st.fixed_dictionaries(
            {
                "trials": st.just(2) | _CONTENT,
                "space": st.dictionaries(
                    _WORDS,
                    st.dictionaries(
                        st.sampled_from(
                            ["uniform", "log_uniform", "int_uniform", "choice", "when"]
                        ),
                        _CONTENT,
                        max_size=2,
                    ),
                    max_size=3,
                ),
            }
        ),
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(content=_SECTIONS | _CONTENT)
def test_any_content_parses_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, content: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "arbitrary.yaml"
    path.write_text(yaml.safe_dump(content))
    mistakes: tuple[Mistake, ...] = ()
    try:
        assert parse(specfile.read(path)).variants("f")
    except InputError as error:
        mistakes = error.mistakes or (Mistake(where="", problem=""),)
    assert all(mistake.where.startswith(str(path)) for mistake in mistakes)
    assert all(mistake.problem for mistake in mistakes)


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60))
def test_any_override_is_applied_or_refused(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "overridden.yaml"
    if not path.exists():
        path.write_text(OVERRIDDEN)
    for override in (text, f"epochs={text}", f"data.train={text}", f"optimizer.lr={text}"):
        with contextlib.suppress(InputError):
            assert parse(overrides.apply(specfile.read(path), [override])).variants("f")

"""What `--set` changes in a specification."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sweeps import overrides, specfile
from tests.sweeps.specs import GRIDS, MINIMAL, OVERRIDDEN, Parse, refused, searched


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

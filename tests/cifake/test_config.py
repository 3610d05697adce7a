"""Equal trajectories have equal identities, others have others, and bad values are refused."""

from __future__ import annotations

import string
import subprocess
import sys
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cifake.config import IDENTITY_EXCLUDES, Config, leaves, nest, run_id
from cifake.models import catalogue
from cifake.models.attention import MODULES

WITH_ATTENTION: dict[str, object] = {"attention": "srm", "placement": "after_pool1"}

OTHER_VALUES: dict[str, object] = {
    "attention": "none",
    "placement": "after_pool2",
    "attention_options.init": "uniform",
    "attention_options.std": "biased",
    "attention_options.eps": 1e-3,
    "batch_size": 33,
    "optimizer.lr": 0.002,
    "optimizer.momentum": 0.8,
    "optimizer.weight_decay": 0.1,
    "data.train": "demo",
    "data.fingerprint": "f" * 16,
    "data.validation": 4999,
    "data.validation_seed": 1,
    "data.train_images": 1000,
    "data.images_per_class": 100,
    "data.leave_out": "cat",
    "data.only": "cat",
}
"""A value of every setting that is not its default."""

ONLY_VALUE = {"model", "optimizer.name", "normalization"}
"""Settings that have one value so far."""


def _config(flat: dict[str, object]) -> Config:
    return Config.model_validate(nest(flat))


@pytest.mark.parametrize("path", [path for path, _ in leaves(Config)])
def test_every_setting_but_the_name_of_the_data_changes_the_identity(path: str) -> None:
    if path in ONLY_VALUE:
        (info,) = [info for found, info in leaves(Config) if found == path]
        assert path == "model" or len(get_args(info.annotation)) == 1
        return
    plain = _config(WITH_ATTENTION)
    changed = _config({**WITH_ATTENTION, path: OTHER_VALUES[path]})
    assert changed.flat()[path] == OTHER_VALUES[path] != plain.flat()[path]
    assert (changed.config_id == plain.config_id) == (path == "data.train")
    assert (path in IDENTITY_EXCLUDES) == (path == "data.train")


def test_identities_are_sixteen_hexadecimal_digits() -> None:
    config_id = Config().config_id
    for identity in (config_id, run_id(config_id, 0)):
        assert len(identity) == 16
        assert set(identity) <= set(string.hexdigits.lower())


def test_identity_is_the_same_in_every_process() -> None:
    script = "from cifake.config import Config; print(Config().config_id)"
    said = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout
    assert said.strip() == Config().config_id


def test_defaults_are_written_out() -> None:
    written = nest(Config().flat())
    del written["attention_options"]
    assert Config.model_validate(written).config_id == Config().config_id
    assert Config().flat()["optimizer.lr"] == 0.001
    assert set(Config().flat()) == {path for path, _ in leaves(Config)}


def test_options_of_an_attention_module_are_written_out() -> None:
    plain = _config(WITH_ATTENTION)
    written = _config(
        {
            **WITH_ATTENTION,
            "attention_options.init": "zero",
            "attention_options.std": "unbiased",
            "attention_options.eps": 1e-5,
        }
    )
    assert plain == written
    assert plain.flat()["attention_options.eps"] == 1e-5
    assert Config().flat()["attention_options.eps"] is None


def test_whole_number_is_the_same_learning_rate() -> None:
    assert _config({"optimizer.lr": 1}).config_id == _config({"optimizer.lr": 1.0}).config_id


def test_mini_is_base() -> None:
    assert Config(model="mini") == Config(model="base") == Config()
    assert Config(model="mini").flat()["model"] == "base"


def test_attn_is_base_with_recalibration_after_the_first_pooling() -> None:
    base = Config(model="base", attention="srm", placement="after_pool1")
    assert Config(model="attn") == base
    assert Config(model="attn").config_id == base.config_id


def test_preset_gives_way_to_what_is_said() -> None:
    both = Config(model="base", attention="srm", placement="both")
    assert Config(model="attn", placement="both") == both
    assert Config(model="attn", attention="none") == Config()


@pytest.mark.parametrize("placement", ["after_pool1", "after_pool2", "both", "none"])
def test_placement_of_no_attention_is_dropped(placement: str) -> None:
    config = Config(attention="none", placement=placement)
    assert config == Config()
    assert config.config_id == Config().config_id


def test_options_of_no_attention_are_dropped() -> None:
    config = Config.model_validate({"attention_options": {"init": "uniform"}})
    assert config.config_id == Config().config_id


def test_seed_of_no_draw_is_dropped() -> None:
    """Without a validation split and with every training image there is nothing to draw."""
    drawn = [
        _config({"data.validation": 0, "data.validation_seed": seed}).config_id for seed in (0, 1)
    ]
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("placement", ["after_pool2+after_pool1", "after_pool1+after_pool2"])
def test_order_of_sites_is_irrelevant(placement: str) -> None:
    config = Config(attention="srm", placement=placement)
    both = Config(attention="srm", placement="both")
    assert config == both
    assert config.config_id == both.config_id


def test_run_differs_by_seed_and_config() -> None:
    identities = {
        run_id(config.config_id, seed)
        for config in (Config(), Config(batch_size=64))
        for seed in range(50)
    }
    assert len(identities) == 100


BAD: list[tuple[dict[str, object], str, str]] = [
    ({"model": "resnet"}, "model", "base, mini, attn"),
    ({"model": 3}, "model", "string"),
    ({"model": ["base"]}, "model", "string"),
    ({"model": {"name": "base"}}, "model", "string"),
    ({"attention": "se"}, "attention", "'none' or 'srm'"),
    ({"attention": "srm"}, "placement", "after_pool1, after_pool2, both"),
    ({**WITH_ATTENTION, "placement": "after_pool3"}, "placement", "after_pool1"),
    ({**WITH_ATTENTION, "placement": "after_pool1+after_pool1"}, "placement", "after_pool1"),
    ({**WITH_ATTENTION, "placement": "none"}, "placement", "after_pool1"),
    ({**WITH_ATTENTION, "placement": ""}, "placement", "after_pool1"),
    ({**WITH_ATTENTION, "attention_options.init": "ones"}, "init", "'zero' or 'uniform'"),
    ({**WITH_ATTENTION, "attention_options.eps": 0.0}, "eps", "greater than 0"),
    ({**WITH_ATTENTION, "attention_options.reduction": 4}, "reduction", "not permitted"),
    ({**WITH_ATTENTION, "batch_size": 1}, "batch_size", "2"),
    ({"batch_size": 0}, "batch_size", "greater than or equal to 1"),
    ({"batch_size": 32.0}, "batch_size", "integer"),
    ({"batch_size": "32"}, "batch_size", "integer"),
    ({"batch_size": True}, "batch_size", "integer"),
    ({"optimizer.lr": 0}, "lr", "greater than 0"),
    ({"optimizer.lr": -0.1}, "lr", "greater than 0"),
    ({"optimizer.lr": 101}, "lr", "less than or equal to 100"),
    ({"optimizer.lr": float("nan")}, "lr", "finite"),
    ({"optimizer.lr": float("inf")}, "lr", "finite"),
    ({"optimizer.lr": "1e-3"}, "lr", "number"),
    ({"optimizer.momentum": 1.0}, "momentum", "less than 1"),
    ({"optimizer.weight_decay": -1}, "weight_decay", "greater than or equal to 0"),
    ({"optimizer.name": "adam"}, "name", "sgd"),
    ({"optimizer.learning_rate": 0.1}, "learning_rate", "not permitted"),
    ({"normalization": "imagenet"}, "normalization", "half"),
    ({"data.validation": -1}, "validation", "greater than or equal to 0"),
    ({"data.train_images": 1}, "train_images", "greater than or equal to 2"),
    ({"epochs": 3}, "epochs", "not permitted"),
]


@pytest.mark.parametrize(
    ("given_settings", "field", "right"), BAD, ids=lambda value: str(value)[:50]
)
def test_bad_value_is_refused_with_its_field_and_what_is_right(
    given_settings: dict[str, object], field: str, right: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        _config(given_settings)
    assert field in str(caught.value)
    assert right in str(caught.value)


def test_config_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().batch_size = 3  # type: ignore[misc]


_values = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5))
_names = st.text(string.ascii_lowercase, min_size=1, max_size=3)
_trees: Any = st.recursive(
    _values, lambda inner: st.dictionaries(_names, inner, min_size=1, max_size=3), max_leaves=10
)


@settings(deadline=None)
@given(st.dictionaries(_names, _trees, max_size=4))
def test_nesting_undoes_flattening(tree: dict[str, Any]) -> None:
    def flatten(inner: dict[str, Any], prefix: str) -> dict[str, object]:
        flat: dict[str, object] = {}
        for name, value in inner.items():
            if isinstance(value, dict):
                flat.update(flatten(value, f"{prefix}{name}."))
            else:
                flat[prefix + name] = value
        return flat

    assert nest(flatten(tree, "")) == tree


def test_config_is_read_without_torch() -> None:
    script = "import sys, cifake.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_every_attention_module_is_declared_described_and_built() -> None:
    named = set(get_args(Config.model_fields["attention"].annotation))
    assert named == set(catalogue.ATTENTION) == {"none", *MODULES}

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

PAPER: dict[str, object] = {"model": "paper"}
RESNET: dict[str, object] = {"model": "resnet"}
STATISTICS: dict[str, object] = {"model": "statistics"}
ADAM: dict[str, object] = {"optimizer.name": "adam"}
COSINE: dict[str, object] = {"schedule.name": "cosine", "schedule.horizon": 10}
STEG: dict[str, object] = {"input": "steg_srm"}
CBAM: dict[str, object] = {"attention": "cbam", "placement": "both"}

OTHER_VALUES: dict[str, tuple[dict[str, object], object]] = {
    "model": ({}, "paper"),
    "model_options.conv_layers": (PAPER, 3),
    "model_options.filters": (PAPER, 33),
    "model_options.dense_layers": (PAPER, 2),
    "model_options.neurons": (PAPER, 65),
    "model_options.depth": (RESNET, 8),
    "model_options.width": (RESNET, 8),
    "model_options.backbone": ({"model": "torchvision"}, "resnet34"),
    "model_options.trees": (STATISTICS, 7),
    "model_options.leaves": (STATISTICS, 7),
    "model_options.shrinkage": (STATISTICS, 0.5),
    "input": ({}, "greyscale"),
    "input_options.sigma": ({"input": "low_pass"}, 2.0),
    "input_options.filters": (STEG, 3),
    "attention": (WITH_ATTENTION, "none"),
    "placement": (WITH_ATTENTION, "after_pool2"),
    "attention_options.init": (WITH_ATTENTION, "uniform"),
    "attention_options.std": (WITH_ATTENTION, "biased"),
    "attention_options.eps": (WITH_ATTENTION, 1e-3),
    "attention_options.pool": (WITH_ATTENTION, "mean"),
    "attention_options.reduction": (CBAM, 2),
    "attention_options.kernel_size": (CBAM, 3),
    "batch_size": ({}, 33),
    "optimizer.name": ({}, "adamw"),
    "optimizer.lr": ({}, 0.002),
    "optimizer.weight_decay": ({}, 0.1),
    "optimizer.momentum": ({}, 0.8),
    "optimizer.nesterov": ({}, True),
    "optimizer.beta1": (ADAM, 0.8),
    "optimizer.beta2": (ADAM, 0.8),
    "optimizer.eps": (ADAM, 1e-6),
    "schedule.name": (COSINE, "one_cycle"),
    "schedule.horizon": (COSINE, 11),
    "schedule.warmup": (COSINE, 0.1),
    "label_smoothing": ({}, 0.1),
    "normalization": ({}, "imagenet"),
    "augmentation.flip": ({}, True),
    "augmentation.crop": ({}, 4),
    "shuffle": ({}, "frozen_batches"),
    "data_order": ({}, "shared"),
    "data_seed": ({}, 3),
    "init_seed": ({}, 3),
    "execution.precision": ({}, "bf16"),
    "execution.channels_last": ({}, False),
    "execution.compile": ({}, True),
    "log_every": ({}, 10),
    "data.train": ({}, "demo"),
    "data.fingerprint": ({}, "f" * 16),
    "data.validation": ({}, 4999),
    "data.validation_seed": ({}, 1),
    "data.train_images": ({}, 1000),
    "data.images_per_class": ({}, 100),
    "data.leave_out": ({}, "cat"),
    "data.only": ({}, "cat"),
}
"""Settings under which one has a meaning, and a value of it that is not its default."""

CHANGE_NO_RESULT = {"data.train", "log_every"}
ONLY_VALUE = {"loss"}
"""Settings that have one value so far."""


def _config(flat: dict[str, object]) -> Config:
    return Config.model_validate(nest(flat))


@pytest.mark.parametrize("path", [path for path, _ in leaves(Config)])
def test_every_setting_that_changes_a_result_changes_the_identity(path: str) -> None:
    if path in ONLY_VALUE:
        (info,) = [info for found, info in leaves(Config) if found == path]
        assert len(get_args(info.annotation)) == 1
        return
    context, value = OTHER_VALUES[path]
    plain = _config(context)
    changed = _config({**context, path: value})
    assert changed.flat()[path] == value != plain.flat()[path]
    assert (changed.config_id == plain.config_id) == (path in CHANGE_NO_RESULT)
    assert (path in IDENTITY_EXCLUDES) == (path in CHANGE_NO_RESULT)


MEANINGLESS: list[tuple[dict[str, object], str, object]] = [
    *(({}, f"model_options.{name}", 2) for name in ("conv_layers", "filters", "width")),
    (PAPER, "model_options.depth", 20),
    ({**PAPER, "model_options.dense_layers": 0}, "model_options.neurons", 7),
    ({}, "input_options.sigma", 2.0),
    (STEG, "input_options.sigma", 2.0),
    (STEG, "normalization", "imagenet"),
    ({"attention": "se", "placement": "both"}, "attention_options.init", "uniform"),
    (WITH_ATTENTION, "attention_options.reduction", 2),
    (ADAM, "optimizer.momentum", 0.5),
    ({}, "optimizer.beta1", 0.5),
    ({}, "schedule.horizon", 7),
    ({}, "schedule.warmup", 0.5),
    ({"data_seed": 0}, "data_order", "shared"),
    *(
        (STATISTICS, path, OTHER_VALUES[path][1])
        for path in OTHER_VALUES
        if path.split(".")[0]
        not in {"model", "model_options", "data", "attention_options", "init_seed", "log_every"}
        and OTHER_VALUES[path][0] == {}
    ),
]


@pytest.mark.parametrize(
    ("context", "path", "value"), MEANINGLESS, ids=lambda value: str(value)[:40]
)
def test_setting_without_a_meaning_is_dropped(
    context: dict[str, object], path: str, value: object
) -> None:
    assert _config({**context, path: value}) == _config(context)


def test_shared_order_is_an_order_of_seed_zero() -> None:
    assert Config(data_order="shared") == Config(data_seed=0)
    assert Config(data_seed=5).data_order == "shared"


def test_a_configuration_is_unchanged_by_being_written_and_read() -> None:
    for context, _ in OTHER_VALUES.values():
        config = _config(context)
        assert Config.model_validate(config.model_dump()) == config
        assert _config(config.flat()) == config


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
    ({"model": "vit"}, "model", "base, paper, convnet"),
    ({"model": 3}, "model", "string"),
    ({"model": ["base"]}, "model", "string"),
    ({"model": {"name": "base"}}, "model", "string"),
    ({"attention": "sem"}, "attention", "none, srm, se"),
    ({"attention": "srm"}, "placement", "after_pool1, after_conv2, after_pool2, both"),
    ({**WITH_ATTENTION, "placement": "after_pool3"}, "placement", "after_pool1"),
    ({**WITH_ATTENTION, "placement": "after_pool1+after_pool1"}, "placement", "after_pool1"),
    ({**WITH_ATTENTION, "placement": "none"}, "placement", "after_pool1"),
    ({**WITH_ATTENTION, "placement": ""}, "placement", "after_pool1"),
    ({**WITH_ATTENTION, "attention_options.init": "ones"}, "init", "'zero' or 'uniform'"),
    ({**WITH_ATTENTION, "attention_options.eps": 0.0}, "eps", "greater than 0"),
    ({**WITH_ATTENTION, "attention_options.reduce": 4}, "reduce", "not permitted"),
    ({**WITH_ATTENTION, "attention_options.pool": "max"}, "pool", "'both', 'mean' or 'std'"),
    ({**CBAM, "attention_options.kernel_size": 4}, "kernel_size", "odd"),
    ({**CBAM, "attention_options.reduction": 0}, "reduction", "greater than or equal to 1"),
    ({**PAPER, "model_options.conv_layers": 0}, "conv_layers", "greater than or equal to 1"),
    ({**PAPER, "model_options.conv_layers": 4}, "conv_layers", "at most 3 for paper"),
    ({**PAPER, "model_options.dense_layers": 4}, "dense_layers", "less than or equal to 3"),
    ({**RESNET, "model_options.depth": 18}, "depth", "6n + 2"),
    ({"model": "torchvision", "model_options.backbone": "vgg"}, "backbone", "resnet18"),
    ({"attention": "srm", "model": "linear", "placement": "after_pool1"}, "placement", "none"),
    ({"input": "red"}, "input", "'rgb', 'greyscale'"),
    ({**STEG, "input_options.filters": 5}, "filters", "3 or 30"),
    ({"schedule.name": "cosine"}, "schedule.horizon", "must be given for cosine"),
    ({**COSINE, "schedule.warmup": 1.0}, "warmup", "less than 1"),
    ({"optimizer.momentum": 0.0, "optimizer.nesterov": True}, "nesterov", "without momentum"),
    ({"label_smoothing": 1.0}, "label_smoothing", "less than 1"),
    ({"augmentation.crop": 17}, "crop", "less than or equal to 16"),
    ({"shuffle": "never"}, "shuffle", "'reshuffle' or 'frozen_batches'"),
    ({"execution.precision": "fp8"}, "precision", "'bf16' or 'fp16'"),
    ({"model": "convnet", "batch_size": 1}, "batch_size", "convnet normalises"),
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
    ({"optimizer.name": "lion"}, "name", "'sgd', 'adam', 'adamw' or 'muon'"),
    ({"optimizer.learning_rate": 0.1}, "learning_rate", "not permitted"),
    ({"normalization": "zca"}, "normalization", "'half', 'imagenet' or 'dataset'"),
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


def test_every_mistake_of_a_combination_is_named() -> None:
    with pytest.raises(ValidationError) as caught:
        _config({"attention": "srm", "batch_size": 1, "schedule.name": "cosine"})
    assert all(field in str(caught.value) for field in ("placement:", "batch_size:", "horizon:"))


def test_everything_declared_is_described_and_can_be_built() -> None:
    assert set(catalogue.ATTENTION) == {"none", *MODULES}
    assert set(catalogue.INPUTS) == set(get_args(Config.model_fields["input"].annotation))
    described = (*catalogue.ARCHITECTURES.values(), *catalogue.PRESETS.values())
    modules = (*catalogue.ATTENTION.values(), *catalogue.INPUTS.values())
    assert all(entry.description for entry in (*described, *modules))

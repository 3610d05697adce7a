"""A run is loaded by its name, its folder or its file; a network is told by its own weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cifake.config import Config
from cifake.data.pack import Pack
from cifake.errors import InputError
from cifake.evaluation import predict
from cifake.loading import load
from cifake.models.build import build
from cifake.store import open_root

from .conftest import Runs

# What can name a run


@pytest.mark.parametrize(
    "name",
    [
        lambda runs: runs.srm.run.run_id,
        lambda runs: runs.srm.run.run_id[:6],
        lambda runs: str(runs.srm.path),
        lambda runs: str(runs.srm.path / "weights-0002.safetensors"),
    ],
    ids=["id", "prefix", "folder", "weights"],
)
def test_run_is_found_by_any_name_and_says_what_it_said_in_training(
    name: Callable[[Runs], str], runs: Runs, few: Pack
) -> None:
    loaded = load(name(runs), runs.store)
    said = predict(loaded.model, few.pixels, few.rows("test"))
    assert np.array_equal(said, runs.srm.probabilities[2])
    assert (loaded.name, loaded.epoch) == (runs.srm.run.run_id, 2)
    assert loaded.config == runs.srm.run.config()
    assert not loaded.model.training


def test_epoch_chooses_the_weights(runs: Runs, few: Pack) -> None:
    loaded = load(runs.srm.run.run_id, runs.store, epoch=1)
    said = predict(loaded.model, few.pixels, few.rows("test"))
    assert np.array_equal(said, runs.srm.probabilities[1])


def test_epoch_that_was_never_committed_is_not_the_default(runs: Runs, tmp_path: Path) -> None:
    folder = tmp_path / runs.srm.run.run_id
    shutil.copytree(runs.srm.path, folder)
    shutil.copy(folder / "weights-0001.safetensors", folder / "weights-0003.safetensors")
    assert load(str(folder), str(tmp_path)).epoch == 2


def test_prefix_of_several_runs_names_them(tmp_path: Path) -> None:
    for name in ("abcd000000000000", "abcd111111111111"):
        open_root(str(tmp_path), create=True).at("runs").at(name).write("x", b"")
    with pytest.raises(InputError, match="abcd000000000000, abcd111111111111"):
        load("abcd", str(tmp_path))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("0123", "no run of"),
        ("abc", "is no run and no file"),
        ("model.onnx", "is no run and no file"),
        ("missing.pt", "no such file"),
    ],
)
def test_what_is_nowhere_is_refused(target: str, said: str, runs: Runs) -> None:
    with pytest.raises(InputError, match=said):
        load(target, runs.store)


def test_store_without_runs_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--store"):
        load("0123", str(tmp_path))


def test_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run"):
        load(str(tmp_path), str(tmp_path))


def test_epoch_without_weights_lists_those_there_are(runs: Runs) -> None:
    with pytest.raises(InputError, match="has weights of epoch 1, 2"):
        load(runs.srm.run.run_id, runs.store, epoch=3)


def test_settings_of_a_run_are_refused(runs: Runs) -> None:
    with pytest.raises(InputError, match="has its configuration"):
        load(runs.srm.run.run_id, runs.store, settings=["model=resnet"])


# What is recognised

NETWORKS: Mapping[str, Mapping[str, object]] = {
    "base": {},
    "attn": {"model": "attn"},
    "se at a site": {"attention": "se", "placement": "after_conv2"},
    "eca of adaptive width": {"attention": "eca", "placement": "both"},
    "eca of one width": {
        "attention": "eca",
        "placement": "both",
        "attention_options": {"kernel_size": 5},
    },
    "static gates": {"attention": "static_gate", "placement": "both"},
    "batch normalisation": {"attention": "batchnorm", "placement": "after_pool1"},
    "learned residuals": {"input": "steg_srm_learned", "input_options": {"filters": 3}},
    "measured pixels": {"normalization": "dataset"},
    "paper": {"model": "paper", "model_options": {"filters": 16, "neurons": 128}},
    "paper without dense layers": {
        "model": "paper",
        "model_options": {"conv_layers": 3, "dense_layers": 0},
    },
    "convnet": {"model": "convnet", "model_options": {"filters": 8}},
    "resnet with cbam": {
        "model": "resnet",
        "model_options": {"depth": 14, "width": 8},
        "attention": "cbam",
        "placement": "all",
        "attention_options": {"reduction": 2, "kernel_size": 3},
    },
    "linear on residuals": {"model": "linear", "input": "steg_srm"},
    "torchvision": {"model": "torchvision", "model_options": {"backbone": "mobilenet_v2"}},
}


@pytest.mark.parametrize("settings", NETWORKS.values(), ids=NETWORKS)
def test_network_is_recognised_by_its_own_weights(
    settings: Mapping[str, object], few_images: torch.Tensor, tmp_path: Path
) -> None:
    config = Config.model_validate(settings)
    model = build(config, 3).eval()
    path = tmp_path / "net.safetensors"
    _save(model, path)
    loaded = load(str(path), tmp_path)
    assert loaded.config.flat().items() >= _structure(config).items()
    with torch.no_grad():
        assert torch.equal(loaded.model(few_images), model(few_images))


def _save(model: nn.Module, path: Path) -> None:
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)


def _structure(config: Config) -> dict[str, object]:
    names = ("model", "input", "attention", "placement", "normalization")
    options = ("model_options.", "attention_options.", "input_options.")
    kept = {k: v for k, v in config.flat().items() if k in names or k.startswith(options)}
    if config.attention_options.kernel_size is None:
        kept.pop("attention_options.kernel_size")  # written out or adaptive: the same module
    return kept


def test_setting_tells_what_no_weight_shows(few_images: torch.Tensor, tmp_path: Path) -> None:
    model = build(Config(input="greyscale", normalization="imagenet"), 3).eval()
    path = tmp_path / "net.safetensors"
    _save(model, path)
    loaded = load(str(path), tmp_path, settings=["input=greyscale", "normalization=imagenet"])
    with torch.no_grad():
        assert torch.equal(loaded.model(few_images), model(few_images))
        assert not torch.equal(load(str(path), tmp_path).model(few_images), model(few_images))


def test_every_wrong_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        load("w.pt", tmp_path, settings=["modle=base", "model", "optimizer.lr=[1"])
    text = str(refused.value)
    assert len(refused.value.mistakes) == 3
    assert "did you mean model" in text
    assert "KEY=VALUE" in text
    assert "must be YAML" in text


def test_settings_that_make_no_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    _save(build(Config(), 0), path)
    with pytest.raises(InputError, match=r"model_options\.depth: must be 6n \+ 2"):
        load(str(path), tmp_path, settings=["model=resnet", "model_options.depth=21"])

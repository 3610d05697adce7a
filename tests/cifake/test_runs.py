"""What the folder of a run gives back, and what of it counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cifake import tables
from cifake.config import TRAINER_VERSION, Config, nest, run_id
from cifake.errors import InputError
from cifake.models import catalogue
from cifake.record import Record
from cifake.runs import RunFolder, config_of


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "r1")


def commit(folder: RunFolder, **changes: Any) -> None:
    row = {
        "run_id": folder.run_id,
        "config_id": "c1",
        "seed": 0,
        "status": "running",
        "fallbacks": [],
        "epochs_done": 2,
        "evaluated": [],
        "stack": [0],
        "trainer_version": TRAINER_VERSION,
        **Config().flat(),
        **changes,
    }
    folder.write("runs", tables.TABLES["runs"].from_rows([row]))


# The configuration

VALUES: dict[str, list[Any]] = {
    "model": [*catalogue.model_names()],
    "model_options.conv_layers": [None, 1, 3],
    "model_options.filters": [None, 8],
    "model_options.dense_layers": [None, 0, 2],
    "model_options.neurons": [None, 16],
    "model_options.depth": [None, 8],
    "model_options.backbone": [None, "resnet18", "convnext_tiny"],
    "model_options.shrinkage": [None, 0.5],
    "input": [*catalogue.INPUTS],
    "input_options.sigma": [None, 2.0],
    "input_options.filters": [None, 3],
    "attention": [*catalogue.ATTENTION],
    "placement": ["none", "after_pool1", "both", "all", "in_block2", "after_stage1+after_stage2"],
    "attention_options.init": [None, "uniform"],
    "attention_options.reduction": [None, 2],
    "attention_options.kernel_size": [None, 3],
    "batch_size": [1, 32],
    "optimizer.name": ["sgd", "adam", "adamw", "muon"],
    "optimizer.lr": [1, 1e-4],
    "optimizer.momentum": [None, 0.0, 0.5],
    "optimizer.nesterov": [None, True],
    "optimizer.beta2": [None, 0.95],
    "schedule.name": ["constant", "cosine", "one_cycle"],
    "schedule.horizon": [None, 7],
    "schedule.warmup": [None, 0.1],
    "label_smoothing": [0.0, 0.1],
    "normalization": ["half", "imagenet", "dataset"],
    "augmentation.crop": [0, 4],
    "shuffle": ["reshuffle", "frozen_batches"],
    "data_order": ["per_seed", "shared"],
    "data_seed": [None, 3],
    "init_seed": [None, 2**63 - 1],
    "execution.precision": ["float32", "bf16"],
    "data.train_images": [None, 100],
    "data.validation": [0, 10],
    "data.validation_seed": [0, 4],
    "data.fingerprint": ["", "f" * 16],
}


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Some settings beside the defaults, as far as they go together."""
    paths = draw(st.lists(st.sampled_from(sorted(VALUES)), unique=True, max_size=12))
    given_ = {path: draw(st.sampled_from(VALUES[path])) for path in paths}
    while True:
        try:
            return Config.model_validate(nest(given_))
        except ValidationError:
            given_.popitem()


@settings(deadline=None, max_examples=300)
@given(configs())
def test_a_config_comes_back_from_the_row_of_its_run(config: Config) -> None:
    row = {
        "run_id": "r",
        "config_id": config.config_id,
        "seed": 0,
        "status": "running",
        "fallbacks": [],
        "epochs_done": 0,
        "evaluated": [],
        "stack": [0],
        "trainer_version": TRAINER_VERSION,
        **config.flat(),
    }
    content = tables.encode("runs", tables.TABLES["runs"].from_rows([row]))
    (read,) = tables.decode("runs", content).to_pylist()
    found = config_of(read)
    assert found == config
    assert found.config_id == read["config_id"]


@pytest.mark.parametrize("model", catalogue.model_names())
@pytest.mark.parametrize("attention", catalogue.ATTENTION)
def test_a_folder_gives_the_config_that_its_record_was_made_with(
    model: str, attention: str, tmp_path: Path
) -> None:
    placements = ("none", "after_pool1", "in_block1", "after_stage1")
    for placement in placements:
        try:
            config = Config(model=model, attention=attention, placement=placement)
        except ValidationError:
            continue
        folder = RunFolder(tmp_path / run_id(config.config_id, 5))
        Record(folder, config, 5).commit()
        assert folder.config() == config


# Which epochs count


def test_epochs_are_the_committed_ones_whose_weights_are_kept(folder: RunFolder) -> None:
    commit(folder, epochs_done=11)
    for epoch in (11, 1, 12, 2):
        folder.write_state(epoch, {"w": torch.ones(1)}, {})
    (folder.path / ".weights-0003.safetensors-x").write_bytes(b"half")
    assert folder.epochs() == [1, 2, 11]


def test_rows_beyond_the_committed_epoch_are_left_out(folder: RunFolder) -> None:
    rows = [{"run_id": "r1", "epoch": n} for n in (1, 2, 3)]
    folder.write("epochs", tables.TABLES["epochs"].from_rows(rows))
    assert folder.read("epochs", epochs=2)["epoch"].to_pylist() == [1, 2]
    assert len(folder.read("epochs")) == 3


@pytest.mark.parametrize("ask", [RunFolder.config, RunFolder.epochs])
def test_a_folder_without_a_committed_run_is_refused(folder: RunFolder, ask: Any) -> None:
    folder.write_state(1, {"w": torch.ones(1)}, {})
    assert folder.state() is None
    with pytest.raises(InputError, match="holds no run") as caught:
        ask(folder)
    assert str(folder.path) in str(caught.value)


# States


def test_weights_and_optimizer_state_come_back_bit_by_bit(folder: RunFolder) -> None:
    weights = {"w": torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)}
    optimizer = {"w/momentum_buffer": torch.randn(4, 3, 5, 5), "w/step": torch.tensor(3.0)}
    for epoch in (1, 2, 11):
        folder.write_state(epoch, weights, optimizer)
    assert torch.equal(folder.read_weights(2)["w"], weights["w"])
    found = folder.read_optimizer(2)
    assert found.keys() == optimizer.keys()
    assert all(torch.equal(found[name], optimizer[name]) for name in optimizer)
    folder.drop_old_optimizers(2)
    kept = sorted(path.name for path in folder.path.iterdir())
    weights_kept = [f"weights-{epoch:04}.safetensors" for epoch in (1, 2, 11)]
    # A later state may be a newer driver's; only what is superseded goes.
    assert kept == ["optimizer-0002.safetensors", "optimizer-0011.safetensors", *weights_kept]


def test_damaged_weights_name_their_file(folder: RunFolder) -> None:
    folder.write_state(1, {"w": torch.ones(3)}, {})
    path = folder.path / "weights-0001.safetensors"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(RuntimeError, match=r"weights-0001\.safetensors"):
        folder.read_weights(1)
    with pytest.raises(RuntimeError, match=r"weights-0002\.safetensors"):
        folder.read_weights(2)

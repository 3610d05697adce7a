"""What the folder of a run gives back, and what of it counts."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import multiprocessing
import time
from collections.abc import Callable
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
from cifake.places import LocalPlace
from cifake.record import Record
from cifake.runs import HEAD, DamagedError, Head, RunFolder, config_of, state_files, state_of
from cifake.training import State


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(LocalPlace(tmp_path / "r1"))


def located(folder: RunFolder) -> Path:
    assert isinstance(folder.place, LocalPlace)
    return folder.place.path


def row_of(folder: RunFolder, **changes: Any) -> dict[str, Any]:
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
    }
    return row | changes


def commit(folder: RunFolder, files: dict[str, bytes] | None = None, **changes: Any) -> None:
    folder.commit(row_of(folder, **changes), files or {})


def epochs_table(*epochs: int) -> dict[str, bytes]:
    rows = [{"run_id": "r1", "epoch": epoch} for epoch in epochs]
    return {"epochs.parquet": tables.encode("epochs", tables.TABLES["epochs"].from_rows(rows))}


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
    table = tables.TABLES["runs"].from_rows([row])
    (of_table,) = tables.decode("runs", tables.encode("runs", table)).to_pylist()
    of_head = Head.decode(Head(of_table).encode()).row
    assert of_head == of_table
    found = config_of(of_head)
    assert found == config
    assert found.config_id == of_head["config_id"]


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
        folder = RunFolder(LocalPlace(tmp_path / run_id(config.config_id, 5)))
        Record(folder, config, 5).commit()
        assert folder.config() == config


# What a head says


def test_a_row_comes_back_from_its_head_as_from_its_table(folder: RunFolder) -> None:
    now = datetime.datetime(2026, 11, 25, 17, 0, 0, 1, datetime.UTC)
    commit(folder, started_at=now, error="a | b\nc é", images_per_second=0.1, evaluated=["2:a:b"])
    head = folder.head()
    assert head is not None
    content = folder.place.read("runs.parquet")
    assert [head.row] == tables.decode("runs", content).to_pylist()
    assert head.row["started_at"] == now
    assert head.row["git_commit"] is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"schema": 1}', b'{"schema": 99, "row": {}}', b"\xff"]
)
def test_a_damaged_head_is_refused_with_what_to_do(folder: RunFolder, content: bytes) -> None:
    commit(folder)
    folder.place.write(HEAD, content)
    with pytest.raises(InputError, match="delete the folder") as caught:
        folder.state()
    assert f"{folder.place}/{HEAD}" in str(caught.value)


def test_a_head_whose_run_is_not_in_its_own_stack_is_refused(folder: RunFolder) -> None:
    commit(folder)
    content = folder.place.read(HEAD)
    folder.place.write(HEAD, content.replace(b'"stack":[0]', b'"stack":[7]'))
    with pytest.raises(InputError, match="not in its own stack"):
        folder.state()


def test_files_that_did_not_change_are_not_written_again(folder: RunFolder) -> None:
    commit(folder, epochs_table(1, 2))
    path = located(folder) / "epochs.parquet"
    before = path.stat().st_ino
    commit(folder, epochs_table(1, 2), status="complete")
    assert path.stat().st_ino == before
    commit(folder, epochs_table(1, 2, 3))
    assert path.stat().st_ino != before


# Which epochs count


def test_epochs_are_the_committed_ones_whose_weights_are_kept(folder: RunFolder) -> None:
    files: dict[str, bytes] = {}
    for epoch in (11, 1, 12, 2):
        files |= state_files(epoch, {"w": torch.ones(1)}, {})
    commit(folder, files, epochs_done=12)
    commit(folder, epochs_done=11)
    (located(folder) / ".weights-0003.safetensors-x").write_bytes(b"half")
    assert folder.epochs() == [1, 2, 11]


def test_rows_beyond_the_committed_epoch_are_left_out(folder: RunFolder) -> None:
    commit(folder, epochs_table(1, 2, 3))
    assert folder.read("epochs", epochs=2)["epoch"].to_pylist() == [1, 2]
    assert len(folder.read("epochs")) == 3


@pytest.mark.parametrize("ask", [RunFolder.config, RunFolder.epochs])
def test_a_folder_without_a_committed_run_is_refused(folder: RunFolder, ask: Any) -> None:
    for name, content in state_files(1, {"w": torch.ones(1)}, {}).items():
        folder.place.write(name, content)
    assert folder.state() is None
    assert len(folder.read("epochs")) == 0
    with pytest.raises(InputError, match="holds no run") as caught:
        ask(folder)
    assert str(folder.place) in str(caught.value)


# States


def test_weights_and_optimizer_state_come_back_bit_by_bit(folder: RunFolder) -> None:
    weights = {"w": torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)}
    optimizer = {"w/momentum_buffer": torch.randn(4, 3, 5, 5), "w/step": torch.tensor(3.0)}
    for epoch in (1, 2, 3):
        commit(folder, state_files(epoch, weights, optimizer), epochs_done=epoch)
    assert torch.equal(folder.read_weights(2)["w"], weights["w"])
    found = folder.read_optimizer(2)
    assert found.keys() == optimizer.keys()
    assert all(torch.equal(found[name], optimizer[name]) for name in optimizer)
    folder.drop_old_optimizers(2)
    kept = [name for name in folder.place.files() if name.endswith(".safetensors")]
    weights_kept = [f"weights-{epoch:04}.safetensors" for epoch in (1, 2, 3)]
    # A later state may be a newer driver's; only what is superseded goes.
    assert kept == ["optimizer-0002.safetensors", "optimizer-0003.safetensors", *weights_kept]


# Damage


def some_files() -> dict[str, bytes]:
    tensors = {"w": torch.arange(5.0)}
    return {
        **epochs_table(1, 2),
        **state_files(1, tensors, tensors),
        **state_files(2, tensors, tensors),
    }


FILES = ["epochs.parquet", "weights-0001.safetensors", "weights-0002.safetensors"]
LAST = "optimizer-0002.safetensors"

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda _: b"",
    "cut": lambda whole: whole[:-1],
    "longer": lambda whole: whole + b"\0",
    "one bit": lambda whole: whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:],
    "nonsense": lambda whole: b"x" * len(whole),
}


def read(folder: RunFolder, name: str) -> object:
    kind, epoch = state_of(name)
    if kind == "weights":
        return folder.read_weights(epoch)
    return folder.read_optimizer(epoch) if kind else folder.read("epochs")


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("name", [*FILES, LAST])
def test_damaged_files_are_told_by_name_and_not_read(
    folder: RunFolder, name: str, change: Callable[[bytes], bytes]
) -> None:
    commit(folder, some_files())
    assert list(folder.damage()) == []
    folder.place.write(name, change(folder.place.read(name)))
    with pytest.raises(DamagedError, match="is damaged") as caught:
        read(folder, name)
    assert f"{folder.place}/{name}" in str(caught.value)
    assert [error.file for error in folder.damage()] == [name]


@pytest.mark.parametrize("name", [*FILES, LAST])
def test_missing_files_are_told_by_name(folder: RunFolder, name: str) -> None:
    commit(folder, some_files())
    folder.place.remove(name)
    with pytest.raises(DamagedError, match="is missing"):
        read(folder, name)
    assert [error.file for error in folder.damage()] == [name]


def test_an_optimizer_state_that_is_superseded_may_be_gone(folder: RunFolder) -> None:
    commit(folder, some_files())
    folder.drop_old_optimizers(2)
    assert list(folder.damage()) == []


class StoppedError(Exception):
    """The process ends here."""


@pytest.mark.parametrize("instant", range(7))
def test_an_interrupted_commit_is_no_damage(tmp_path: Path, instant: int) -> None:
    """Readers find the rows of before, or those of after."""
    place = Stopping(tmp_path / "r1")
    folder = RunFolder(place)
    commit(folder, some_files(), epochs_done=2)
    longer = {**epochs_table(1, 2, 3), **state_files(3, {"w": torch.ones(2)}, {})}
    place.left = instant
    with contextlib.suppress(StoppedError):
        commit(folder, longer, epochs_done=3)
    place.left = None
    state = folder.state()
    assert state is not None
    assert state.epochs_done == (3 if instant == 6 else 2)
    assert list(folder.damage()) == []
    rows = folder.read("epochs", epochs=state.epochs_done)["epoch"].to_pylist()
    assert rows == list(range(1, state.epochs_done + 1))
    commit(folder, longer, epochs_done=3)
    assert list(folder.damage()) == []
    assert len(folder.read("epochs")) == 3


@pytest.mark.parametrize("first", range(7))
@pytest.mark.parametrize("second", range(4))
@pytest.mark.parametrize("epochs", [(1, 2), (1, 2, 3), (1, 2, 3, 4)])
def test_whatever_is_written_after_an_interrupted_commit_is_no_damage(
    tmp_path: Path, first: int, second: int, epochs: tuple[int, ...]
) -> None:
    """A row alone, as of a failure, and then the epoch again, which may be interrupted too."""
    place = Stopping(tmp_path / "r1")
    folder = RunFolder(place)
    commit(folder, some_files(), epochs_done=2)
    place.left = first
    with contextlib.suppress(StoppedError):
        commit(folder, epochs_table(1, 2, 3), epochs_done=2, status="complete")
    place.left = second
    with contextlib.suppress(StoppedError):
        commit(folder, epochs_done=2, status="failed")
    assert list(folder.damage()) == []
    place.left = second
    with contextlib.suppress(StoppedError):
        commit(folder, epochs_table(*epochs), epochs_done=2)
    assert list(folder.damage()) == []
    place.left = None
    commit(folder, epochs_done=2, status="pruned")
    assert list(folder.damage()) == []
    commit(folder, epochs_table(*epochs), epochs_done=2)
    assert list(folder.damage()) == []
    assert len(folder.read("epochs")) == len(epochs)
    head = folder.head()
    assert head is not None
    assert not head.pending


class Stopping(LocalPlace):
    """A folder whose writer ends after some files."""

    left: int | None = None

    def write(self, name: str, content: bytes) -> None:
        if self.left is not None:
            if self.left == 0:
                raise StoppedError
            self.left -= 1
        super().write(name, content)


def test_a_reader_never_sees_damage_while_a_writer_commits(folder: RunFolder) -> None:
    """For a second, against a process that commits as fast as it can."""
    writer = multiprocessing.get_context("spawn").Process(
        target=committing, args=(located(folder),)
    )
    writer.start()
    try:
        while folder.head() is None:
            assert writer.is_alive()
        seen = set()
        end = time.monotonic() + 1
        while time.monotonic() < end:
            seen.add(len(folder.read("epochs")))
            assert list(folder.damage()) == []
        assert len(seen) > 3
    finally:
        writer.kill()
        writer.join()


def committing(path: Path) -> None:
    """Commit for ever."""
    folder = RunFolder(LocalPlace(path))
    for epochs in itertools.count(1):
        commit(folder, epochs_table(*range(1, epochs % 50 + 2)), epochs_done=epochs)


# Going back


def test_a_record_goes_back_as_far_as_its_states_can_be_read(tmp_path: Path) -> None:
    config = Config()
    folder = RunFolder(LocalPlace(tmp_path / run_id(config.config_id, 0)))
    grown(folder, config, epochs=3)
    assert Record(folder, config, 0).epochs_done == 3
    folder.place.write("weights-0003.safetensors", b"nonsense")
    record = Record(folder, config, 0)
    assert record.epochs_done == 2
    assert record.rows("epochs")["epoch"].to_pylist() == [1, 2]
    assert (record.row["status"], record.row["evaluated"]) == ("running", ["1:a:test"])
    assert record.row["train_seconds"] == 2.0
    said = "weights-0003.safetensors is damaged: trained again from epoch 2"
    assert record.row["fallbacks"] == [said]
    folder.place.remove("optimizer-0002.safetensors")
    record = Record(folder, config, 0)
    assert record.epochs_done == 0
    assert len(record.rows("epochs")) == 0
    assert (record.row["evaluated"], record.row["train_seconds"]) == ([], 0.0)
    assert record.row["fallbacks"] == [said.replace("epoch 2", "epoch 0")]


def test_a_record_begins_anew_where_a_table_is_damaged(tmp_path: Path) -> None:
    config = Config()
    folder = RunFolder(LocalPlace(tmp_path / run_id(config.config_id, 0)))
    grown(folder, config, epochs=2)
    folder.place.write("epochs.parquet", b"nonsense")
    record = Record(folder, config, 0)
    assert (record.epochs_done, record.row["stack"]) == (0, [])
    record.commit()
    assert list(folder.damage()) == []
    assert folder.epochs() == []


def grown(folder: RunFolder, config: Config, epochs: int) -> None:
    """Commit a run epoch by epoch."""
    record = Record(folder, config, 0)
    for epoch in range(1, epochs + 1):
        rows = [{"run_id": record.run_id, "epoch": epoch, "seconds": 1.0}]
        record.add("epochs", tables.TABLES["epochs"].from_rows(rows))
        record.keep_state(State(epoch, {"w": torch.ones(epoch)}, {"w/step": torch.tensor(1.0)}))
        record.row["evaluated"] = sorted({*record.row["evaluated"], f"{2 * epoch - 1}:a:test"})
        record.row["train_seconds"] += 1.0
        record.commit(epochs_done=epoch, stack=[0], status="complete")

"""What a store keeps through kills, strangers and damage."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cifake import tables
from cifake.errors import InputError
from cifake.places import LocalPlace
from cifake.runs import HEAD, DamagedError
from cifake.store import MARKER, SCHEMA
from sweeps.store import STACKS, Store


def run_row(run_id: str = "r1", **changes: Any) -> dict[str, Any]:
    row = {
        "run_id": run_id,
        "config_id": "c1",
        "seed": 0,
        "status": "running",
        "fallbacks": [],
        "epochs_done": 2,
        "evaluated": ["2:demo:test"],
        "stack": [0],
        "trainer_version": 1,
    }
    return row | changes


def commit(store: Store, run_id: str = "r1", epochs: tuple[int, ...] = (), **changes: Any) -> None:
    rows = [{"run_id": run_id, "epoch": n, "loss": n / 7} for n in epochs]
    content = tables.encode("epochs", tables.TABLES["epochs"].from_rows(rows))
    store.run(run_id).commit(run_row(run_id, **changes), {"epochs.parquet": content})


def located(store: Store) -> Path:
    assert isinstance(store.root, LocalPlace)
    return store.root.path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"), create=True)


def test_a_table_comes_back_as_it_was_written(store: Store) -> None:
    commit(store, epochs=(1, 2), seed=3, stack=[3], error="a | b\nc")
    state = store.run_state("r1")
    assert state is not None
    assert (state.seed, state.status, state.epochs_done) == (3, "running", 2)
    assert state.evaluated == {"2:demo:test"}
    assert state.row["error"] == "a | b\nc"
    assert state.images_per_second is None
    rows = [{"run_id": "r1", "epoch": n, "loss": n / 7, "accuracy": None} for n in (1, 2)]
    assert store.read("r1", "epochs").equals(tables.TABLES["epochs"].from_rows(rows))


def test_a_run_that_never_committed_is_listed_but_has_no_state(store: Store) -> None:
    store.run("r1").place.write("epochs.parquet", b"half an epoch")
    assert store.run_ids() == ["r1"]
    assert len(store.read("r1", "epochs")) == 0
    assert store.run_state("r1") is None
    assert store.run_states() == {}
    assert store.run_states(["r1", "never-heard-of"]) == {}
    assert len(store.read("never-heard-of", "predictions")) == 0


def test_tables_of_several_runs_are_read_in_the_order_asked(store: Store) -> None:
    for run_id in ("r2", "r1", "r3"):
        commit(store, run_id, epochs=(1, 2))
    found = store.read_many(["r3", "r1"], "epochs")
    assert found["run_id"].to_pylist() == ["r3", "r3", "r1", "r1"]
    assert store.read_many([], "epochs").schema.equals(tables.TABLES["epochs"].schema)


def test_a_stray_file_among_the_runs_is_no_run(store: Store) -> None:
    commit(store)
    (located(store) / "runs" / ".DS_Store").write_bytes(b"\0")
    assert set(store.run_states()) == {"r1"}


def test_a_store_opens_again_and_a_missing_one_is_only_made_when_asked(tmp_path: Path) -> None:
    root = tmp_path / "a" / "b"
    Store.open(str(root), create=False)
    assert not root.exists()
    Store.open(str(root), create=True)
    before = (root / MARKER).read_bytes()
    Store.open(str(root), create=True)
    assert (root / MARKER).read_bytes() == before


# Refused, with what to do.


def refused(root: Path, *, create: bool = True) -> str:
    with pytest.raises(InputError) as caught:
        Store.open(str(root), create=create)
    message = str(caught.value)
    assert str(root) in message
    return message


@pytest.mark.parametrize("create", [True, False])
def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path, create: bool) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    message = refused(tmp_path, create=create)
    assert "not empty" in message
    assert "--store" in message
    assert os.listdir(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize("create", [True, False])
def test_a_file_is_refused(tmp_path: Path, create: bool) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    assert "--store a folder" in refused(path, create=create)
    assert path.read_text() == "x"


def test_a_place_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "--store" in refused(tmp_path / "file" / "below")


def test_a_store_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    (tmp_path / MARKER).write_text(f'{{"schema": {SCHEMA + 1}}}')
    message = refused(tmp_path)
    assert f"schema {SCHEMA + 1}" in message
    assert f"reads {SCHEMA}" in message


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b"{}", b"\xff\xfe", b'{"schema": "1"}']
)
def test_a_damaged_marker_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MARKER).write_bytes(content)
    refused(tmp_path)
    assert (tmp_path / MARKER).read_bytes() == content


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Permissions do not bind root: for the length of a test it is nobody."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A store with one run that its owner has closed to writers."""
    folder = Path(tempfile.mkdtemp())
    commit(Store.open(str(folder), create=True))
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.usefixtures("read_only", "unprivileged")
def test_a_read_only_store_can_be_read_but_not_run(read_only: Path) -> None:
    assert "cannot be written" in refused(read_only)
    assert set(Store.open(str(read_only), create=False).run_states()) == {"r1"}


def test_a_damaged_table_is_refused_with_what_to_do(store: Store) -> None:
    commit(store, epochs=(1, 2))
    commit(store, "r2", epochs=(1, 2))
    path = located(store) / "runs" / "r2" / "epochs.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="sweeps verify --repair") as caught:
        store.read_many(["r1", "r2"], "epochs")
    assert f"{path}: is damaged" in str(caught.value)


def test_a_head_cut_at_any_length_is_refused(store: Store) -> None:
    commit(store)
    path = located(store) / "runs" / "r1" / HEAD
    whole = path.read_bytes()
    for length in range(0, len(whole), 61):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="delete the folder"):
            store.run_state("r1")


def test_a_table_of_another_version_is_refused(store: Store) -> None:
    newer = tables.TABLES["epochs"].from_rows([{"run_id": "r1", "epoch": 1}])
    metadata = {**newer.schema.metadata, b"cifake.schema_version": b"99"}
    sink = io.BytesIO()
    pq.write_table(newer.replace_schema_metadata(metadata), sink)
    store.run("r1").commit(run_row(), {"epochs.parquet": sink.getvalue()})
    with pytest.raises(DamagedError, match="schema version 99"):
        store.read("r1", "epochs")


def test_the_stacks_of_a_sweep_come_back_as_they_were_written(store: Store) -> None:
    assert store.read_stacks("demo") == {}
    store.write_stacks("demo", {"c1": [(0, 1), (2,)], "c2": [(7,)]})
    assert store.read_stacks("demo") == {"c1": [[0, 1], [2]], "c2": [[7]]}
    assert store.read_stacks("another") == {}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b'{"c1": [[0, 1',
        b"[]",
        b'{"c1": 3}',
        b'{"c1": [0, 1]}',
        b'{"c1": [["zero"]]}',
        b'{"c1": [[0.5]]}',
        b'{"c1": [[]]}',
        b'{"c1": [[0, 0]]}',
        b'{"c1": [[0, 1], [1, 2]]}',
    ],
)
def test_damaged_stacks_are_refused_with_what_to_do(store: Store, content: bytes) -> None:
    store.write_sweep("demo", STACKS, content)
    with pytest.raises(InputError) as caught:
        store.read_stacks("demo")
    assert f"{store.sweep('demo')}/{STACKS}" in str(caught.value)
    assert "delete it" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_table_of_a_sweep_is_refused_with_what_to_do(store: Store) -> None:
    assert store.read_sweep("demo", "cells") is None
    store.write_sweep("demo", "cells.parquet", b"nonsense")
    with pytest.raises(InputError, match="`sweeps run` writes it anew"):
        store.read_sweep("demo", "cells")

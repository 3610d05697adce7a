"""Small files are merged into large ones, and who reads, trains or kills does not notice."""

from __future__ import annotations

import json
import multiprocessing
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cifake import archive, tables
from cifake.archive import FOLDER, INDEX, Archive, Index
from cifake.claims import OWNERS, Claim, Owner, claim, is_claim
from cifake.errors import InputError
from cifake.places import LocalPlace, open_place
from cifake.runs import HEAD, DamagedError, RunFolder, table_file
from cifake.store import run_folder
from sweeps import compact as module
from sweeps import upkeep
from sweeps.compact import Compacted, compact
from sweeps.store import Store
from sweeps.trial import Task
from tests.sweeps.trials import ran, run_of, trained

MakeTask = Callable[..., Task]
Command = Callable[..., subprocess.CompletedProcess[str]]
Rows = dict[str, list[dict[str, Any]]]
StoreRows = Callable[[Path], dict[str, Rows]]
Near = Callable[[Rows, Rows], None]
Read = dict[tuple[str, str], pa.Table]

FILES = [table_file(table) for table in tables.RUN_TABLES]
RUNS = ("00f0", "00a1", "00c2", "00b3")


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store may live."""
    if request.param == "folder":
        return str(tmp_path / "store")
    return str(request.getfixturevalue("bucket"))


@pytest.fixture
def local(tmp_path: Path) -> Store:
    """A store in a folder with some runs."""
    return filled(str(tmp_path / "store"))


def value_of(column: tables.Column, number: int) -> Any:
    """A value of a column that others of the same column differ from."""
    if column.type == tables.WORD:
        return f"word {number % 3}"
    if pa.types.is_list(column.type):
        return []
    if pa.types.is_floating(column.type):
        return float("nan") if number % 3 == 0 else -0.0 if number % 3 == 1 else number / 7
    return number


def content_of(table: tables.RunTable, run_id: str, epochs: int) -> bytes:
    """The file of a table as a run may have it: words that no row uses, in no order."""
    rng = random.Random(f"{table} {run_id} {epochs}")  # noqa: S311 - rows, not secrets
    rows = [
        {column.name: value_of(column, rng.randrange(100)) for column in declared(table)}
        | {"run_id": run_id, "epoch": epoch}
        for epoch in range(1, epochs + 1)
        for _ in range(rng.randrange(1, 4) if table != "classes" else 0)
    ]
    written = tables.TABLES[table].from_rows([*rows[:1], *rows])
    return tables.encode(table, written.slice(min(1, len(rows))))


def declared(table: tables.RunTable) -> list[tables.Column]:
    columns = tables.TABLES[table].columns
    return [column for column in columns if not column.nullable or column.unit]


def grow(store: Store, run_id: str, epochs: int = 2, status: str = "complete") -> None:
    """Commit a run with rows in every table."""
    row = {
        "run_id": run_id,
        "config_id": "c1",
        "seed": 0,
        "status": status,
        "fallbacks": [],
        "epochs_done": epochs,
        "evaluated": [],
        "stack": [0],
        "trainer_version": 1,
    }
    names = [table for table in tables.RUN_TABLES if table != "runs"]
    files = {table_file(table): content_of(table, run_id, epochs) for table in names}
    store.run(run_id).commit(row, files)


def filled(where: str) -> Store:
    store = Store.open(where, create=True)
    for number, run_id in enumerate(RUNS):
        grow(store, run_id, epochs=number + 1)
    return store


def merge(store: Store) -> Compacted:
    return compact(Store(store.root), lambda _: None)


def everything(
    store: Store,
    runs: Sequence[str] = RUNS,
    names: Sequence[tables.RunTable] = tables.RUN_TABLES,
) -> Read:
    """Tables of runs in each way that they can be read, and of several at once."""
    found: Read = {}
    for table in names:
        for run_id in runs:
            found[run_id, table] = store.read(run_id, table)
            found[f"alone {run_id}", table] = run_folder(store.root, run_id).read(table)
        found["all", table] = store.read_many(runs, table)
        found["some", table] = store.read_many([runs[-1], runs[0]], table)
    return found


def bits(column: pa.ChunkedArray) -> pa.Array:
    """A column whose numbers compare as bits: a NaN equals itself, and 0 is not -0."""
    whole = column.combine_chunks()
    wide = {pa.float64(): pa.int64(), pa.float32(): pa.int32()}
    return whole.view(wide[whole.type]) if whole.type in wide else whole


def assert_same(found: Read, expected: Read) -> None:
    assert found.keys() == expected.keys()
    for key, wanted in expected.items():
        assert found[key].schema.equals(wanted.schema, check_metadata=True), key
        for name in wanted.schema.names:
            assert bits(found[key][name]).equals(bits(wanted[name])), (key, name)


def own_files(store: Store, run_id: str) -> list[str]:
    return [name for name in store.run(run_id).place.files() if name in FILES]


def parts(store: Store) -> list[str]:
    return [name for name in store.root.at(FOLDER).files() if name != INDEX]


def verified(store: Store, *, repair: bool = False) -> list[upkeep.Damage]:
    return list(upkeep.verify(Store(store.root), repair=repair, advance=lambda _: None))


# Who reads


def test_the_rows_of_the_tests_tell_bits_and_orders_apart(local: Store) -> None:
    """Else what follows shows little."""
    read = everything(local)
    epochs = read["all", "epochs"]
    assert np.isnan(epochs["loss"].to_numpy()).any()
    assert (np.signbit(epochs["loss"].to_numpy()) & (epochs["loss"].to_numpy() == 0)).any()
    other = epochs.set_column(2, "loss", pa.array(np.abs(epochs["loss"].to_numpy())))
    with pytest.raises(AssertionError):
        assert_same({("a", "b"): other.cast(epochs.schema)}, {("a", "b"): epochs})
    assert len(read["all", "classes"]) == 0 < len(read["all", "predictions"])
    counts = Counter(read["all", "thresholds"]["run_id"].to_pylist())
    assert len(set(counts.values())) > 1


def test_a_reader_never_notices_compaction(root: str) -> None:
    store = filled(root)
    before = everything(store)
    found = merge(store)
    assert (found.runs, found.files_before, found.files_after) == (4, 4 * 7 + 1, 7 + 1)
    assert found.bytes_after < found.bytes_before
    for run_id in RUNS:
        assert own_files(store, run_id) == []
        assert store.run(run_id).place.files() == [HEAD]
    assert_same(everything(store), before)
    assert_same(everything(Store(open_place(root))), before)
    assert verified(store) == []
    again = merge(store)
    assert (again.runs, again.files_before, again.bytes_after) == (0, 8, found.bytes_after)


class Watched(LocalPlace):
    """A folder of which every change is announced before it is made."""

    def __init__(self, path: Path, watch: Callable[[], None]) -> None:
        super().__init__(path)
        self.watch = watch

    def at(self, name: str) -> Watched:
        return Watched(self.path / name, self.watch)

    def write(self, name: str, content: bytes) -> None:
        self.watch()
        super().write(name, content)

    def create(self, name: str, content: bytes) -> bool:
        self.watch()
        return super().create(name, content)

    def remove(self, name: str) -> None:
        self.watch()
        super().remove(name)


def path_of(store: Store) -> Path:
    assert isinstance(store.root, LocalPlace)
    return store.root.path


def test_a_reader_at_any_instant_of_a_compaction_never_notices(local: Store) -> None:
    """One that opened the store before the first change, and one that opens it then."""
    old = Store(local.root)
    some: tuple[tables.RunTable, ...] = ("runs", "classes", "predictions")
    before = everything(local, names=some)
    seen = 0

    def read() -> None:
        nonlocal seen
        seen += 1
        assert_same(everything(old, names=some), before)
        assert_same(everything(Store(local.root), names=some), before)

    merge(Store(Watched(path_of(local), read)))
    assert seen > 4 * 7 + 7
    grow(local, "00d4")
    first = parts(local)
    merge(Store(Watched(path_of(local), read)))
    assert not {name for name in first if not name.startswith("classes")} & set(parts(local))
    read()


def test_a_file_that_goes_between_the_head_and_the_file_is_found_merged(local: Store) -> None:
    class Late(LocalPlace):
        """A folder of a run that is compacted when its head was read."""

        def read(self, name: str) -> bytes:
            content = super().read(name)
            if name == HEAD:
                merge(local)
            return content

    before = everything(local)
    place = local.run("00a1").place
    assert isinstance(place, LocalPlace)
    folder = RunFolder(Late(place.path), Archive(local.root))
    assert_same(
        {("00a1", "epochs"): folder.read("epochs")}, {("00a1", "epochs"): before["00a1", "epochs"]}
    )
    assert own_files(local, "00a1") == []


def test_a_part_that_a_later_compaction_replaced_is_found_by_the_new_index(root: str) -> None:
    store = filled(root)
    before = everything(store)
    merge(store)
    reader = Store(open_place(root))
    reader.archive.index()
    first = parts(store)
    grow(store, "00d4")
    assert merge(store).runs == 1
    assert len(set(first) - set(parts(store))) >= 6
    assert_same({key: reader.read(key[0], key[1]) for key in alone(before)}, alone(before))
    assert_same(everything(reader), before)


def alone(read: Read) -> Read:
    return {key: table for key, table in read.items() if key[0] in RUNS}


def test_merged_tables_are_read_once_not_once_a_run(local: Store) -> None:
    merge(local)
    reads: Counter[str] = Counter()

    class Counting(LocalPlace):
        def at(self, name: str) -> Counting:
            return Counting(self.path / name)

        def read(self, name: str) -> bytes:
            reads[name] += 1
            return super().read(name)

    store = Store(Counting(path_of(local)))
    assert len(store.read_many(RUNS, "evaluations")) > 0
    (part,) = [name for name in parts(local) if name.startswith("evaluations")]
    assert reads == {HEAD: len(RUNS), INDEX: 1, part: 1}


def test_runs_are_read_in_the_order_asked_and_as_often_as_asked(local: Store) -> None:
    asked = ["00c2", "00a1", "00c2", "never-heard-of"]
    before = local.read_many(asked, "predictions")
    assert list(dict.fromkeys(before["run_id"].to_pylist())) == ["00c2", "00a1"]
    merge(local)
    grow(local, "00d4")
    assert_same(
        {("a", "b"): Store(local.root).read_many(asked, "predictions")}, {("a", "b"): before}
    )
    mixed = Store(local.root).read_many(["00d4", "00a1"], "predictions")
    assert list(dict.fromkeys(mixed["run_id"].to_pylist())) == ["00d4", "00a1"]


def test_columns_and_epochs_that_are_chosen_are_those_of_the_whole_table(root: str) -> None:
    store = filled(root)
    asked = [RUNS[2], RUNS[0], RUNS[3]]
    for merged in (False, True):
        if merged:
            compact(store, lambda _: None)
        for table in ("evaluations", "epochs", "thresholds"):
            whole = Store(store.root).read_many(asked, table)
            columns = [
                name for name in ("run_id", "epoch", "accuracy") if name in whole.schema.names
            ]
            for epochs in (None, {1}, {2, 3}, {99}, set()):
                expected = whole
                if epochs is not None:
                    kept = [epoch in epochs for epoch in whole["epoch"].to_pylist()]
                    expected = whole.filter(pa.array(kept, pa.bool_()))
                for names in (None, columns, columns[::2]):
                    found = Store(store.root).read_many(asked, table, columns=names, epochs=epochs)
                    wanted = tables.canonical(expected if names is None else expected.select(names))
                    assert_same({("", table): found}, {("", table): wanted})


# Many parts


def test_parts_are_bounded_and_full_ones_are_never_written_again(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(local)
    monkeypatch.setattr(module, "PART_BYTES", 1)
    monkeypatch.setattr(archive, "GROUP_BYTES", 1)
    merge(local)
    assert Counter(name.partition("-")[0] for name in parts(local))["predictions"] == len(RUNS)
    assert_same(everything(local), before)
    kept = set(parts(local))
    grow(local, "00d4")
    merge(local)
    assert {name for name in kept if not name.startswith("classes")} < set(parts(local))
    assert_same(everything(local), before)
    monkeypatch.undo()
    merge(local)
    assert len(parts(local)) == len(FILES)
    assert_same(everything(local), before)
    assert verified(local) == []


def test_one_run_of_a_large_part_is_read_by_its_own_group_of_rows(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "GROUP_BYTES", 1)
    merge(local)
    found = Archive(local.root)
    (part,) = [part for part in found.index().parts if part.table == "thresholds"]
    content = local.root.at(FOLDER).read(part.file)
    for span in found.index().of(part):
        first, rows = tables.decode_rows("thresholds", content, span.start, span.start + span.rows)
        assert (first, len(rows)) == (span.start, span.rows)
    with pytest.raises(ValueError, match="rows"):
        tables.decode_rows("thresholds", content, 0, part.rows + 1)


# Killed


class StoppedError(BaseException):
    """The process ends here."""


class Stopping(LocalPlace):
    """A folder whose writer ends before one of its changes, some of them begun."""

    def __init__(self, path: Path, left: list[int]) -> None:
        super().__init__(path)
        self.left = left

    def at(self, name: str) -> Stopping:
        return Stopping(self.path / name, self.left)

    def write(self, name: str, content: bytes) -> None:
        if self.left[0] == 0 and self.path.name == FOLDER:
            self.path.mkdir(exist_ok=True)
            (self.path / f".{name}-1234").write_bytes(content[: len(content) // 2])
        self.count()
        super().write(name, content)

    def create(self, name: str, content: bytes) -> bool:
        self.count()
        return super().create(name, content)

    def remove(self, name: str) -> None:
        self.count()
        super().remove(name)

    def count(self) -> None:
        if self.left[0] <= 0:
            raise StoppedError
        self.left[0] -= 1


def stopped(store: Store, instant: int) -> bool:
    """Compact until a change, then be dead; whether it was."""
    try:
        merge(Store(Stopping(path_of(store), [instant])))
    except StoppedError:
        shutil.rmtree(path_of(store) / OWNERS, ignore_errors=True)  # this process lives, for others
        return True
    return False


def files_of(store: Store) -> set[str]:
    found = (path for path in path_of(store).rglob("*") if path.is_file())
    return {str(path.relative_to(path_of(store))) for path in found}


@pytest.mark.parametrize("compacted", [False, True])
def test_killed_at_any_instant_all_is_readable_and_the_next_one_finishes(
    local: Store, tmp_path: Path, compacted: bool
) -> None:
    if compacted:
        merge(local)
        grow(local, "00a1", epochs=5)
        grow(local, "00d4", epochs=1)
    some: tuple[tables.RunTable, ...] = ("runs", "classes", "predictions")
    before = everything(local, names=some)
    undisturbed = Store(LocalPlace(tmp_path / "undisturbed"))
    shutil.copytree(path_of(local), path_of(undisturbed))
    merge(undisturbed)
    instants = 0
    while True:
        store = Store(LocalPlace(tmp_path / f"killed-{instants}"))
        shutil.copytree(path_of(local), path_of(store))
        if not stopped(store, instants):
            break
        assert_same(everything(store, names=some), before)
        assert verified(store) == []
        merge(store)
        assert_same(everything(Store(store.root), names=some), before)
        assert files_of(store) == files_of(undisturbed)
        assert verified(store) == []
        instants += 1
    assert instants > 20


def compacting(path: Path, steps: Connection) -> None:
    compact(Store(LocalPlace(path)), steps.send)
    steps.send("")


def test_a_process_killed_while_it_compacts_is_finished_by_the_next(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"), create=True)
    runs = [f"{number:04x}" for number in range(30)]
    for run_id in runs:
        grow(store, run_id)
    before = {("", table): store.read_many(runs, table) for table in tables.RUN_TABLES}
    rng = random.Random(0)  # noqa: S311 - instants, not secrets
    context = multiprocessing.get_context("spawn")
    for step in (2, 9, 4, 9, 8, 6):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=compacting, args=(path_of(store), theirs))
        process.start()
        assert all(ours.recv() for _ in range(step))
        time.sleep(rng.uniform(0, 0.02))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        opened = Store(store.root)
        assert_same({key: opened.read_many(runs, key[1]) for key in before}, before)
        assert verified(store) == []
        for number in range(3):
            grow(store, f"more-{step}-{number}")
    merge(store)
    assert [own for run_id in store.run_ids() for own in own_files(store, run_id)] == []
    opened = Store(store.root)
    assert_same({key: opened.read_many(runs, key[1]) for key in before}, before)
    assert len(parts(store)) == len(FILES)
    assert not [name for name in files_of(store) if Path(name).name.startswith(("claim-", ".e"))]


# Who trains


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_a_run_that_is_trained_on_is_the_run_that_it_would_have_been(
    make_task: MakeTask,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    where: str,
) -> None:
    """Longer, and evaluated on what it was not before."""
    plain = make_task(tmp_path / "plain", milestones=(1,), evaluate=())
    place = str(tmp_path / "merged") if where == "folder" else request.getfixturevalue("bucket")
    merged = replace(plain, store=place)
    stores = [Store.open(task.store, create=True) for task in (plain, merged)]
    for changes in (
        {},
        {"evaluate": ("demo",)},
        {"epochs": 2, "milestones": (1, 2), "evaluate": ("demo",)},
    ):
        reports = [ran(replace(task, **changes)) for task in (plain, merged)]
        assert trained(reports[0]) == trained(reports[1])
        rows = [rows_of(Store(store.root)) for store in stores]
        assert rows[0] == rows[1]
        found = merge(stores[1])
        assert found.runs == 2
        assert rows_of(Store(stores[1].root)) == rows[0]
        assert trained(ran(replace(merged, **changes))) == 0
        assert [own_files(stores[1], run_of(merged, seed)) for seed in merged.seeds] == [[], []]
        assert len(parts(stores[1])) == len(FILES)
        assert verified(stores[1]) == []


def rows_of(store: Store) -> dict[str, Rows]:
    """All rows of a store, without the columns that hold times and places."""
    from tests.rows import VOLATILE

    return {
        run_id: {
            table: [
                {name: v for name, v in row.items() if name not in VOLATILE.get(table, ())}
                for row in store.read(run_id, table).to_pylist()
            ]
            for table in tables.RUN_TABLES
        }
        for run_id in store.run_ids()
    }


def test_a_run_that_was_continued_is_read_from_its_own_files_until_it_is_merged_again(
    root: str,
) -> None:
    store = filled(root)
    merge(store)
    reader = Store(open_place(root))
    reader.archive.index()
    grow(store, "00a1", epochs=6)
    assert own_files(store, "00a1") == sorted({*FILES} - {"classes.parquet"})
    long = everything(reader)
    assert max(long["00a1", "predictions"]["epoch"].to_pylist()) == 6
    assert_same(everything(Store(open_place(root))), long)
    assert merge(store).runs == 1
    assert own_files(store, "00a1") == []
    assert_same(everything(reader), long)
    stored = Archive(store.root).index()
    assert (
        Counter((part.table, entry.run_id) for part in stored.parts for entry in part.entries)[
            "epochs", "00a1"
        ]
        == 1
    )


def test_runs_that_are_trained_now_or_not_finished_are_left_alone(root: str) -> None:
    store = filled(root)
    grow(store, "00e5", status="running")
    before = everything(store, (*RUNS, "00e5"))
    with Owner(store.root, "a test that trains") as owner:
        held = claim(store.run("00b3").place, owner)
        assert isinstance(held, Claim)
        found = merge(store)
        assert (found.runs, found.training) == (3, ("00b3", "00e5"))
        assert own_files(store, "00b3") == own_files(store, "00e5") == sorted(FILES)
        held.check()
        held.release()
    assert merge(store).training == ("00e5",)
    assert own_files(store, "00b3") == []
    assert_same(everything(Store(store.root), (*RUNS, "00e5")), before)


def test_a_run_claimed_after_it_was_merged_keeps_its_files(local: Store) -> None:
    """It may have read its head, and be about to write."""
    with Owner(local.root, "a test that trains") as owner:

        def begin() -> None:
            if parts(local) and not is_claimed(local, "00b3"):
                claim(local.run("00b3").place, owner)

        merge(Store(Watched(path_of(local), begin)))
        assert own_files(local, "00b3") == sorted(FILES)
        assert own_files(local, "00c2") == []
    assert verified(local) == []


def is_claimed(store: Store, run_id: str) -> bool:
    return any(map(is_claim, store.run(run_id).place.files()))


def test_a_run_continued_between_merging_and_removing_keeps_its_files(local: Store) -> None:
    done = False

    def train() -> None:
        nonlocal done
        if (path_of(local) / FOLDER / INDEX).stat().st_size > 500 and not done:
            done = True
            grow(local, "00b3", epochs=7)

    (path_of(local) / FOLDER).mkdir()
    (path_of(local) / FOLDER / INDEX).write_bytes(Index().encode())
    merge(Store(Watched(path_of(local), train)))
    assert done
    assert own_files(local, "00b3") == sorted({*FILES} - {"classes.parquet"})
    assert max(Store(local.root).read("00b3", "predictions")["epoch"].to_pylist()) == 7
    assert verified(local) == []


def test_rows_of_runs_that_are_gone_go_with_the_next_compaction(local: Store) -> None:
    merge(local)
    before = everything(local)
    head = local.run("00f0").place
    head.remove(HEAD)
    merge(local)
    stored = Archive(local.root).index()
    assert {entry.run_id for part in stored.parts for entry in part.entries} == {*RUNS} - {"00f0"}
    kept = {key: table for key, table in before.items() if "00f0" not in key[0]}
    found = {key: table for key, table in everything(local, RUNS[1:]).items() if key in kept}
    kept = {key: kept[key] for key in found if key[0] not in ("all", "some")}
    assert_same({key: found[key] for key in kept}, kept)


# Damage


def turn_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def part_of(store: Store, table: str) -> Path:
    (name,) = [name for name in parts(store) if name.startswith(f"{table}-")]
    return path_of(store) / FOLDER / name


@pytest.mark.parametrize("harm", [turn_a_bit, Path.unlink])
def test_a_damaged_part_costs_its_runs_and_they_are_trained_again(
    make_task: MakeTask,
    tmp_path: Path,
    assert_near: Near,
    harm: Callable[[Path], None],
) -> None:
    task = make_task(tmp_path / "store", milestones=(2,))
    store = Store.open(task.store, create=True)
    ran(task)
    before = rows_of(store)
    merge(store)
    path = part_of(store, "evaluations")
    harm(path)
    problem = "is damaged" if path.exists() else "is missing"
    found = verified(store)
    assert [(each.where, each.epochs) for each in found] == [(run, 2) for run in store.run_ids()]
    said = f"evaluations.parquet {problem}, with other runs' in {path.name}"
    assert {each.problems for each in found} == {(said,)}
    assert all(each.seconds > 0 for each in found)
    with pytest.raises(InputError, match="sweeps verify --repair"):
        Store(store.root).read_many(store.run_ids(), "evaluations")
    left = merge(store)
    assert left.runs == 0
    verified(store, repair=True)
    assert verified(store) == []
    assert trained(ran(task)) == 4
    after = rows_of(Store(store.root))
    for run_id, rows in after.items():
        assert rows["runs"][0].pop("fallbacks") == [f"{said}: trained again from epoch 0"]
        assert_near(rows, before[run_id])
    merge(store)
    assert [own_files(store, run_id) for run_id in after] == [[], []]
    assert len(parts(store)) == len(FILES)
    assert len(Store(store.root).read_many(after, "evaluations")) == 6
    assert verified(store) == []


def test_a_damaged_part_of_rows_that_the_heads_have_too_costs_no_training(local: Store) -> None:
    before = everything(local)
    merge(local)
    turn_a_bit(part_of(local, "runs"))
    row = local.run("00a1").head()
    found = Store(local.root)
    with pytest.raises(DamagedError, match=r"runs\.parquet: is damaged"):
        found.read("00a1", "runs")
    folder = found.run("00a1")
    assert row is not None
    folder.forget(["runs.parquet"])
    folder.commit(row.row, {})
    assert_same(
        {("00a1", "runs"): found.read("00a1", "runs")}, {("00a1", "runs"): before["00a1", "runs"]}
    )


def test_a_part_that_was_damaged_before_own_files_went_is_made_anew(local: Store) -> None:
    before = everything(local)
    instants = 0
    while not parts(local) or not Archive(local.root).index().parts:
        assert stopped(local, instants)
        instants += 1
    assert own_files(local, "00a1") == sorted(FILES)
    turn_a_bit(part_of(local, "thresholds"))
    assert_same(everything(local), before)
    merge(local)
    assert own_files(local, "00a1") == []
    assert_same(everything(Store(local.root)), before)
    assert verified(local) == []


def test_an_own_file_that_is_damaged_is_left_and_told(local: Store) -> None:
    turn_a_bit(path_of(local) / "runs" / "00a1" / "epochs.parquet")
    found = merge(local)
    assert found.unreadable == ("00a1",)
    assert own_files(local, "00a1") == ["epochs.parquet"]
    with pytest.raises(DamagedError, match=r"epochs\.parquet: is damaged"):
        local.read("00a1", "epochs")


@pytest.mark.parametrize("harm", [turn_a_bit, Path.unlink])
def test_a_lost_index_costs_nothing(
    make_task: MakeTask, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    task = make_task(tmp_path / "store", milestones=(1,))
    store = Store.open(task.store, create=True)
    ran(task)
    before = rows_of(store)
    merge(store)
    index = path_of(store) / FOLDER / INDEX
    harm(index)
    for refused in (
        lambda: Store(store.root).read_many(store.run_ids(), "epochs"),
        lambda: Store(store.root).read(run_of(task, 0), "epochs"),
        lambda: merge(store),
    ):
        with pytest.raises(InputError, match="`sweeps verify --repair` makes it anew") as caught:
            refused()
        assert str(index) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert len(parts(store)) == len(FILES)
    (found,) = verified(store)
    assert (found.where, found.epochs) == (FOLDER, 0)
    assert verified(store, repair=True) == [found]
    assert verified(store) == []
    assert rows_of(Store(store.root)) == before
    assert trained(ran(task)) == 0


def test_an_index_of_another_release_or_of_something_else_is_refused(local: Store) -> None:
    merge(local)
    place = local.root.at(FOLDER)
    whole = place.read(INDEX)
    assert Index.decode(whole).encode() == whole
    for content in (b"{}", whole[:-1], whole.replace(b'"schema":1', b'"schema":9', 1), b"\xff"):
        with pytest.raises(ValueError, match=r"is damaged|this release reads 1"):
            Index.decode(content)


# The command


def test_two_compactions_at_once_are_one_and_a_refusal(command: Command, local: Store) -> None:
    with Owner(local.root, "sweeps compact") as owner:
        held = claim(local.root.at(FOLDER), owner)
        assert isinstance(held, Claim)
        with pytest.raises(InputError, match="is being compacted by `sweeps compact`, process"):
            merge(local)
        refused = command("compact", "--store", path_of(local))
        assert refused.returncode == 2
        assert "wait for it, or end it" in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1
        held.release()
    assert own_files(local, "00a1") == sorted(FILES)
    assert merge(local).runs == 4


def test_the_command_says_what_became_of_what(command: Command, local: Store) -> None:
    grow(local, "00e5", status="running")
    done = command("compact", "--store", path_of(local))
    assert done.returncode == 0, done.stderr
    assert "merged the tables of 4 runs: 36 files became 15, " in done.stdout
    assert "1 run not finished, or being trained now: left" in done.stdout
    again = command("compact", "--store", path_of(local), "--json")
    facts = json.loads(again.stdout)
    assert (facts["runs"], facts["files_before"], facts["files_after"]) == (0, 15, 15)
    assert facts["training"] == ["00e5"]
    sizes = [
        path.stat().st_size
        for path in path_of(local).rglob("*")
        if path.name in FILES or path.parent.name == FOLDER
    ]
    assert (len(sizes), sum(sizes)) == (15, facts["bytes_after"])
    told = command("compact", "--store", path_of(local))
    assert "nothing to merge; tables lie in 15 files" in told.stdout
    nothing = command("compact", "--store", path_of(local) / "nowhere")
    assert nothing.returncode == 2
    assert "holds no runs" in nothing.stderr

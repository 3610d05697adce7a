"""Reports on real runs: of one sweep, of several, of a store without a specification."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from cifake import tables
from cifake.errors import InputError
from cifake.places import LocalPlace
from cifake.runs import Head
from sweeps import fresh
from sweeps.outcome import write_cells, write_labels
from sweeps.parse import parse
from sweeps.plan import Stack
from sweeps.reporting import Choice, report_store, report_sweep, report_sweeps
from sweeps.spec import Spec
from sweeps.specfile import read
from sweeps.store import Store
from sweeps.sweep import Sweep, open_sweep
from sweeps.trial import run_stack

DATA = "data: {train: demo, validation: 50, train_images: 64}\nnuisance: {seed: 2}\n"
RATES = f"""\
name: rates
question: Which rate?
{DATA}scientific: {{optimizer.lr: [0.01, 0.1], epochs: [1, 2]}}
"""
SIZES = f"""\
name: sizes
question: Which size?
{DATA}scientific: {{batch_size: [32, 16]}}
fixed: {{epochs: 1, optimizer: {{lr: 0.01}}}}
"""
BLURRED = f"name: blurred\n{DATA}".replace("demo", "demo@blur=1") + "fixed: {epochs: 1}\n"

README = Path(__file__).parents[2] / "README.md"
RESULTS = ("summary", "comparisons", "ranking", "effects")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with three sweeps, trained here without Ray."""
    folder = tmp_path_factory.mktemp("trained")
    store = Store.open(str(folder / "store"), create=True)
    for text in (RATES, SIZES, BLURRED):
        sweep = opened(spec_of(folder, text))
        train(sweep, store)
        write_cells(sweep.spec, store, sweep.cells())
        write_labels(sweep.spec, store, sweep.packs)
    return folder


def spec_of(folder: Path, text: str) -> Spec:
    name = text.split()[1]
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return parse(read(path))


def opened(spec: Spec) -> Sweep:
    return open_sweep(spec, [], Console(file=io.StringIO()))


def train(sweep: Sweep, store: Store) -> None:
    """Every run of a sweep that the store lacks."""
    by_config: dict[str, list[Any]] = {}
    for cell in sweep.cells():
        by_config.setdefault(cell.config_id, []).append(cell)
    for cells in by_config.values():
        lengths = tuple(sorted({cell.variant.epochs for cell in cells}))
        stack = Stack(
            config=cells[0].variant.config,
            seeds=tuple(dict.fromkeys(cell.seed for cell in cells)),
            start=0,
            epochs=lengths[-1],
            milestones=lengths,
        )
        if not store.run_states(stack.run_ids):
            run_stack(sweep.task(stack, store, None), lambda _: None)


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    shutil.copytree(trained, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def store(place: Path) -> Store:
    return Store.open(str(place / "store"), create=False)


def told(report: Callable[..., None], *arguments: Any, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=1000)
    report(*arguments, console, *options.pop("after", ()), **options)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def union(specs: list[Spec], store: Store, **choice: Any) -> str:
    return told(report_sweeps, specs, store, after=[Choice(**choice)])


def whole(store: Store, **choice: Any) -> str:
    return told(report_store, store, after=[Choice(**choice)])


def files_of(store: Store, sweep: str) -> dict[str, tuple[int, bytes]]:
    """When each file of a sweep was written, and what it holds."""
    root = store.sweep(sweep)
    assert isinstance(root, LocalPlace)
    return {
        str(path.relative_to(root.path)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(root.path.rglob("*"))
        if path.is_file()
    }


def table(store: Store, sweep: str, name: str) -> list[dict[str, Any]]:
    found = store.read_sweep(sweep, name)
    assert found is not None
    rows: list[dict[str, Any]] = found.to_pylist()
    return rows


# One sweep. A report takes seconds: tests that look at one share it.


@pytest.fixture(scope="module")
def reported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A copy of the folder with a report on the sweep of rates, and what was printed of it."""
    folder = tmp_path_factory.mktemp("reported") / "copy"
    shutil.copytree(trained, folder)
    store = Store.open(str(folder / "store"), create=False)
    return folder, told(report_sweep, spec_of(folder, RATES), store, csv=True)


def test_a_report_writes_its_four_tables_and_they_are_whole(reported: tuple[Path, str]) -> None:
    folder, text = reported
    store = Store.open(str(folder / "store"), create=False)
    assert all(table(store, "rates", name) for name in RESULTS)
    (one, two) = sorted({row["label"] for row in table(store, "rates", "summary")})
    for row in table(store, "rates", "comparisons"):
        assert (row["label_a"], row["label_b"], row["n"]) == (one, two, 2)
        last = (row["epochs"], row["split"], row["metric"]) == (2, "test", "accuracy")
        assert (row["mcnemar_runs"] == 2) == (row["total_low"] is not None) == last
    assert "nor could one be: with 2 seeds p = 0.5 is the least, and 6 or more" in text
    assert "report" in text


def test_tables_are_written_as_csv_where_asked(reported: tuple[Path, str]) -> None:
    root = reported[0] / "store" / "sweeps" / "rates"
    for name in RESULTS:
        found = pd.read_csv(root / f"{name}.csv")
        expected = pd.read_parquet(root / f"{name}.parquet")
        assert list(found.columns) == list(expected.columns)
        assert len(found) == len(expected)
        for column in expected.select_dtypes("float"):
            assert found[column].tolist() == pytest.approx(expected[column].tolist(), nan_ok=True)


def test_the_lines_of_the_readme_read_every_table(
    reported: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(reported[0] / "store/sweeps/rates", tmp_path / "store/sweeps/placements")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    (block,) = [block for block in blocks if "summary.parquet" in block]
    setting, lines = block.split("\n\n")[0], block.split("\n\n")[1].splitlines()
    names: dict[str, Any] = {}
    exec(f"{setting}\n{lines[0]}", names)  # noqa: S102 - the README is ours
    read = {}
    for line in lines[1:]:
        (name,) = [name for name in RESULTS if f"{name}.parquet" in line]
        read[name] = eval(line, names)  # noqa: S307
    assert set(read) == set(RESULTS)
    assert len(read["summary"]) == 2 * 2
    assert read["comparisons"].empty, "two seeds make no difference significant"
    assert len(read["ranking"])
    assert set(read["effects"]["term"]) == {"optimizer.lr", "epochs"}


def test_a_report_is_made_again_only_if_what_it_is_made_of_has_changed(
    reported: tuple[Path, str], tmp_path: Path
) -> None:
    place = tmp_path / "copy"
    shutil.copytree(reported[0], place)
    store = Store.open(str(place / "store"), create=False)
    spec = spec_of(place, RATES)

    def again(asked: Spec) -> tuple[str, set[str]]:
        """What is printed, and which files were written or removed."""
        before = files_of(store, "rates")
        text = told(report_sweep, asked, store, anew=False)
        after = files_of(store, "rates")
        return text, {n for n in before.keys() | after if after.get(n) != before.get(n)}

    assert again(spec) == (reported[1].replace(str(reported[0]), str(place)), set())

    baseline = spec_of(place, RATES + "compare: {metrics: [loss], baseline: {optimizer.lr: 0.1}}\n")
    text, written = again(baseline)
    assert "loss" in text
    assert "comparisons.parquet" in written
    assert "comparisons.csv" in written, "what an earlier report left does not stay"
    made = {name: content for name, (_, content) in files_of(store, "rates").items()}

    store.remove_file("rates", "report.md")
    store.write_sweep("rates", "summary.parquet", made["summary.parquet"][:-7])
    assert "report.md" in again(baseline)[1], "it is missing"
    assert {name: content for name, (_, content) in files_of(store, "rates").items()} == made

    run = store.run(spec_run(store))
    state = run.state()
    assert state is not None
    run.commit({**state.row, "train_seconds": 1e6}, {})
    assert "report.md" in again(baseline)[1], "a run's head is part of it"
    assert again(baseline)[1] == set()

    write_cells(spec, store, opened(spec).cells()[:-1])
    assert "summary.parquet" in again(baseline)[1]


def spec_run(store: Store) -> str:
    return str(table(store, "rates", "cells")[0]["run_id"])


MADE = {"report.md": b"# a", "figures/a.png": b"pixels"}


def kept(store: Store) -> Mapping[str, Any] | None:
    return fresh.unchanged(store, "a", "inputs", ["summary"])


def test_what_was_made_of_the_same_and_is_whole_is_fresh(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"), create=True)
    summary = tables.TABLES["summary"].empty()
    files = {**MADE, "summary.parquet": tables.encode("summary", summary)}
    assert kept(store) is None
    fresh.keep(store, "a", "inputs", files)
    found = kept(store)
    assert found is not None
    assert found["summary"].equals(summary)
    assert fresh.unchanged(store, "a", "others", ["summary"]) is None
    assert fresh.unchanged(store, "a", "inputs", ["ranking"]) is None
    for name in files:
        for change in (store.remove_file, lambda a, b: store.write_sweep(a, b, b"damaged")):
            change("a", name)
            assert kept(store) is None, name
            fresh.keep(store, "a", "inputs", files)
            assert kept(store) is not None
    for content in (b"", b"{}", b'{"inputs": 3}', b'{"inputs": "inputs", "outputs": {}}'):
        store.write_sweep("a", "made.json", content)
        assert kept(store) is None


def test_a_digest_of_inputs_depends_on_each_of_them() -> None:
    head = Head({"run_id": "a"})
    cells = tables.TABLES["labels"].empty()
    other = tables.TABLES["labels"].from_rows(
        [{"dataset": "demo", "split": "test", "image_id": 0, "label": 1}]
    )
    digests = [
        fresh.inputs(["a"], [cells], {"a": head}),
        fresh.inputs(["b"], [cells], {"a": head}),
        fresh.inputs(["a", "a note"], [cells], {"a": head}),
        fresh.inputs(["a"], [other], {"a": head}),
        fresh.inputs(["a"], [cells], {"b": head}),
        fresh.inputs(["a"], [cells], {"a": Head({"run_id": "a"}, {"runs.parquet": "held"})}),
    ]
    assert len(set(digests)) == len(digests)
    assert fresh.inputs(["a"], [cells], {"a": head}) == digests[0]


def test_missing_runs_are_counted_and_noted(place: Path, store: Store) -> None:
    spec = spec_of(place, RATES)
    shutil.rmtree(place / "store" / "runs" / spec_run(store))
    text = told(report_sweep, spec, store)
    assert "note: 2 of 8 cells have no result: 2 not trained yet." in text
    assert "1 (1 missing)" in text
    report = store.read_file("rates", "report.md").decode()
    assert "- 2 of 8 cells have no result" in report
    assert {(row["n"], row["n_missing"]) for row in table(store, "rates", "comparisons")} == {
        (1, 1)
    }


def test_a_sweep_that_is_not_there_says_what_to_run(place: Path, store: Store) -> None:
    spec = spec_of(place, RATES.replace("rates", "others"))
    with pytest.raises(
        InputError, match=r"holds no sweep 'others'; run `sweeps run .*others\.yaml`"
    ):
        told(report_sweep, spec, store)


# Several sweeps.


def means(store: Store, sweep: str) -> Mapping[Any, float]:
    """Of the configs of the first sweep."""
    return {
        (json.loads(row["label"])["optimizer.lr"], row["epochs"], row["split"], row["metric"]): (
            row["mean"]
        )
        for row in table(store, sweep, "summary")
        if json.loads(row["label"]).get("batch_size", 32) == 32
    }


def test_several_sweeps_make_one_report_and_share_what_they_share(
    place: Path, store: Store, reported: tuple[Path, str]
) -> None:
    text = union([spec_of(place, RATES), spec_of(place, SIZES)], store)
    labels = {row["label"] for row in table(store, "rates-and-sizes", "summary")}
    assert {tuple(json.loads(label).values()) for label in labels} == {
        (32, 0.01),
        (16, 0.01),
        (32, 0.1),
    }, "both parameters, in the order of the settings"
    first = [
        row
        for row in table(store, "rates-and-sizes", "ranking")
        if (row["epochs"], row["split"], row["metric"]) == (1, "test", "accuracy")
    ]
    assert [row["n"] for row in first] == [2, 2, 2], "runs of both are counted once"
    assert "note: one report on the sweeps rates, sizes" in text
    assert "note: 2 cells that several sweeps ask for are counted once" in text
    report = store.read_file("rates-and-sizes", "report.md").decode()
    assert "Which rate? Which size?" in report
    alone = Store.open(str(reported[0] / "store"), create=False)
    assert means(store, "rates-and-sizes") == means(alone, "rates")
    assert store.read_sweep("rates-and-sizes", "cells") is None, "it asks for nothing itself"


def test_a_run_that_is_missing_keeps_its_label(place: Path, store: Store) -> None:
    rates, sizes = spec_of(place, RATES), spec_of(place, SIZES)
    for row in table(store, "sizes", "cells"):
        if json.loads(row["label"])["batch_size"] == 16:
            shutil.rmtree(place / "store" / "runs" / row["run_id"])
    text = union([rates, sizes], store)
    assert "2 of 10 cells have no result: 2 not trained yet" in text
    rows = [r for r in table(store, "rates-and-sizes", "ranking") if r["epochs"] == 1]
    assert {(json.loads(r["label"])["batch_size"], r["n"]) for r in rows} == {(32, 2), (16, 0)}


def test_mixed_data_are_refused_with_their_counts_unless_told(place: Path, store: Store) -> None:
    specs = [spec_of(place, SIZES), spec_of(place, BLURRED)]
    with pytest.raises(InputError) as refused:
        union(specs, store)
    message = str(refused.value)
    assert re.search(r"4 runs on demo \(\w{8}\), 2 runs on demo@blur=1 \(\w{8}\)", message)
    assert "--mixed" in message
    text = union(specs, store, mixed=True)
    assert "note: mixed training data: 4 runs on demo" in text
    labels = [json.loads(row["label"]) for row in table(store, "sizes-and-blurred", "summary")]
    assert {label["data.train"] for label in labels} == {"demo", "demo@blur=1"}


def test_mixed_trainers_are_refused_unless_told(place: Path, store: Store) -> None:
    for row in table(store, "sizes", "cells"):
        state = store.run(row["run_id"]).state()
        assert state is not None
        if json.loads(row["label"])["batch_size"] == 16:
            store.run(row["run_id"]).commit({**state.row, "trainer_version": 1}, {})
    specs = [spec_of(place, RATES), spec_of(place, SIZES)]
    with pytest.raises(InputError, match=r"trainers: 2 runs by version 1, 4 runs by version \d+"):
        union(specs, store)
    union(specs, store, mixed=True)
    labels = [json.loads(row["label"]) for row in table(store, "rates-and-sizes", "summary")]
    assert 1 in {label["trainer_version"] for label in labels}


@pytest.mark.parametrize(
    ("name", "problem"), [("rates", "is a sweep of the store"), ("A b", "lower-case letters")]
)
def test_a_report_takes_no_name_of_a_sweep(
    place: Path, store: Store, name: str, problem: str
) -> None:
    specs = [spec_of(place, RATES), spec_of(place, SIZES)]
    with pytest.raises(InputError, match=f"--name.*{problem}"):
        union(specs, store, name=name)
    with pytest.raises(InputError, match="names a sweep twice"):
        union([specs[0], specs[0]], store)


def test_sets_that_another_sweep_had_the_same_runs_evaluated_on_are_left_out(
    place: Path, store: Store
) -> None:
    wider = RATES.replace("rates", "wider").replace(
        "validation: 50", 'evaluate: [demo, "demo@greyscale"], validation: 50'
    )
    sweep = opened(spec_of(place, wider))
    shared = {row["run_id"] for row in table(store, "rates", "cells")}
    assert shared == {cell.run_id for cell in sweep.cells()}
    for config in {cell.config_id: cell.variant.config for cell in sweep.cells()}.values():
        stack = Stack(config=config, seeds=(0, 1), start=2, epochs=2, milestones=(1, 2))
        run_stack(sweep.task(stack, store, None), lambda _: None)
    write_cells(sweep.spec, store, sweep.cells())
    write_labels(sweep.spec, store, sweep.packs)
    told(report_sweep, spec_of(place, RATES), store)
    told(report_sweep, sweep.spec, store)
    both = {"demo", "demo@greyscale"}
    assert {row["dataset"] for row in table(store, "rates", "summary")} == {"demo"}
    assert {row["dataset"] for row in table(store, "wider", "summary")} == both
    of_accuracy = [r for r in table(store, "rates", "summary") if r["metric"] == "accuracy"]
    assert {row["n_missing"] for row in of_accuracy} == {0}
    union([spec_of(place, RATES), sweep.spec], store, name="together")
    assert {row["dataset"] for row in table(store, "together", "summary")} == both


# A store without a specification.


def test_a_store_without_a_specification_is_compared_by_what_its_runs_differ_in(
    place: Path, store: Store
) -> None:
    with pytest.raises(InputError, match="no fair comparison"):
        whole(store)
    for row in table(store, "blurred", "cells"):
        shutil.rmtree(place / "store" / "runs" / row["run_id"])
    shutil.rmtree(place / "store" / "sweeps")
    text = whole(store)
    assert "note: all runs of a store, 6, by whatever they differ in" in text
    assert "on demo configs are not compared image by image, neither by McNemar's test nor" in text
    assert not any(row["mcnemar_runs"] for row in table(store, "all-runs", "comparisons"))
    labels = {row["label"] for row in table(store, "all-runs", "summary")}
    assert {tuple(json.loads(label)) for label in labels} == {("batch_size", "optimizer.lr")}
    assert len(labels) == 3
    lengths = {row["epochs"] for row in table(store, "all-runs", "ranking")}
    assert lengths == {1, 2, None}, (
        "milestones are found by the predictions that were kept, and all are compared at their ends"
    )
    assert store.sweeps() == [], "gc still lists its runs"


def test_a_run_that_failed_is_missing_where_its_config_s_others_are(
    place: Path, store: Store
) -> None:
    for row in table(store, "blurred", "cells"):
        shutil.rmtree(place / "store" / "runs" / row["run_id"])
    run = store.run(spec_run(store))
    state = run.state()
    assert state is not None
    run.commit({**state.row, "status": "failed", "epochs_done": 1, "error": "out of memory"}, {})
    text = whole(store)
    assert re.search(r"note: 1 of \d+ cells has no result: 1 of failed runs", text)


def test_an_empty_store_says_what_to_run(tmp_path: Path) -> None:
    empty = Store.open(str(tmp_path / "empty"), create=True)
    with pytest.raises(InputError, match="run `sweeps run SPEC` or `cifake train` first"):
        whole(empty)

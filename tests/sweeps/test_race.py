"""`--until-resolved`: which seeds are asked for, what is told of it, and real sweeps."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cifake import tables
from cifake.errors import InputError
from cifake.places import LocalPlace
from sweeps.plan import Cell
from sweeps.race import Race, make_race
from sweeps.resolution import FILE, Resolution, make_resolution, read, sentences, write
from sweeps.run_grid import plan_cells
from sweeps.run_race import current
from sweeps.spec import Resolve, Spec
from sweeps.store import Store
from sweeps.sweep import open_sweep, read_spec
from sweeps.trial import run_stack
from tests.sweeps.drivers import Driver, launch

pytestmark = pytest.mark.heavy

Parse = Callable[..., Spec]
Command = Callable[..., subprocess.CompletedProcess[str]]
Rows = dict[str, Any]

GRID = """\
name: graded
data: {train: demo, validation: 1000}
scientific: {batch_size: [16, 32, 64], epochs: [1, 2]}
nuisance: {seed: 4, label_smoothing: [0.0, 0.1]}
resolve: {max_seeds: 10, round: 2}
"""

RATES = """\
name: rates
question: Which learning rate does logistic regression learn the photographs with?
data: {train: demo, validation: 200, train_images: 300}
scientific: {optimizer.lr: [1.0e-7, 0.003, 0.004]}
nuisance: {seed: 4}
fixed: {model: linear, batch_size: 32, epochs: 5}
resources: {width: 3}
resolve: {max_seeds: 6, round: 2}
"""


def race_of(spec: Spec) -> Race:
    assert spec.resolve is not None
    return make_race(spec, spec.resolve, "f" * 16)


def scored(cells: Sequence[Cell], score: Callable[[Cell], float | None]) -> list[Rows]:
    """Rows of `evaluations`: a validation accuracy of each cell; the test split disagrees."""
    counts = dict.fromkeys(("tp", "fp", "tn", "fn"), 250)
    sizes = {"n": 1000, "n_unreadable": 0, "n_deduplicated": 1000, "threshold": 0.5, **counts}
    rows = []
    for cell in cells:
        accuracy = score(cell)
        keys = {"run_id": cell.run_id, "epoch": cell.variant.epochs, "dataset": "demo"}
        both = {"validation": accuracy, "test": None if accuracy is None else 1 - accuracy}
        rows += [{**keys, **sizes, "split": split, "accuracy": both[split]} for split in both]
    return rows


def by_size(cell: Cell) -> float:
    """Smaller batches are better; lengths differ, and so do nuisance values, more than that."""
    noise = random.Random(cell.run_id).gauss(0, 0.002)  # noqa: S311 - noise, not secrets
    size = {16: 0.02, 32: 0.018, 64: 0.0}[cell.variant.label["batch_size"]]
    smoothing = 0.1 * cell.variant.nuisance["label_smoothing"]
    return 0.5 + 0.2 * cell.variant.epochs + size + smoothing + noise


def looked(
    race: Race, score: Callable[[Cell], float | None] = by_size, looks: int = 9
) -> list[Any]:
    found: list[Any] = []
    while not race.has_ended(found) and len(found) < looks:
        rows = scored(race.cells(found), score)
        found = race.look(found, tables.TABLES["evaluations"].from_rows(rows))
    return found


def seeds_by_config(cells: Sequence[Cell]) -> dict[int, set[int]]:
    found = defaultdict(set)
    for cell in cells:
        found[cell.variant.label["batch_size"]].add(cell.seed)
    return dict(found)


# Which cells are asked for.


def test_the_first_round_is_the_grid_and_seeds_are_added_behind_its_own(parse_text: Parse) -> None:
    race = race_of(parse_text(GRID))
    assert race.rule.looks == (4, 6, 8, 10)
    assert race.seeds == tuple(range(10))
    assert len(race.cells([])) == 3 * 2 * 2 * 4
    named = race_of(parse_text(GRID, "seed=[7, 3, 5, 2]"))
    assert named.seeds == (7, 3, 5, 2, 8, 9, 10, 11, 12, 13)


def test_a_round_is_as_large_as_the_first_and_the_last_one_ends_with_the_budget(
    parse_text: Parse,
) -> None:
    assert race_of(parse_text(GRID, "resolve={max_seeds: 10}")).rule.looks == (4, 8, 10)
    assert race_of(parse_text(GRID, "resolve={}")).rule.looks == (4, 8, 12, 16, 20, 24, 28, 30)


def test_seeds_go_with_every_length_and_nuisance_value_to_undecided_configs_alone(
    parse_text: Parse,
) -> None:
    race = race_of(parse_text(GRID))
    looks = looked(race, looks=1)
    assert looks[0].racing == (True, True, False)
    cells = race.cells(looks)
    assert seeds_by_config(cells) == {16: set(range(6)), 32: set(range(6)), 64: set(range(4))}
    assert len(cells) == 2 * 2 * (6 + 6 + 4)
    assert {cell.stage for cell in cells} == {"grid"}, "summaries are over all seeds of a config"


def test_the_longest_length_on_validation_decides_by_the_foremost_metric(parse_text: Parse) -> None:
    """The test split disagrees, and so does the first epoch for batches of 64."""
    race = race_of(parse_text(GRID))

    def early(cell: Cell) -> float:
        flipped = cell.variant.epochs == 1 and cell.variant.label["batch_size"] == 64
        return 0.99 if flipped else by_size(cell)

    assert looked(race, early) == looked(race)
    assert looked(race)[-1].leader == 0
    least = race_of(parse_text(GRID, "compare.metrics=[loss]"))
    losses = scored(least.cells([]), by_size)
    rows = [
        {**{k: v for k, v in r.items() if k != "accuracy"}, "loss": r["accuracy"]} for r in losses
    ]
    (look,) = least.look([], tables.TABLES["evaluations"].from_rows(rows))
    assert look.leader == 2, "less loss is better"


def test_the_order_of_rows_and_runs_of_others_decide_nothing(parse_text: Parse) -> None:
    race = race_of(parse_text(GRID))
    rows = scored(race.cells([]), by_size)
    others = [{**row, "run_id": "0" * 16, "accuracy": 0.0} for row in rows[:2]]
    mixed = [*rows, *others]
    random.Random(0).shuffle(mixed)  # noqa: S311 - an order, not a secret
    table = tables.TABLES["evaluations"]
    assert race.look([], table.from_rows(rows)) == race.look([], table.from_rows(mixed))


def test_a_seed_counts_where_every_nuisance_value_has_a_score(parse_text: Parse) -> None:
    race = race_of(parse_text(GRID))

    def lost(cell: Cell) -> float | None:
        gone = (cell.seed, cell.variant.label["batch_size"]) == (2, 32)
        return None if gone and cell.variant.nuisance["label_smoothing"] else by_size(cell)

    (look,) = looked(race, lost, looks=1)
    assert look.pairs[1] == 3
    assert "pairs: 3 of batch size 32" in "\n".join(sentences(make_resolution(race, [look], None)))


def test_a_tie_ends_with_the_budget_and_with_a_delta_before(parse_text: Parse) -> None:
    def tied(cell: Cell) -> float:
        return 0.7 + random.Random(cell.run_id).gauss(0, 0.002)  # noqa: S311 - noise

    plain = race_of(parse_text(GRID))
    assert [look.verdict for look in looked(plain, tied)] == [None] * 4
    with_delta = race_of(parse_text(GRID, "resolve.delta=0.02"))
    *_, last = looked(with_delta, tied)
    assert (last.verdict, last.seeds) == ("equivalent", 4)
    said = "\n".join(sentences(make_resolution(with_delta, looked(with_delta, tied), None)))
    sizes = "batch size 16, batch size 32, batch size 64"
    assert f"resolved as a tie: {sizes} differ by less than 0.02, at 4 seeds" in said


# What is kept and told.


def test_a_record_reads_back_as_it_was_written(parse_text: Parse, tmp_path: Path) -> None:
    race = race_of(parse_text(GRID))
    store = Store.open(str(tmp_path / "store"), create=True)
    assert read(store, "graded") is None
    for number in range(1, 5):
        record = make_resolution(race, looked(race, looks=number), None)
        write(store, "graded", record)
        assert read(store, "graded") == record
    (tmp_path / "store" / "sweeps" / "graded" / FILE).write_text('{"seeds": "many"}')
    with pytest.raises(InputError, match="delete it"):
        read(store, "graded")


def test_terms_changed_after_a_look_are_told_and_stay_told(parse_text: Parse) -> None:
    race = race_of(parse_text(GRID))
    first = make_resolution(race, looked(race, looks=2), None)
    assert first.changed == ()
    more = race_of(parse_text(GRID, "resolve.max_seeds=12"))
    second = make_resolution(more, looked(more, looks=1), first)
    (change,) = second.changed
    assert change == (
        "after 2 looks the terms were changed (looks from [4, 6, 8, 10] to [4, 6, 8, 10, 12]): the "
        "error stated is that of each set of terms alone"
    )
    assert make_resolution(more, looked(more), second).changed == second.changed
    assert second.changed[0] in sentences(second)
    unseen = replace(first, looks=())
    assert make_resolution(more, [], unseen).changed == (), "nobody had looked"


def test_the_sentences_say_who_got_more_seeds_and_why(parse_text: Parse) -> None:
    race = race_of(parse_text(GRID))
    record = make_resolution(race, looked(race), None)
    text = "\n".join(sentences(record))
    assert "by accuracy on validation" in text
    assert "a false winner in 5 % of sweeps at most" in text
    assert "compared on the seeds that both have" in text
    assert "the ranking is resolved: batch size 16 is best of 3" in text
    assert (
        "p-values, marks and 95 % intervals are as if the numbers of seeds had been fixed" in text
    )
    assert record.has_ended


# What is refused before work starts.


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["data.validation=0"], ["data.validation", "decides by validation scores"]),
        (["seed=2"], ["nuisance.seed", "at least 3"]),
        (["resolve.max_seeds=4"], ["resolve.max_seeds", "above the 4 seeds"]),
        (["resolve.max_seeds=501"], ["resolve.max_seeds", "500"]),
        (["resolve.delta=0"], ["resolve.delta", "greater than 0"]),
        (["resolve.rounds=3"], ["resolve.rounds", "did you mean round?"]),
        (["resolve.round=0", "resolve.delta=-1"], ["resolve.round", "resolve.delta"]),
        (["batch_size=[16]"], ["scientific", "two values or more"]),
        (
            ["search={trials: 3, space: {optimizer.lr: {choice: [0.1, 0.2]}}}"],
            ["resolve", "search.confirm", "remove search"],
        ),
    ],
)
def test_what_cannot_be_resolved_is_refused(
    parse_text: Parse, settings: list[str], said: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        parse_text(GRID, *settings)
    for words in said:
        assert words in str(caught.value)


def test_the_flag_gives_a_specification_the_section_that_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(GRID)
    given = read_spec(str(path), [], until_resolved=True).resolve
    assert given is not None
    assert given.max_seeds == 10, "one that it has is kept"
    path.write_text(GRID.replace("resolve:", "# resolve:"))
    assert read_spec(str(path), []).resolve is None
    added = read_spec(str(path), [], until_resolved=True)
    assert added.resolve == Resolve()
    assert "resolve: {}" in added.written, "the file beside the report says how it was run"
    search = "search={trials: 3, space: {optimizer.lr: {choice: [0.1, 0.2]}}}"
    with pytest.raises(InputError, match=r"search\.confirm"):
        read_spec(str(path), [search], until_resolved=True)


def test_without_the_flag_the_section_changes_nothing(parse_text: Parse) -> None:
    with_section, without = parse_text(GRID), parse_text(GRID.replace("resolve", "#"))
    assert with_section.variants("") == without.variants("")
    assert without.resolve is None


# Real sweeps. The lowest rate learns nothing, and the others are much alike.


@dataclass
class Ended:
    """A sweep that was run to its end in a store, through Ray."""

    store: Path
    spec: Path
    said: str
    record: Resolution = field(init=False)

    def __post_init__(self) -> None:
        record = read(Store(LocalPlace(self.store)), "rates")
        assert record is not None
        self.record = record


@pytest.fixture(scope="module")
def raced(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    folder = tmp_path_factory.mktemp("race")
    spec = folder / "rates.yaml"
    spec.write_text(RATES)
    result = command("run", spec, "--until-resolved", "--store", folder / "store")
    assert result.returncode == 0, result.stdout + result.stderr
    return Ended(folder / "store", spec, result.stdout)


def looks_in(store: Path) -> int:
    record = read(Store(LocalPlace(store)), "rates")
    return 0 if record is None else len(record.looks)


def epochs_in(store: Path) -> int:
    return sum(state.epochs_done for state in Store(LocalPlace(store)).run_states().values())


def seeds_in(store: Path) -> dict[str, list[int]]:
    found = defaultdict(list)
    for state in Store(LocalPlace(store)).run_states().values():
        found[str(state.row["optimizer.lr"])].append(state.seed)
    return {rate: sorted(seeds) for rate, seeds in found.items()}


def test_seeds_are_trained_where_the_ranking_is_undecided(raced: Ended) -> None:
    assert seeds_in(raced.store) == {
        "1e-07": list(range(4)),
        "0.003": list(range(6)),
        "0.004": list(range(6)),
    }
    assert raced.record.seeds == (4, 6, 6)
    assert raced.record.state == "seeds spent"
    assert "round 2 of at most 2: seeds 4–5 of lr 0.003, lr 0.004" in raced.said
    assert "not resolved between lr 0.003, lr 0.004 with the 6 seeds allowed" in raced.said


def test_new_seeds_of_a_config_are_stacks_of_their_own_and_of_the_width_given(raced: Ended) -> None:
    stacks = {state.stack for state in Store(LocalPlace(raced.store)).run_states().values()}
    assert stacks == {(0, 1, 2), (3,), (4, 5)}


def test_the_report_has_unequal_seeds_and_says_why(raced: Ended) -> None:
    folder = raced.store / "sweeps" / "rates"
    rows = tables.decode("summary", (folder / "summary.parquet").read_bytes()).to_pylist()
    counts = {
        json.loads(row["label"])["optimizer.lr"]: row["n"]
        for row in rows
        if (row["metric"], row["split"]) == ("accuracy", "validation")
    }
    assert tuple(counts[rate] for rate in (1e-7, 0.003, 0.004)) == raced.record.seeds
    text = (folder / "report.md").read_text()
    assert "Seeds were added where the ranking was undecided" in text
    assert "sweeps run spec.yaml --until-resolved" in text
    pairs = tables.decode("comparisons", (folder / "comparisons.parquet").read_bytes()).to_pylist()
    shared = {row["n"] for row in pairs if "1e-07" in row["label_a"] + row["label_b"]}
    assert shared == {raced.record.seeds[0]}, "compared on the seeds that both have"


def test_status_and_plan_show_the_state_of_each_config(raced: Ended, command: Command) -> None:
    options = (raced.spec, "--store", raced.store)
    text = command("status", *options).stdout
    assert "ranking by accuracy on validation" in text
    assert "out at" in text
    status = json.loads(command("status", *options, "--json").stdout)
    assert status["resolution"]["state"] == "seeds spent"
    assert status["resolution"]["seeds"] == list(raced.record.seeds)
    assert status["cells_done"] == status["cells"] == sum(raced.record.seeds)
    plan = json.loads(command("plan", *options, "--until-resolved", "--json").stdout)
    assert (plan["runs_done"], plan["epochs_to_train"]) == (sum(raced.record.seeds), 0)
    assert plan["resolution"]["looks"] == status["resolution"]["looks"]


def test_the_same_command_again_decides_the_same_and_trains_nothing(
    raced: Ended, command: Command
) -> None:
    folder = raced.store / "sweeps" / "rates"
    before = {name: (folder / name).read_bytes() for name in (FILE, "cells.parquet")}
    result = command("run", raced.spec, "--until-resolved", "--store", raced.store)
    assert result.returncode == 0
    assert "round" not in result.stdout, "no Ray, no training"
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_a_race_stopped_anywhere_asks_for_the_same_seeds(raced: Ended, parse_text: Parse) -> None:
    """The store as it was after each number of runs: what is planned then is a part of the end."""
    spec = parse_text(RATES)
    assert spec.resolve is not None
    sweep = open_sweep(spec, [], Console(quiet=True))
    whole, record = current(sweep, spec.resolve, Store(LocalPlace(raced.store)))
    assert record.looks == raced.record.looks
    race = make_race(spec, spec.resolve, sweep.fingerprint)
    asked = [{cell.run_id for cell in race.cells(record.looks[:number])} for number in range(3)]
    assert asked[0] < asked[1] == asked[2] == {cell.run_id for cell in whole}


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    """Start a sweep and come back when its first look has asked for more seeds."""
    started: list[Driver] = []

    def begin(store: Path, spec: Path) -> Driver:
        options = [str(spec), "--until-resolved", "--store", str(store)]
        driver = launch(options, environment, tmp_path / "driver.log")
        started.append(driver)
        deadline = time.monotonic() + 120
        while not looks_in(store):
            assert driver.process.poll() is None, (tmp_path / "driver.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return driver

    yield begin
    for driver in started:
        driver.end()


def test_a_driver_killed_between_rounds_ends_with_the_same_seeds_and_rows(
    raced: Ended,
    start: Callable[..., Driver],
    command: Command,
    run_rows: Callable[..., Any],
    assert_near: Callable[..., None],
    tmp_path: Path,
) -> None:
    store = tmp_path / "store"
    driver = start(store, raced.spec)
    os.killpg(driver.process.pid, signal.SIGKILL)
    assert driver.gone(within=60), "what the driver started ends with it"
    assert 12 * 5 <= epochs_in(store) < epochs_in(raced.store), "killed in the second round"
    result = command("run", raced.spec, "--until-resolved", "--store", store)
    assert result.returncode == 0, result.stdout + result.stderr
    again = Ended(store, raced.spec, result.stdout)
    assert again.record.seeds == raced.record.seeds
    assert [look.racing for look in again.record.looks] == [
        look.racing for look in raced.record.looks
    ]
    assert again.record.changed == ()
    ids = Store(LocalPlace(raced.store)).run_ids()
    assert Store(LocalPlace(store)).run_ids() == ids
    for run_id in ids:
        assert_near(run_rows(store, run_id), run_rows(raced.store, run_id))


def test_a_plain_run_of_the_spec_is_its_grid_again(raced: Ended, command: Command) -> None:
    """Last of those that use the store: the record of added seeds goes, their runs stay."""
    result = command("run", raced.spec, "--store", raced.store)
    assert result.returncode == 0, result.stdout + result.stderr
    status = json.loads(command("status", raced.spec, "--store", raced.store, "--json").stdout)
    assert (status["resolution"], status["cells"]) == (None, 12)
    assert len(Store(LocalPlace(raced.store)).run_ids()) == sum(raced.record.seeds)


def test_a_round_with_a_failed_run_is_the_last_until_the_same_command_mends_it(
    parse_text: Parse, tmp_path: Path
) -> None:
    """Seed 3 of one config is missing: its look waits, whatever the others say."""
    spec = parse_text(RATES)
    assert spec.resolve is not None
    sweep = open_sweep(spec, [], Console(quiet=True))
    store = Store.open(str(tmp_path / "store"), create=True)
    cells, record = current(sweep, spec.resolve, store)
    assert (len(cells), record.looks) == (12, ())
    stacks = plan_cells(sweep, cells, store, 2).stacks
    for number, stack in enumerate(stacks):
        seeds = stack.seeds[:-1] if number == 0 else stack.seeds
        if seeds:
            task = sweep.task(replace(stack, seeds=seeds), store, None, width=len(seeds))
            run_stack(task, lambda _report: None)
    cells, record = current(sweep, spec.resolve, store)
    assert (len(cells), record.looks) == (12, ())
    for stack in plan_cells(sweep, cells, store, 2).stacks:
        run_stack(sweep.task(stack, store, None, width=len(stack.seeds)), lambda _report: None)
    cells, record = current(sweep, spec.resolve, store)
    assert [look.seeds for look in record.looks] == [4]
    assert len(cells) > 12

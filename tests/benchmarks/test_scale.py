"""Small versions of the benchmarks of scale: what they measure happens."""

from __future__ import annotations

from pathlib import Path

import pytest

from cifake.places import open_place
from tests.benchmarks.aggregating import aggregating
from tests.benchmarks.asking import asking
from tests.benchmarks.scheduling import scheduling
from tests.benchmarks.slots import slots
from tests.benchmarks.traffic import CountingProxy
from tests.object_store import BUCKET, ObjectStore

pytestmark = pytest.mark.heavy


def test_a_finished_sweep_is_asked_for_again_and_timed(tmp_path: Path) -> None:
    outcome = asking(tmp_path / "asked", runs=20, repeats=1)
    assert outcome.unit == "s"
    assert 0 < outcome.value < 60
    reports = list((tmp_path / "asked" / "store" / "sweeps").glob("*/report.md"))
    assert len(reports) == 1, "the command went on to its report"


def test_a_sweep_with_merged_tables_is_aggregated_whole_and_timed(tmp_path: Path) -> None:
    folder = tmp_path / "aggregated"
    seconds, cpu, memory, curves, report = aggregating(folder, runs=20, epochs=3, repeats=1)
    assert seconds.name == "aggregate 20 runs × 3 epochs, 0.0 million thresholds"
    assert 0 < seconds.value < 60
    assert 0 < cpu.value < 60
    assert cpu.met is None
    assert 0.05 < memory.value < 4, "gigabytes of one process"
    assert 0 < curves.value < 60
    assert 0 < report.value < 60
    written = list((folder / "store" / "sweeps" / "aggregated").glob("*.parquet"))
    assert {path.stem for path in written} >= {"cells", "summary"}


def test_cells_that_train_nothing_are_scheduled_and_timed() -> None:
    seconds, growth, memory = scheduling(few=10, many=200, repeats=1)
    assert 0 < seconds.value < 5
    assert growth.ratio is not None
    assert growth.ratio < 1, "what a driver does once is shared by more cells"
    assert memory.unit == "KB"


def test_trials_that_sleep_share_slots_and_are_timed() -> None:
    taken, started = slots((2,), each=2, seconds=0.5, repeats=1)
    assert taken.baseline == 1.0
    assert 1.0 <= taken.value < 30, "two trials of half a second, one after another"
    assert 0 < started.value < 60


def test_requests_to_an_object_store_are_counted_by_kind(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = CountingProxy(object_store.ports["s3"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    place = open_place(f"s3://{BUCKET}/counted")
    for number in range(3):
        place.write(f"{number}", b"x" * 100_000)
    assert place.read("1") == b"x" * 100_000
    assert place.files() == ["0", "1", "2"]
    place.remove("0")
    assert {name: proxy.counts[name] for name in ("PUT", "GET", "LIST", "DELETE")} == {
        "PUT": 3, "GET": 1, "LIST": 1, "DELETE": 1,
    }  # fmt: skip
    assert 300_000 < proxy.counts["sent"] < 320_000
    assert 100_000 < proxy.counts["received"] < 120_000
    proxy.close()

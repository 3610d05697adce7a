"""Small versions of the benchmarks of scale: what they measure happens."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks.aggregating import aggregating
from tests.benchmarks.asking import asking
from tests.benchmarks.scheduling import scheduling


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

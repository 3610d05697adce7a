"""The documents are in step with the code and the committed results, and a stale one is told."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from sweeps.statistics import paired_t_power

ROOT = Path(__file__).parents[1]


def made(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `.ci/docs.py` of a checkout, with the packages of this one."""
    return subprocess.run(
        [sys.executable, str(root / ".ci" / "docs.py"), *options],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the documents are made of and from."""
    for name in (".ci", "results"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "README.md", tmp_path)
    return tmp_path


def table(checkout: Path) -> list[list[str]]:
    """The rows of the README's first table."""
    text = (checkout / "README.md").read_text()
    part = text.partition("<!-- results:begin -->")[2].partition("<!-- results:end -->")[0]
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in part.split("\n")[3:-1]
    ]


def test_the_documents_are_in_step() -> None:
    result = made(ROOT, "--check")
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_result_that_changes_makes_the_readme_stale_until_it_is_made_again(
    checkout: Path,
) -> None:
    path = checkout / "results" / "topologies" / "summary.parquet"
    summary = pq.read_table(path)
    place = summary.column_names.index("mean")
    halved = pc.multiply(summary["mean"], pa.scalar(0.5))
    pq.write_table(summary.set_column(place, "mean", halved), path)
    stale = made(checkout, "--check")
    assert stale.returncode == 1
    assert "README.md is not in step" in stale.stdout
    before = table(checkout)
    assert made(checkout).returncode == 0
    assert made(checkout, "--check").returncode == 0
    after = table(checkout)
    assert [row[:3] for row in after] == [row[:3] for row in before]
    for old, new in zip(before, after, strict=True):
        changed = old[0].startswith("[topologies]")
        expected = float(old[3].split()[0]) / (2 if changed else 1)
        assert float(new[3].split()[0]) == pytest.approx(expected, abs=0.01), new
    assert any(row[0].startswith("[topologies]") for row in after)


def test_several_studies_feed_one_table(checkout: Path) -> None:
    (checkout / "results" / "table.yaml").write_text(
        "- {study: placements, best: 2}\n"
        "- {study: notes, rows: ends}\n"
        "- {study: notes-loader, rows: ends}\n"
        "- {study: topologies, best: 2}\n"
    )
    assert made(checkout).returncode == 0
    rows = [(row[0].partition("]")[0].strip("["), *row[1:3]) for row in table(checkout)]
    assert rows[0] == ("placements", "srm · after_pool2", "10"), "the best on validation"
    assert {row[0] for row in rows[2:]} == {"notes", "notes-loader", "topologies"}
    assert ("topologies", "conv layers 3 · filters 64", "3") in rows, "though both have 64"
    assert ("notes", "batch size 32 · mini", "1") in rows
    assert ("notes", "batch size 32 · base", "10") in rows
    assert ("notes", "batch size 32 · base", "2") not in rows
    assert ("notes-loader", "frozen_batches", "2") in rows


def test_only_configs_with_the_values_asked_for_are_shown(checkout: Path) -> None:
    (checkout / "results" / "table.yaml").write_text(
        "- {study: topologies, rows: ends, where: {model_options.filters: [16, 64],"
        " model_options.conv_layers: [2]}}\n"
        "- {study: recalibration, rows: ends, where: {attention_options.init: [null]}}\n"
    )
    assert made(checkout).returncode == 0
    assert sorted(row[1] for row in table(checkout)) == [
        "batchnorm · both",
        "conv layers 2 · filters 16",
        "conv layers 2 · filters 64",
        "eca · both",
        "no attention",
        "se · both",
        "static_gate · both",
    ]


@pytest.mark.parametrize(
    ("choice", "parts"),
    [
        ("- {study: nowhere, rows: ends}", ["entry 1", "nowhere", "summary.parquet"]),
        ("- {study: placements}", ["exactly one of rows, lengths, best"]),
        ("- {study: placements, lengths: [7]}", ["placements", "none of its rows"]),
        ("- {study: notes-loader, best: 1}", ["notes-loader", "none of its rows"]),
        ("- {study: notes, rows: ends, where: {nothing: [1]}}", ["notes", "none of its rows"]),
        ("- {studdy: placements, rows: ends}", ["0.studdy", "0.study"]),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused(
    checkout: Path, choice: str, parts: list[str]
) -> None:
    (checkout / "results" / "table.yaml").write_text(choice)
    result = made(checkout, "--check")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert all(part in result.stderr for part in parts), result.stderr


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "results").glob("*/comparisons.parquet")),
    ids=lambda path: path.parent.name,
)
def test_kept_seeds_needed_are_those_of_the_effect_sizes_and_the_correction(path: Path) -> None:
    rows = pq.read_table(path).to_pylist()
    for row in rows:
        size, alpha = abs(row["cohens_d"] or 0.0), 0.05 / max(1, row["comparisons"])
        n = row["seeds_needed"]
        if n is not None and n > 2:
            assert paired_t_power(size, n, alpha) >= 0.8 > paired_t_power(size, n - 1, alpha)
    said = re.findall(r"takes about ([\d,]+) seeds", (path.parent / "report.md").read_text())
    assert {int(n.replace(",", "")) for n in said} <= {row["seeds_needed"] for row in rows}

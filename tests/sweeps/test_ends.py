"""Configs that are trained for unequal lengths are compared at the longest of each."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy import stats

from sweeps.report import frames, latex
from sweeps.report.findings import BETTER, answer, marks
from sweeps.report.markdown import markdown
from sweeps.report.shown import shown
from sweeps.report.table_of_configs import ConfigTable, config_table
from sweeps.spec import Spec
from sweeps.statistics import holm, paired_each
from tests.sweeps.contents import Drawn

# Of three configs the third is much better, and stops after one epoch of three.
UNEQUAL = Drawn(longest={2: 1}, edge=1.5, seeds=8)
ENDS = (3, 3, 1)


@pytest.fixture
def baseline(parse_text: Callable[..., Spec]) -> Spec:
    return parse_text(
        "name: a\ndata: {train: demo, validation: 10}\nfixed: {epochs: 3}\n"
        "scientific: {attention: [none, srm], placement: [after_pool1, both]}\n"
        "compare: {baseline: {attention: none}}\n"
    )


def values(config: int, split: str = "test") -> list[float]:
    """The accuracy of each seed of a config at its longest."""
    rows = UNEQUAL.evaluations.filter(
        (pc.field("epoch") == ENDS[config])
        & (pc.field("split") == split)
        & pc.field("run_id").isin([f"run-{config:03}-{seed:03}" for seed in range(UNEQUAL.seeds)])
    )
    return [row["accuracy"] for row in sorted(rows.to_pylist(), key=lambda row: row["run_id"])]


def at_ends(table: pa.Table, split: str = "test") -> list[dict[str, object]]:
    chosen = pc.field("epochs").is_null() & (pc.field("split") == split)
    rows: list[dict[str, object]] = table.filter(
        chosen & (pc.field("metric") == "accuracy")
    ).to_pylist()
    return rows


def table_of(drawn: Drawn, spec: Spec | None = None) -> ConfigTable:
    found = config_table(shown(drawn.content(spec)))
    assert found is not None
    return found


def test_every_pair_is_compared_and_corrected_at_the_longest_of_each() -> None:
    rows = at_ends(UNEQUAL.content().comparisons)
    pairs = [(0, 1), (0, 2), (1, 2)]
    found = paired_each(*(np.asarray([values(p[side]) for p in pairs]) for side in (0, 1)))
    corrected = holm(np.asarray([each.p for each in found]))
    assert [row["p"] for row in rows] == [each.p for each in found]
    assert [row["difference"] for row in rows] == [each.difference for each in found]
    assert [row["p_holm"] for row in rows] == list(corrected)
    assert {row["n"] for row in rows} == {UNEQUAL.seeds}, "milestones are not counted as runs"
    assert {str(row["family"]).partition(":")[0] for row in rows} == {
        "accuracy on demo test at each config's longest length"
    }


def test_each_length_stays_a_family_of_its_own() -> None:
    rows = UNEQUAL.content().comparisons.to_pylist()
    counts = {
        length: {r["comparisons"] for r in rows if r["epochs"] == length} for length in (1, 3)
    }
    assert counts == {1: {3}, 3: {1}}


def test_configs_of_one_length_are_compared_at_it_alone() -> None:
    content = Drawn().content()
    for table in (content.comparisons, content.ranking):
        assert set(table["epochs"].to_pylist()) == {1, 3}


def test_the_ranking_holds_all_configs_and_the_best_is_the_best_of_the_ends() -> None:
    rows = at_ends(UNEQUAL.content().ranking)
    means = [float(np.mean(values(config))) for config in range(3)]
    assert [row["mean"] for row in rows] == pytest.approx(means)
    assert [row["rank"] for row in rows] == [3 - sorted(means).index(mean) for mean in means]
    assert max(means) == means[2]


def test_predictions_are_compared_at_the_length_of_each_config() -> None:
    content = UNEQUAL.content(labelled=True)
    rows = at_ends(content.comparisons)
    assert [row["mcnemar_runs"] for row in rows] == [None, 8, 8], "those with the best"
    others = content.comparisons.filter(pc.field("epochs").is_valid())
    assert set(others["mcnemar_runs"].to_pylist()) == {None}
    worse = [
        sum(_differ((config, ENDS[config], seed), (2, 1, seed)) for seed in range(8))
        for config in (0, 1)
    ]
    assert [row["mcnemar_different"] for row in rows[1:]] == worse


def _differ(one: tuple[int, int, int], other: tuple[int, int, int]) -> bool:
    """Whether two runs, each a config, an epoch and a seed, differ by an exact McNemar's test."""
    images = np.resize(np.asarray([0, 1], np.int8), UNEQUAL.images)
    right = [
        (UNEQUAL.probabilities((config, seed), epoch, 1, images) >= 0.5) == (images == 1)
        for config, epoch, seed in (one, other)
    ]
    only = [int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())]
    return bool(stats.binomtest(only[0], sum(only)).pvalue < 0.05) if sum(only) else False


def test_the_answer_names_the_best_of_all_and_the_length_of_each() -> None:
    told = answer(UNEQUAL.content().results)
    assert told.startswith("On demo test, srm · both after 1 epoch is best with accuracy")
    assert "points above srm · after_pool1 after 3 epochs (" in told


def test_the_answer_tells_how_both_do_at_the_longest_length_that_they_have_in_common() -> None:
    content = UNEQUAL.content()
    (row,) = [
        row
        for row in content.comparisons.to_pylist()
        if (row["epochs"], row["split"], row["metric"]) == (1, "test", "accuracy")
        and "both" in row["label_b"]
        and "after_pool1" in row["label_a"]
    ]
    assert answer(content.results).endswith(
        f"After 1 epoch, the longest that both have, it is {-100 * row['difference']:.2f} points "
        f"above the other (95 % interval {-100 * row['high']:.2f} to {-100 * row['low']:.2f}, "
        f"corrected p = {row['p_holm']:.2g})."
    )
    assert "that both have" not in answer(Drawn(edge=1.5).content().results)


def test_marks_at_the_longest_come_from_all_at_their_longest(baseline: Spec) -> None:
    content = UNEQUAL.content(baseline)
    found = marks(content.results)
    rows = content.summary.filter(
        (pc.field("split") == "test") & (pc.field("metric") == "accuracy")
    ).to_pylist()
    # After one epoch the third is held against the baseline after three, which is its longest.
    held = {
        (json.loads(row["label_a"])["placement"], row["significant"])
        for row in at_ends(content.comparisons)
    }
    assert ("both", True) in held
    marked = {(json.loads(row["label"])["placement"], row["epochs"]): found.of(row) for row in rows}
    assert marked["both", 1] == BETTER
    assert marked["none", 1] == marked["none", 3] == ""
    assert "each of 2 configs with the baseline" in found.legend


def test_configs_have_letters_only_where_every_pair_was_compared(baseline: Spec) -> None:
    every, some = table_of(Drawn(edge=1.5)), table_of(Drawn(edge=1.5), baseline)
    assert "group" in dict(every.columns)
    assert "group" not in dict(some.columns)
    assert {len(row.cells) for row in some.rows} == {len(some.parameters) + len(some.columns)}


def test_a_legend_says_what_the_best_is_the_best_of() -> None:
    legend = marks(UNEQUAL.content().results).legend
    assert "the best of its length, or of all where it is a config's longest," in legend
    assert "or of all" not in marks(Drawn(edge=1.5, seeds=8).content().results).legend


def test_the_page_tells_one_difference_a_row() -> None:
    table = table_of(UNEQUAL)
    columns = [*table.parameters, *(name for name, _ in table.columns)]
    at = {name: columns.index(name) for name in ("epochs", "difference", "evaluated on")}
    rows = {
        (row.place, row.epochs): row.cells[at["difference"]].text
        for row in table.rows
        if row.where == "demo test"
    }
    assert len(rows) == 5
    assert rows[2, 1] == "reference", "the best of all at their longest"
    for config in (0, 1):
        difference = 100 * (np.mean(values(config)) - np.mean(values(2)))
        assert rows[config, 3] == f"{difference:+.2f}".replace("-", "−")
    assert "rankings at each config's longest length agree" in table.stability
    drawn = frames.differences(shown(UNEQUAL.content()))
    assert dict(zip(drawn["config"], drawn["reference"], strict=True)) == {
        "no attention": "srm · both",
        "srm · after_pool1": "srm · both",
    }


def test_reports_in_text_tell_each_pair_of_ends_once_and_both_lengths() -> None:
    content = UNEQUAL.content()
    text = markdown(content, [])
    assert "| srm · after_pool1 after 3 epochs | srm · both after 1 epoch |" in text
    assert "accuracy on demo test at each config's longest length, then at one: a − b" in text
    table = text.partition("## Comparisons")[2].partition("accuracy on")[0]
    pairs = re.findall(r"after (\d) epochs? \| .* after (\d) epochs? \|", table)
    assert [tuple(map(int, pair)) for pair in pairs] == [(3, 3), (3, 1), (3, 1), *[(1, 1)] * 3]
    (first, *_) = latex.comparisons(content)
    lengths = [row[2] for block in first.groups for row in block]
    assert lengths == ["3", "3, 1", "3, 1", "1", "1", "1"]

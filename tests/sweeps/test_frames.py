"""What charts draw, against what the rows say."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from sklearn.calibration import calibration_curve

from cifake import tables
from sweeps.objectives import Reached
from sweeps.proposals import Proposal
from sweeps.report import charts, frames, race_frames, search_frames
from sweeps.report.content import Content
from sweeps.report.shown import MAX_COLOURED, Shown, shown
from sweeps.spec import Dimension, Search, Spec
from tests.sweeps.contents import NONE, SRM, Drawn, run_id
from tests.sweeps.reported import raced

Parse = Callable[..., Spec]
TWO_SETS = {"demo": (0, 1), "photos": (1,)}


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    return Drawn(test_sets=TWO_SETS, edge=0.3)


@pytest.fixture(scope="module")
def stand(drawn: Drawn) -> Shown:
    return shown(drawn.content())


def one(rows: pd.DataFrame, **values: Any) -> pd.Series[Any]:
    for name, value in values.items():
        rows = rows[rows[name] == value]
    assert len(rows) == 1
    return rows.iloc[0]


def scores_of(drawn: Drawn, label: int, **keys: Any) -> list[float]:
    ids = {run_id(label, seed) for seed in range(drawn.seeds)}
    return [
        row["accuracy"]
        for row in drawn.evaluations.to_pylist()
        if row["run_id"] in ids and all(row[key] == value for key, value in keys.items())
    ]


# Configs.


def test_configs_have_short_names_and_stand_best_first(stand: Shown) -> None:
    assert list(stand.names.values()) == ["srm · both", "srm · after_pool1", "no attention"]
    assert stand.coloured == ("no attention", "srm · after_pool1", "srm · both"), (
        "as they were asked for"
    )
    assert stand.datasets == (("demo", "test"), ("photos", "test"), ("demo", "validation"))


def test_names_are_distinct_where_values_are_alike() -> None:
    labels = ({"x": 1, "y": 2}, {"x": 2, "y": 1}, {"x": 1, "y": 1})
    names = shown(Drawn(labels=labels, seeds=1, lengths=(1,)).content()).names
    assert len(set(names.values())) == 3


def test_of_many_configs_the_best_are_coloured_and_the_rest_keep_their_lines() -> None:
    labels = [{"lr": n / 1000} for n in range(1, 13)]
    stand = shown(Drawn(labels=labels, seeds=2, lengths=(2,), edge=0.2).content())
    assert stand.coloured == tuple(list(stand.names.values())[:MAX_COLOURED])
    places = frames.learning_curves(stand).groupby("config")["place"].first()
    assert len(places) == len(labels)
    assert sorted(places) == [-1, -1, -1, -1, *range(MAX_COLOURED)]
    curves = frames.threshold_curves(stand)
    assert set(curves["config"]) == set(stand.coloured), "large tables are read of these alone"


# Curves.


def test_curves_are_means_over_runs_with_students_interval(drawn: Drawn, stand: Shown) -> None:
    curves = frames.learning_curves(stand)
    for split, epoch in (("validation", 2), ("test", 3)):
        row = one(curves, config="no attention", dataset="demo", split=split, epoch=epoch)
        values = scores_of(drawn, 0, dataset="demo", split=split, epoch=epoch)
        assert row["n"] == len(values) == 6
        assert row["mean"] == pytest.approx(np.mean(values))
        low, high = stats.t.interval(0.95, 5, np.mean(values), stats.sem(values))
        assert (row["low"], row["high"]) == pytest.approx((max(low, 0), min(high, 1)))


def test_one_seed_has_no_interval() -> None:
    curves = frames.learning_curves(shown(Drawn(seeds=1).content()))
    assert len(curves)
    assert curves[["low", "high"]].isna().all(axis=None)


def test_epochs_beyond_what_is_asked_for_are_not_drawn(drawn: Drawn) -> None:
    short = drawn.cells.filter(np.asarray(drawn.cells["epochs"]) == 1)
    curves = frames.learning_curves(shown(drawn.content(cells=short)))
    assert set(curves["epoch"]) == {1}


def test_a_missing_run_leaves_the_mean_of_the_others() -> None:
    whole, fewer = Drawn(), Drawn(missing=[(0, 5)])
    row = one(
        frames.learning_curves(shown(fewer.content())), config="no attention", split="test", epoch=3
    )
    assert row["n"] == 5
    values = scores_of(whole, 0, dataset="demo", split="test", epoch=3)
    assert row["mean"] == pytest.approx(np.mean(values[:5]))


def test_long_curves_are_thinned_but_keep_their_ends() -> None:
    long = Drawn(labels=(NONE,), seeds=1, lengths=(150,), images=6)
    curves = frames.learning_curves(shown(long.content()))
    validation = curves[curves["split"] == "validation"]["epoch"]
    assert len(validation) == frames.MAX_POINTS
    assert (validation.min(), validation.max()) == (1, 150)


def test_threshold_curves_read_the_longest_length(drawn: Drawn, stand: Shown) -> None:
    curves = frames.threshold_curves(stand)
    at_half = one(curves, config="no attention", dataset="demo", score="accuracy", threshold=0.5)
    values = scores_of(drawn, 0, dataset="demo", split="test", epoch=3)
    assert at_half["mean"] == pytest.approx(np.mean(values))
    assert set(curves["split"]) == {"test"}


def test_a_score_that_one_run_lacks_is_not_averaged_over_the_others(
    drawn: Drawn, stand: Shown
) -> None:
    curves = frames.threshold_curves(stand)
    assert (curves["n"] == drawn.seeds).all()
    assert "f1" not in set(curves[curves["dataset"] == "photos"]["score"])


def test_reliability_is_what_scikit_learn_finds() -> None:
    alone = Drawn(labels=(NONE,), seeds=1, lengths=(1,), images=3000)
    found = frames.reliability(shown(alone.content()))
    (_, labels, probabilities) = next(e for e in alone.evaluated if e[0]["split"] == "test")
    observed, predicted = calibration_curve(labels, probabilities, n_bins=frames.BINS)
    assert found["mean"].to_numpy() == pytest.approx(observed, abs=1e-9)
    assert found["predicted"].to_numpy() == pytest.approx(predicted, abs=0.005)
    assert found["images"].sum() == pytest.approx(3000)


def test_sets_of_one_class_have_no_reliability(stand: Shown) -> None:
    assert set(frames.reliability(stand)["dataset"]) == {"demo"}


def test_the_first_epoch_is_drawn_step_by_step(stand: Shown) -> None:
    rows = frames.difficulty(stand)
    none = rows[rows["config"] == "no attention"]
    assert none["images_seen"].tolist() == [16 * n for n in range(1, 9)]
    wanted = [0.7 - 0.01 * n - 0.001 * 2.5 for n in range(1, 9)]
    assert none["mean"].to_numpy() == pytest.approx(wanted)


# Tables.


def test_classes_are_read_at_the_longest_length(drawn: Drawn, stand: Shown) -> None:
    rows = frames.class_scores(stand)
    assert set(rows["name"]) == {"cat", "dog", "ship"}
    row = one(rows, config="no attention", dataset="demo", split="test", name="cat")
    ids = {run_id(0, seed) for seed in range(6)}
    values = [
        each["accuracy"]
        for each in drawn.large["classes"].to_pylist()
        if each["run_id"] in ids
        and (each["epoch"], each["dataset"], each["split"], each["name"])
        == (3, "demo", "test", "cat")
    ]
    assert row["mean"] == pytest.approx(np.mean(values))


def test_transfer_tells_what_is_lost_on_the_way(drawn: Drawn, parse_text: Parse) -> None:
    spec = parse_text("name: a\ndata: {train: demo, validation: 10}\nfixed: {epochs: 3}\n")
    rows = frames.transfer(shown(drawn.content(spec)))
    assert rows["dataset"].tolist() == ["demo", "photos"] * 3
    own, other = (one(rows, config="no attention", dataset=name) for name in ("demo", "photos"))
    assert own["behind"] == 0
    assert other["behind"] == pytest.approx(other["mean"] - own["mean"])
    assert (bool(own["one_class"]), bool(other["one_class"])) == (False, True)
    assert frames.transfer(shown(Drawn().content())).empty, "one set has nowhere to go"


def test_placements_stand_in_the_order_of_the_specification(stand: Shown) -> None:
    rows = frames.placements(stand)
    assert rows["placement"].tolist() == ["none", "after_pool1", "both"]
    assert rows["architecture"].tolist() == ["none", "srm", "srm"]
    assert frames.placements(shown(Drawn(labels=(NONE,)).content())).empty


def test_the_interval_for_other_images_is_turned_with_the_difference(drawn: Drawn) -> None:
    made = drawn.content()
    rows = made.comparisons.to_pylist()
    for row in rows:
        row["total_low"], row["total_high"] = row["low"] - 0.01, row["high"] + 0.02
    wider = replace(made, comparisons=tables.TABLES["comparisons"].from_rows(rows))
    found = frames.differences(shown(wider))
    for row in found.to_dict("records"):
        gaps = (row["low"] - row["total_low"], row["total_high"] - row["high"])
        assert sorted(gaps) == pytest.approx([0.01, 0.02])
        assert row["total_low"] < row["difference"] < row["total_high"]
    assert "The thin line that ends in ticks" in charts.differences(shown(wider)).caption  # type: ignore[union-attr]
    assert "The thin line" not in charts.differences(shown(made)).caption  # type: ignore[union-attr]


def test_differences_of_a_race_are_those_to_its_leader(drawn: Drawn) -> None:
    configs = [json.dumps(dict(label)) for label in drawn.labels]
    values = [[0.5 + 0.01 * ((n * k) % 5) for n in range(4)] for k in (1, 2, 3)]
    looked = raced(configs, [[v + 0.3 for v in values[0]], *values[1:]], [4])
    found = frames.differences(shown(drawn.content(resolution=looked)))
    assert set(found["reference"]) == {"no attention"}
    assert list(found["config"]) == ["srm · both", "srm · after_pool1"]
    assert (found["difference"] > 0).all(), "they are better on test, where nothing was decided"


FIVE = Drawn(
    labels=[{"optimizer.lr": n / 100} for n in range(1, 6)], seeds=1, lengths=(1,), images=4
)


@cache
def _five() -> Shown:
    return shown(FIVE.content())


@given(
    values=arrays(np.float64, st.tuples(st.integers(2, 5), st.just(6)), elements=st.integers(0, 20))
)
@settings(deadline=None)
def test_every_config_has_a_row_at_every_look_until_it_leaves(values: np.ndarray) -> None:
    whole = _five()
    configs = list(whole.names)[: len(values)]
    looked = raced(configs, (values / 20).tolist(), [3, 6])
    stand = replace(whole, content=replace(whole.content, resolution=looked))
    found = race_frames.lanes(stand)
    for number, label in enumerate(configs):
        own = found[found["config"] == stand.names[label]]
        stays = [look.seeds for look in looked.looks if look.racing[number]]
        left = [look.seeds for look in looked.looks if look.beaten_by[number] is not None]
        assert list(own["look"]) == [*stays, *left]
        assert (own["state"].iloc[-1] == "out") == bool(left)
        assert set(own["seeds"]) == {looked.seeds[number]}
    lasted = list(found.groupby("config", sort=False)["look"].max())
    assert lasted == sorted(lasted, reverse=True), "who stayed longest is first"


@pytest.mark.parametrize("baseline", [{}, {"attention": "none"}])
def test_differences_are_the_others_minus_the_reference(
    parse_text: Parse, baseline: dict[str, str]
) -> None:
    drawn = Drawn(edge=1.5)
    compare = f"compare: {{baseline: {json.dumps(baseline)}}}" if baseline else ""
    text = "name: a\ndata: {train: demo, validation: 10}\nfixed: {epochs: 3}\n"
    grid = "scientific: {attention: [none, srm], placement: [after_pool1, both]}\n"
    spec = parse_text(text + grid + compare)
    rows = frames.differences(shown(drawn.content(spec)))
    at = {"dataset": "demo", "split": "test", "epoch": 3}
    reference = 0 if baseline else 2
    assert set(rows["reference"]) == {("no attention", "", "srm · both")[reference]}
    names = ("no attention", "srm · after_pool1", "srm · both")
    for number in {0, 1, 2} - {reference}:
        row = one(rows, config=names[number])
        a, b = (np.asarray(scores_of(drawn, n, **at)) for n in (number, reference))
        assert row["difference"] == pytest.approx((a - b).mean())
        assert row["low"] < row["difference"] < row["high"]
        assert row["p"] == pytest.approx(
            stats.permutation_test(
                (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
            ).pvalue
        )


def test_effects_and_shares_of_parameters_are_those_of_the_table(stand: Shown) -> None:
    effects = frames.main_effects(stand)
    lengths = effects[effects["term"] == "epochs"].set_index("level")["effect"]
    assert lengths["3"] > 0 > lengths["1"], "longer is better in what was drawn"
    shares = frames.variance(stand)
    assert {"epochs", "attention", "placement", "seed"} <= {*shares["term"]}
    assert shares["term"].iloc[-1] == "residual"
    assert shares["share"][:-1].is_monotonic_decreasing


# Costs.


def test_the_front_of_costs_is_what_no_point_beats(stand: Shown) -> None:
    rows = frames.costs(stand)
    assert len(rows) == 6
    for row in rows.to_dict("records"):
        others = rows[(rows["seconds"] <= row["seconds"]) & (rows["mean"] >= row["mean"])]
        beaten = others[(others["seconds"] < row["seconds"]) | (others["mean"] > row["mean"])]
        assert row["pareto"] == beaten.empty
    assert one(rows, config="srm · both", epochs=3)["seconds"] == 9


def test_bars_in_one_lane_never_overlap(stand: Shown) -> None:
    bars = frames.timeline(stand)
    assert bars["runs"].sum() == 18
    for _, lane in bars.sort_values("start").groupby(["host", "lane"]):
        assert (lane["start"].to_numpy()[1:] >= lane["end"].to_numpy()[:-1]).all()
    assert bars["lane"].max() == 2, "two runs at a time were drawn"


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), max_size=20))
def test_there_are_as_many_lanes_as_are_needed(spans: list[tuple[int, int]]) -> None:
    starts = sorted((start, start + length) for start, length in spans)
    rows = pd.DataFrame(starts, columns=["start", "end"])
    lanes = frames._lanes(rows)
    at_once = [sum(s <= start < e for s, e in starts) for start, _ in starts]
    assert max(lanes, default=0) == max(at_once, default=0)
    for one_, (start, end) in zip(lanes, starts, strict=True):
        same = [o for o, lane in zip(starts, lanes, strict=True) if lane == one_]
        assert sum(s < end and start < e for s, e in same) == 1


def test_a_stack_that_paused_is_told_since_its_bar_spans_the_pause(drawn: Drawn) -> None:
    rows = drawn.run_rows.to_pylist()
    assert "more pause" not in timeline_caption(drawn.content())
    rows[0]["updated_at"] += datetime.timedelta(days=3)
    paused = drawn.content(runs=tables.TABLES["runs"].from_rows(rows))
    assert "1 bar holds more pause than training" in timeline_caption(paused)


def timeline_caption(content: Content) -> str:
    found = charts.timeline(shown(content))
    assert found is not None
    return found.caption


def test_a_failed_run_marks_its_bar() -> None:
    failed = Drawn(failed={(1, 2): "RuntimeError: no"})
    bars = frames.timeline(shown(failed.content()))
    assert bars["status"].value_counts().to_dict() == {"complete": 17, "failed": 1}


# Nothing.


def test_nothing_drawn_where_nothing_is(drawn: Drawn) -> None:
    nothing = {
        name: getattr(drawn.content(), name).slice(0, 0)
        for name in ("runs", "evaluations", "summary", "comparisons", "ranking", "effects")
    }
    stand = shown(replace(drawn.content(**nothing), read=lambda t, _: drawn.large[t].slice(0, 0)))
    for make in (
        frames.learning_curves,
        frames.threshold_curves,
        frames.reliability,
        frames.class_scores,
        frames.difficulty,
        frames.transfer,
        frames.placements,
        frames.differences,
        frames.main_effects,
        frames.variance,
        frames.costs,
        frames.timeline,
    ):
        assert make(stand).empty


# A search.

LR, KIND = "optimizer.lr", "attention"
SPACE = {
    LR: Dimension(log_uniform=[1e-3, 1e-1]),
    KIND: Dimension(choice=["none", "srm"]),
    "placement": Dimension(choice=["after_pool1", "both"], when={KIND: "srm"}),
}


def searched(drawn: Drawn, parse_text: Parse, mode: str = "max") -> Any:
    text = "name: a\ndata: {train: demo, validation: 10}\nfixed: {epochs: 2}\n"
    search = Search(trials=4, metric=["validation.auroc"], mode=[mode], space=SPACE)
    spec = replace(parse_text(text), search=search)
    labels = [
        {LR: 0.001, KIND: "none"},
        {LR: 0.1, KIND: "srm", "placement": "both"},
        {LR: 0.01, KIND: "srm", "placement": "after_pool1"},
        {LR: 0.05, KIND: "none"},
    ]
    values = [0.7, 0.9, 0.8, 0.95]
    cells = pd.DataFrame(
        {"label": [json.dumps(label, sort_keys=True) for label in labels], "nuisance": "{}"}
    ).assign(epochs=2, seed=0, config_id="c", run_id="r", stage="search", role="end")
    tried = [
        Proposal(
            label,
            Reached(1 if n == 3 else 2, {"validation.auroc": value}, {}),
            n == 3,
            2,
            {"validation.auroc": value - 0.1},
            {"validation.auroc": value + 0.1},
        )
        for n, (label, value) in enumerate(zip(labels, values, strict=True))
    ]
    order = [1, 2, 0, 3] if mode == "max" else [0, 2, 1, 3]
    table = type(drawn.cells).from_pandas(cells, preserve_index=False)
    return drawn.content(spec, cells=table, proposals=[tried[n] for n in order])


def test_proposals_are_told_in_the_order_in_which_they_were_made(
    drawn: Drawn, parse_text: Parse
) -> None:
    rows = search_frames.history(searched(drawn, parse_text))
    assert rows["number"].tolist() == [1, 2, 3, 4]
    assert rows["value"].tolist() == [0.7, 0.9, 0.8, 0.95]
    assert rows["stopped"].tolist() == [False, False, False, True]
    assert rows["best"].tolist() == [0.7, 0.9, 0.9, 0.9], "what was stopped is no best"
    least = search_frames.history(searched(drawn, parse_text, "min"))
    assert least["best"].tolist() == [0.7, 0.7, 0.7, 0.7]


def test_parallel_coordinates_lie_where_the_space_has_them(drawn: Drawn, parse_text: Parse) -> None:
    rows = search_frames.parallel(searched(drawn, parse_text))
    assert one(rows, proposal=1, axis=LR)["position"] == pytest.approx(1)
    assert one(rows, proposal=2, axis=LR)["position"] == pytest.approx(0.5), "on a log scale"
    assert one(rows, proposal=2, axis="placement")["position"] == 0
    assert one(rows, proposal=3, axis="placement")["position"] == search_frames.NOT_THERE
    assert set(rows["axis"]) == {*SPACE, "validation.auroc"}
    ticks = search_frames.parallel_ticks(searched(drawn, parse_text))
    assert set(ticks[ticks["axis"] == "placement"]["text"]) == {"after_pool1", "both", "–"}
    assert set(ticks[ticks["axis"] == LR]["text"]) == {"0.001", "0.1"}


def test_a_grid_has_no_charts_of_a_search(drawn: Drawn) -> None:
    content = drawn.content()
    assert search_frames.history(content).empty
    assert search_frames.parallel(content).empty
    assert search_frames.parallel_ticks(content).empty
    assert search_frames.importances(content).empty


def test_labels_are_the_tables_own(stand: Shown) -> None:
    assert json.dumps(dict(SRM)) in stand.names

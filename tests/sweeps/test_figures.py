"""Figures for a paper: what is drawn, that it is the data, and what the files are."""

from __future__ import annotations

import inspect
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import FillBetweenPolyCollection, LineCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from PIL import Image

from cifake import tables
from sweeps.objectives import Reached
from sweeps.proposals import Proposal
from sweeps.report import charts
from sweeps.report.content import Content
from sweeps.report.figures import DRAW, Drawing, drawings, font
from sweeps.report.figures.style import (
    COLOURS,
    DOUBLE,
    LINES,
    MARKERS,
    OTHER,
    SINGLE,
    lay_out,
    look,
    marker,
    plain,
    save,
    styled,
)
from sweeps.report.figures.time import HATCHES
from sweeps.spec import Spec
from tests.sweeps.reported import BOTH, NONE, POOL, content, raced, whole

Parse = Callable[..., Spec]

SEARCHED = """
name: a
data: {train: demo, validation: 10}
fixed: {epochs: 2}
search:
  trials: 6
  metric: validation.accuracy
  space:
    optimizer.lr: {log_uniform: [0.001, 0.1]}
    attention: {choice: [none, srm]}
    placement: {choice: [after_pool1, both], when: {attention: srm}}
"""


def drawn(made: Content) -> dict[str, Drawing]:
    return {each.name: each for each in drawings(made)}


def only_axes(drawing: Drawing) -> Axes:
    (axes,) = drawing.figure.axes
    return axes


def bands(axes: Axes) -> list[Any]:
    return [each for each in axes.collections if isinstance(each, FillBetweenPolyCollection)]


def lines_of(axes: Axes, colour: str) -> list[Any]:
    return [line for line in axes.get_lines() if line.get_color() == colour]


@pytest.fixture(scope="module")
def full() -> dict[str, Drawing]:
    """Every figure of a grid on two test sets."""
    return drawn(whole(datasets=("demo", "generators"), apart=True))


# What is drawn.


def test_every_chart_of_a_grid_is_drawn_with_what_stands_below_it(full: dict[str, Drawing]) -> None:
    assert set(full) == {
        "differences",
        "placements",
        "effects",
        "variance",
        "learning",
        "difficulty",
        "thresholds",
        "reliability",
        *(f"classes-{n}" for n in range(4)),
        "costs",
        "timeline",
        "transfer",
    }
    for drawing in full.values():
        assert len(drawing.caption) > 20
        assert drawing.title


def test_whatever_the_page_can_show_can_be_drawn() -> None:
    ids = set(re.findall(r'\bid=f?"(\w+)', inspect.getsource(charts)))
    assert len(ids) > 10
    assert ids == set(DRAW)


def test_where_there_is_nothing_nothing_is_drawn() -> None:
    nothing = content(missing=[(c, s) for c in range(3) for s in range(6)])
    assert drawn(nothing) == {}


def test_lines_run_through_the_means_of_the_runs() -> None:
    made = content([NONE, POOL], [3], 4)
    axes = drawn(made)["learning"].figure.axes[-1]
    assert axes.get_title() == "demo validation"
    for place, label in enumerate((NONE, POOL)):
        (line,) = lines_of(axes, COLOURS[place])
        runs = {
            row["run_id"]
            for row in made.cells.to_pylist()
            if json.loads(row["label"]) == dict(label)
        }
        rows = [
            row
            for row in made.evaluations.to_pylist()
            if row["split"] == "validation" and row["run_id"] in runs
        ]
        means = [100 * np.mean([r["accuracy"] for r in rows if r["epoch"] == n]) for n in (1, 2, 3)]
        assert np.asarray(line.get_xdata()).tolist() == [1, 2, 3]
        assert np.asarray(line.get_ydata()) == pytest.approx(means)


@pytest.mark.parametrize(("seeds", "count"), [(1, 0), (2, 3), (6, 3)])
def test_one_seed_draws_no_band(seeds: int, count: int) -> None:
    figures = drawn(whole(seeds=seeds))
    for name in ("learning", "thresholds", "difficulty"):
        assert len(bands(figures[name].figure.axes[-1])) == count


def test_of_many_configs_the_best_have_colours_and_the_others_are_grey() -> None:
    labels = [{"optimizer.lr": n / 1000} for n in range(1, 13)]
    figures = drawn(content(labels, [3], 2))
    figure = figures["learning"].figure
    axes = figure.axes[-1]
    assert len(lines_of(axes, OTHER)) == 4
    assert all(len(lines_of(axes, colour)) == 1 for colour in COLOURS)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(texts) == len(COLOURS) + 1
    assert texts[-1] == "others"


def test_the_numbers_in_a_heat_map_are_the_means() -> None:
    made = whole([NONE, POOL, BOTH], [2])
    axes = only_axes(drawn(made)["placements"])
    written = {text.get_text() for text in axes.texts} - {"–"}
    means = [
        f"{100 * row['mean']:.1f}"
        for row in made.summary.to_pylist()
        if (row["split"], row["metric"]) == ("test", "accuracy")
    ]
    assert written == set(means)
    assert [text.get_text() for text in axes.texts].count("–") == 2 * 3 - 3


def test_significant_differences_are_filled() -> None:
    def faces(made: Content) -> set[str]:
        axes = only_axes(drawn(made)["differences"])
        points = [line for line in axes.get_lines() if line.get_marker() == "o"]
        assert len(points) == 2
        return {str(line.get_markerfacecolor()) for line in points}

    assert faces(whole(apart=True)) == {"black"}
    assert faces(whole(apart=False)) == {"white"}


def test_each_look_of_a_race_is_a_sign_on_the_lane_of_its_config() -> None:
    made = content([NONE, POOL, BOTH], [2], 6)
    configs = list(dict.fromkeys(made.cells["label"].to_pylist()))
    values = [[0.5 + 0.01 * ((n * k) % 5) for n in range(6)] for k in (1, 2, 3)]
    ahead = [values[0], *([v + 0.3 for v in row] for row in values[1:])]
    looked = raced(configs, ahead, [4, 6])
    axes = only_axes(drawn(replace(made, resolution=looked))["race"])
    assert axes.get_yticklabels()[0].get_text() == "no attention", "who left is below"
    lanes = [line for line in axes.get_lines() if line.get_marker() == "None"]
    assert [tuple(line.get_xdata()) for line in lanes] == [(0, 4), (0, 6), (0, 6)]
    signs = [str(line.get_marker()) for line in axes.get_lines() if line.get_marker() != "None"]
    assert signs == ["x", "o", "o", "o", "o"]
    assert [text.get_text() for text in axes.texts] == ["out", "undecided", "leads"]


def test_a_stack_is_a_bar_and_a_failed_one_is_outlined() -> None:
    made = whole([NONE, POOL], [2], 2)
    rows = made.runs.to_pylist()
    rows[0]["status"] = "failed"
    failed = replace(made, runs=tables.TABLES["runs"].from_rows(rows))
    axes = only_axes(drawn(failed)["timeline"])
    edges = [mpl.colors.to_hex(bar.get_edgecolor()) for bar in axes.patches]
    assert sorted(edges) == ["#000000", "#ffffff"]
    assert sorted(bar.get_width() for bar in axes.patches) == pytest.approx([90.0, 90.0])


def test_each_test_set_is_a_marker_of_the_transfer(full: dict[str, Drawing]) -> None:
    axes = only_axes(full["transfer"])
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "no attention",
        "srm · after_pool1",
        "srm · both",
    ], "the best is at the top"
    texts = [text.get_text() for text in full["transfer"].figure.legends[0].get_texts()]
    assert texts == ["demo", "generators"]


def test_more_test_sets_than_there_are_colours_still_look_different() -> None:
    sets = [f"set {number:02}" for number in range(2 * len(COLOURS) + 1)]
    legend = drawn(whole(datasets=sets))["transfer"].figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == sets
    looks = [(line.get_color(), line.get_marker()) for line in legend.get_lines()]
    assert len(set(looks)) == len(sets)


def proposals() -> list[Proposal]:
    metric = "validation.accuracy"
    values = [
        (0.9, {"optimizer.lr": 0.01, "attention": "srm", "placement": "both"}, False),
        (0.8, {"optimizer.lr": 0.02, "attention": "none", "placement": None}, False),
        (0.6, {"optimizer.lr": 0.09, "attention": "none", "placement": None}, True),
    ]
    return [
        Proposal(
            label,
            Reached(1 if stopped else 2, {metric: value}, {metric: 0.01}),
            stopped,
            2,
            {metric: value - 0.05},
            {metric: value + 0.05},
        )
        for value, label, stopped in values
    ]


def test_a_search_is_drawn_as_history_and_as_lines_across_its_parameters(parse_text: Parse) -> None:
    made = replace(content([NONE], [2], 2, spec=parse_text(SEARCHED)), proposals=proposals())
    figures = drawn(made)
    axes = only_axes(figures["history"])
    hollow = [line.get_markerfacecolor() for line in axes.get_lines() if line.get_marker() == "o"]
    assert sorted(map(str, hollow)) == ["#0072B2", "white"], "stopped ones are hollow"
    axes = figures["parallel"].figure.axes[0]
    (threads,) = (each for each in axes.collections if isinstance(each, LineCollection))
    assert len(threads.get_segments()) == 3
    assert [text.get_text() for text in axes.get_xticklabels()] == [
        "lr",
        "attention",
        "placement",
        "accuracy",
    ]


# What the files are.


def test_files_are_of_their_kind_and_of_a_column_or_two(full: dict[str, Drawing]) -> None:
    for name in ("learning", "placements"):
        found = full[name].files()
        assert set(found) == {f"{name}.png", f"{name}.svg", f"{name}.pdf"}
        picture = Image.open(io.BytesIO(found[f"{name}.png"]))
        assert picture.width in {round(300 * SINGLE), round(300 * DOUBLE)}
        colours = np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)
        assert len(colours) > 20
        drawing = found[f"{name}.svg"].decode()
        (width,) = re.findall(r'<svg [^>]*width="([\d.]+)pt"', drawing)
        assert float(width) in {72 * SINGLE, 72 * DOUBLE}
        assert drawing.count("<path ") > 10
        assert "<text " not in drawing, "letters are outlines: no font is needed"
        pdf = found[f"{name}.pdf"]
        assert pdf.startswith(b"%PDF")
        assert b"/FontFile2" in pdf, "the font is in the file, as outlines"
        assert b"/Type3" not in pdf


def test_the_same_data_are_the_same_bytes_and_others_are_not() -> None:
    first, again, other = (
        drawn(whole([NONE, POOL], [1], 2, noise=noise))["difficulty"].files() for noise in (0, 0, 1)
    )
    assert first == again
    assert all(first[file] != other[file] for file in first)


def test_no_file_holds_a_time_or_a_version(full: dict[str, Drawing]) -> None:
    for kind, content_ in full["costs"].files().items():
        for word in (b"CreationDate", b"dc:date", b"Matplotlib v", mpl.__version__.encode()):
            assert word not in content_, kind


def test_the_settings_of_whoever_draws_change_nothing() -> None:
    made = whole([NONE, POOL], [1, 2], 2)
    usual = drawn(made)["costs"].files()
    with mpl.rc_context({"font.size": 20, "axes.grid": True, "text.usetex": True}):
        assert drawn(made)["costs"].files() == usual


def test_a_figure_is_laid_out_once_for_all_its_forms() -> None:
    """With an engine it would be laid out anew in each form, and be drawn once more for that."""
    drawing = drawn(whole([NONE, POOL], [1, 2], 2))["learning"]

    def places() -> list[tuple[float, ...]]:
        return [axes.get_position().bounds for axes in drawing.figure.axes]

    loose = places()
    lay_out(drawing.figure)
    laid_out = places()
    assert laid_out != loose
    assert drawing.figure.get_layout_engine() is None
    first = drawing.files()
    assert places() == laid_out
    assert drawing.files() == first


# Its letters.

WORDS = ("affix 0.5 ± 1.96 × 10⁻³ − ½ Ωμ„é“ → ≤ Ж …", "AV To fi ffl")


def written(families: tuple[str, ...], text: str) -> bytes:
    figure = Figure((3, 0.5), dpi=300)
    with styled():
        figure.text(0.02, 0.3, text, fontproperties=FontProperties(family=list(families)))
        return save(figure, "png")


@pytest.mark.parametrize("text", WORDS)
def test_the_cut_font_draws_what_the_whole_one_draws(text: str) -> None:
    assert written(font.families(), text) == written((font.WHOLE,), text)
    assert written((font.CUT,), text) == written((font.WHOLE,), text), "they are all in it"


def test_a_letter_that_was_cut_away_is_drawn_from_the_whole_font() -> None:
    text = "model Ա ☃"
    assert written(font.families(), text) == written((font.WHOLE,), text)
    assert written((font.CUT,), text) != written((font.WHOLE,), text)


def test_the_cut_font_is_kept_and_is_the_same_where_it_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAKE_CACHE", str(tmp_path / "cache"))
    kept = font.cut_font()
    assert tmp_path in kept.parents
    written = kept.stat().st_mtime_ns
    assert font.cut_font() == kept
    assert kept.stat().st_mtime_ns == written
    assert kept.stat().st_size < 200_000
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CIFAKE_CACHE", str(tmp_path / "file"))
    elsewhere = font.cut_font()
    assert elsewhere.read_bytes() == kept.read_bytes()


# Who reads them.


def test_configs_differ_in_colour_line_marker_and_hatch() -> None:
    places = range(len(COLOURS))
    for signs in (COLOURS, MARKERS, HATCHES, tuple(map(str, LINES))):
        assert len(set(signs)) == len(signs) == len(COLOURS)
    assert len({str(look(place)["linestyle"]) for place in places}) == len(COLOURS)
    assert len({marker(place)["marker"] for place in places}) == len(COLOURS)


@pytest.mark.parametrize("colour", COLOURS)
def test_every_colour_is_seen_on_white_paper(colour: str) -> None:
    """WCAG 2.2, relative luminance; yellow on white would have 1.07."""
    channels = np.asarray(mpl.colors.to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    contrast = 1.05 / (0.05 + float(linear @ [0.2126, 0.7152, 0.0722]))
    assert contrast > 2


def test_hostile_names_are_drawn_as_text() -> None:
    names = [r"$\frac", "a\nb", "中 <b> & _^{}%", "x" * 200]
    figures = drawn(whole([{"model": name} for name in names], [1, 2], 2, apart=True))
    for drawing in figures.values():
        assert save(drawing.figure, "png").startswith(b"\x89PNG")
    texts = [text.get_text() for text in figures["learning"].figure.legends[0].get_texts()]
    assert texts == [plain(name) for name in names]
    assert texts[:3] == [r"$\frac", "a b", "中 <b> & _^{}%"]
    assert len(texts[3]) < 50


def test_a_legend_lies_below_and_covers_no_line(full: dict[str, Drawing]) -> None:
    for name in ("learning", "thresholds", "costs"):
        figure: Figure = full[name].figure
        save(figure, "png")
        (legend,) = figure.legends
        top = legend.get_window_extent().y1
        for axes in figure.axes:
            assert axes.get_window_extent().y0 > top

"""The report as Markdown, rendered by a reader that is not ours."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from cifake import tables
from sweeps.report.content import Content
from sweeps.report.markdown import (
    MAX_COMPARISONS,
    Picture,
    code,
    inline,
    markdown,
    markdown_table,
)
from tests.sweeps.reported import NONE, POOL, content, raced

READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
HOSTILE = "a | *b* _c_ `d` [e](http://f) <g> &amp; ~~h~~ \\ # $i$ 中"


def tables_in(text: str) -> list[list[list[str]]]:
    """Every table as a reader shows it: rows of cells of plain text."""
    found: list[list[list[str]]] = []
    tokens = READER.parse(text)
    for token, inner in zip(tokens, [*tokens[1:], tokens[-1]], strict=True):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in ("td_open", "th_open"):
            found[-1][-1].append(words(inner))
    return found


def words(token: Token) -> str:
    """What a reader shows of a line."""
    return "".join(child.content for child in token.children or [])


def paragraphs(text: str) -> list[str]:
    return [words(token) for token in READER.parse(text) if token.type == "inline"]


def test_the_looks_of_a_race_are_a_table() -> None:
    made = content([NONE, POOL], [2], 4)
    configs = list(dict.fromkeys(made.cells["label"].to_pylist()))
    looked = raced(configs, [[0.5, 0.51, 0.5, 0.51], [0.9, 0.9, 0.92, 0.92]], [3, 4])
    _, looks, *_ = tables_in(markdown(replace(made, resolution=looked), []))
    assert looks == [
        ["config", "seeds", "at 3 seeds", "state"],
        ["srm · after_pool1", "3", "leads", "best"],
        ["no attention", "3", looks[2][2], "out at 3"],
    ]
    assert looks[2][2].startswith("40.33 (")


def test_tables_are_rendered_with_every_cell() -> None:
    made = content(apart=True)
    results, compared, provenance = tables_in(markdown(made, []))
    assert results[0] == [
        "attention",
        "placement",
        "epochs",
        "evaluated on",
        "accuracy, %",
        "auroc, %",
        "seeds",
    ]
    assert len(results) == 1 + 3 * 2 * 2
    assert [len(row) for row in results] == [7] * len(results)
    assert [row[0] for row in compared] == [
        "a",
        "no attention",
        "no attention",
        "srm · after_pool1",
    ]
    assert ["reproduce", "sweeps run spec.yaml"] in provenance


def test_comparisons_have_intervals_and_marks_that_are_explained() -> None:
    made = content([NONE, POOL], [1, 3], apart=True)
    text = markdown(made, [])
    _, compared, _ = tables_in(text)
    header = ["a", "b", "difference, points", "95 % interval", "p", "corrected p", "P(a > b)", "n"]
    assert compared == [
        header,
        [
            "no attention",
            "srm · after_pool1",
            "−1.00",
            "−2.00 to +0.10",
            "0.031",
            "< 0.001 *",
            "0.25",
            "6",
        ],
    ]
    (reading,) = (each for each in paragraphs(text) if each.startswith("accuracy on demo test"))
    assert "after 3 epochs: a − b, paired by seed" in reading
    assert "* below 0.05" in reading
    plain = markdown(content([NONE, POOL], [1, 3]), [])
    assert "1.000" in tables_in(plain)[1][1]


def test_without_comparisons_there_is_no_section_for_them() -> None:
    assert "## Comparisons" not in markdown(content([NONE], [1]), [])


def test_many_comparisons_are_cut_and_say_where_the_rest_is() -> None:
    labels = [{"optimizer.lr": n / 1000} for n in range(1, 13)]
    text = markdown(content(labels, [1], 2), [])
    _, compared, _ = tables_in(text)
    assert len(compared) == 1 + MAX_COMPARISONS
    assert f"{12 * 11 // 2 - MAX_COMPARISONS} more are in" in text


def test_notes_are_a_list_of_their_own() -> None:
    made = replace(content([NONE], [1]), notes=["2 cells *failed*", "1. is missing"])
    tokens = READER.parse(markdown(made, []))
    items = [
        words(tokens[place + 2])
        for place, token in enumerate(tokens)
        if token.type == "list_item_open"
    ]
    assert items == ["2 cells *failed*", "1. is missing"]


def test_figures_are_shown_with_their_captions() -> None:
    picture = Picture(path="figures/a.png", title="A *b*", caption="Mean_of_all [x](y).")
    tokens = READER.parse(markdown(content([NONE], [1]), [picture]))
    images = [c for t in tokens for c in t.children or [] if c.type == "image"]
    assert [image.attrs["src"] for image in images] == ["figures/a.png"]
    assert "Mean_of_all [x](y)." in [words(token) for token in tokens if token.type == "inline"]


def hostile() -> Content:
    labels = [{"model": HOSTILE}, {"model": "plain"}]
    made = content(labels, [1], 2, name=HOSTILE, question=HOSTILE)
    rows = made.runs.to_pylist()
    rows[0] |= {"status": "failed", "error": f"Traceback\n{HOSTILE}", "host": HOSTILE}
    return replace(made, runs=tables.TABLES["runs"].from_rows(rows), notes=[HOSTILE])


def test_hostile_names_are_shown_as_they_are() -> None:
    text = markdown(hostile(), [Picture(path="figures/a.png", title=HOSTILE, caption=HOSTILE)])
    tokens = READER.parse(text)
    kinds = {c.type for token in tokens for c in token.children or []}
    assert kinds <= {"text", "text_special", "code_inline", "image"}
    assert {"html_block", "html_inline"}.isdisjoint(token.type for token in tokens)
    shown = paragraphs(text)
    assert shown[0] == shown[1] == HOSTILE, "name and question"
    results, _, failures, provenance = tables_in(text)
    assert HOSTILE in {row[0] for row in results}
    assert failures[1][3] == HOSTILE
    (hosts,) = (row for row in provenance if row[0] == "hosts")
    assert HOSTILE in hosts[1]


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
@example("1. a")
@example("12) a")
@example("- a")
@example("a_ _b_ c_d")
@example("&#35; &amp;")
@example("***")
@example("====")
def test_text_is_shown_as_it_is(text: str) -> None:
    wanted = " ".join(text.split())
    assert paragraphs(inline(text)) == ([wanted] if wanted else [])


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_a_cell_shows_its_text_and_stays_one_cell(text: str) -> None:
    table = markdown_table(["x", "y"], [[inline(text), "1"]])
    assert tables_in(table) == [[["x", "y"], [" ".join(text.split()), "1"]]]


@pytest.mark.parametrize("text", ["a", "a`b", "``", "a | b", "`"])
def test_what_is_typed_is_shown_as_it_is(text: str) -> None:
    (cell,) = tables_in(markdown_table(["x"], [[code(text)]]))[0][1]
    assert cell.strip() == text

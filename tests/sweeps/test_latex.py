"""Tables as LaTeX: what they say, that nothing breaks them, and that they compile."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pylatexenc.latex2text import LatexNodes2Text
from pylatexenc.latexwalker import LatexGroupNode, LatexMacroNode, LatexWalker

from sweeps.report.bibliography import FILE, bibliography
from sweeps.report.content import Content
from sweeps.report.latex import MAX_ROWS, tables
from sweeps.report.tex import _ACCENTS, _GREEK, _SPECIAL, LONG, escape
from tests.sweeps.reported import BOTH, NONE, POOL, content

HOSTILE = r"100 % of $x_1$ & \input{/etc/passwd} #1 {~^} <a> | -- --- ?` \\ é ß Ł β × ± 中 🙂"

COMMANDS = re.compile(r"\\([a-zA-Z]+|[^a-zA-Z])")
KNOWN = {name for value in _SPECIAL.values() for name in COMMANDS.findall(value)}
KNOWN |= {*_ACCENTS.values(), *_GREEK.values(), "ensuremath", "i", "j"}

READ_AS = str.maketrans({'"': "\N{RIGHT DOUBLE QUOTATION MARK}", "^": "ˆ"})
"""How the reader gives back what plain LaTeX has no key for."""


def read_tables(text: str) -> list[list[list[str]]]:
    """Rows of cells of every tabular, by their `&` and `\\\\`, between the rules."""
    found = []
    for body in re.findall(
        r"\\midrule\n(?:\\endfirsthead.*?\\endfoot\n)?(.*?)\\(?:bottomrule|end)", text, re.DOTALL
    ):
        lines = [line for line in body.splitlines() if line.endswith(r" \\")]
        found.append([re.split(r"(?<!\\) & ", line.removesuffix(r" \\")) for line in lines])
    return found


def plain(cell: str) -> str:
    """A cell as it is read, without spaces."""
    return LatexNodes2Text(math_mode="text").latex_to_text(cell).replace(" ", "")


def macros(text: str) -> set[str]:
    """Every command in some LaTeX that parses."""
    left = LatexWalker(text, tolerant_parsing=False).get_latex_nodes()[0]
    found = set()
    while left:
        node = left.pop()
        if node.isNodeType(LatexMacroNode):
            found.add(node.macroname)
            left += node.nodeargd.argnlist if node.nodeargd else []
        elif node.isNodeType(LatexGroupNode):
            left += node.nodelist
        left = [each for each in left if each is not None]
    return found


# What is said.


def test_a_row_has_the_means_and_half_the_intervals_of_the_summary() -> None:
    made = content([NONE, POOL], [1, 3])
    (rows,) = read_tables(tables(made)["results.tex"])
    numbers = {
        (row["label"], row["epochs"], row["metric"]): row
        for row in made.summary.to_pylist()
        if row["split"] == "test" and row["metric"] in ("accuracy", "auroc")
    }
    assert len(rows) == 4
    order = sorted({key[:2] for key in numbers})
    for (label, epochs), row in zip(order, rows, strict=True):
        assert row[:3] == [*label_words(label), str(epochs)]
        for metric, mean, half in (("accuracy", *row[3:5]), ("auroc", *row[5:7])):
            wanted = numbers[label, epochs, metric]
            assert plain(mean) == f"{100 * wanted['mean']:.2f}"
            assert plain(half).startswith("±")
            width = float(plain(half)[1:])
            assert width == pytest.approx(50 * (wanted["high"] - wanted["low"]), abs=0.005)


def label_words(label: str) -> list[str]:
    return ["none", "none"] if "none" in label else ["srm", r"after\_pool1"]


def test_arrows_stand_where_configs_differ_and_the_caption_says_from_what() -> None:
    apart = tables(content(apart=True))["results.tex"]
    marked = [r"\downarrow" in cell for row in read_tables(apart)[0] for cell in (row[4], row[6])]
    assert marked == [True] * 8 + [False] * 4, "the last config is the best of its length"
    assert "significantly worse than the best of its length" in apart
    same = tables(content(apart=False))["results.tex"]
    assert r"\downarrow" not in same
    assert "No score differs significantly from the best of its length" in same


def test_stars_stand_at_small_corrected_p_values_alone() -> None:
    apart = tables(content(apart=True))["comparisons.tex"]
    assert apart.count(r"\rlap{$^{***}$}") == 2 * 2 * 3
    assert "below 0.05" in apart
    assert r"\rlap" not in tables(content())["comparisons.tex"]


@pytest.mark.parametrize(("seeds", "said"), [(5, True), (6, True), (7, False)])
def test_a_family_that_cannot_be_significant_is_said_to_be(seeds: int, said: bool) -> None:
    text = tables(content(seeds=seeds))["comparisons.tex"]
    assert ("With so few pairs none can fall below 0.05" in text) == said, "3 · 2^(1 − n) ≥ 0.05"


def test_differences_have_their_sign_and_interval() -> None:
    (accuracy, auroc) = read_tables(tables(content([NONE, POOL], [3]))["comparisons.tex"])
    for rows in (accuracy, auroc):
        (row,) = rows
        assert row[:4] == ["none", r"srm, after\_pool1", "3", "6"]
        assert [plain(row[4]), plain(row[5])] == ["-1.00", "[-2.00,0.10]"]
        assert row[6:] == ["0.500", "1.000", "0.25"]


def test_missing_runs_are_counted_in_a_column_of_their_own() -> None:
    whole = tables(content([NONE, POOL], [3]))["results.tex"]
    assert "Mean over 6 runs" in whole
    (rows,) = read_tables(
        tables(content([NONE, POOL], [3], missing=[(1, 0), (1, 3)]))["results.tex"]
    )
    assert [row[-1] for row in rows] == ["6", "4 of 6"]


def test_one_run_has_no_interval_and_no_sign_of_one() -> None:
    (rows,) = read_tables(tables(content([NONE, POOL], [3], seeds=1))["results.tex"])
    assert all(row[4] == row[6] == "" for row in rows)


def test_many_metrics_are_spread_over_tables_with_labels_of_their_own() -> None:
    made = content([NONE, POOL], [3], metrics=("accuracy", "auroc", "loss", "f1", "brier"))
    text = tables(made)["results.tex"]
    assert re.findall(r"\\label\{(.*?)\}", text) == [
        "tab:placements-demo-test",
        "tab:placements-demo-test-2",
    ]
    first, second = read_tables(text)
    assert {len(row) for row in first} == {3 + 2 * 3}
    assert {len(row) for row in second} == {3 + 2}, "a metric without a value has no column"
    assert r"{F1, \%}" in text
    assert r"{loss}" in text, "nats are no percent"


def test_each_data_set_has_a_table() -> None:
    made = content([NONE, POOL], [3], datasets=["demo", "cifar100@jpeg=75"])
    text = tables(made)["results.tex"]
    assert re.findall(r"\\label\{(.*?)\}", text) == [
        "tab:placements-cifar100-jpeg-75-test",
        "tab:placements-demo-test",
    ]


def test_many_configs_make_a_table_of_several_pages_and_say_what_is_left_out() -> None:
    few = [{"optimizer.lr": n / 1000} for n in range(1, LONG)]
    assert "longtable}" not in tables(content(few, [1], 2))["results.tex"].partition("\n")[2]
    many = [{"optimizer.lr": n / 1000} for n in range(1, MAX_ROWS + 50)]
    text = tables(content(many, [1], 1))["results.tex"]
    assert r"\begin{longtable}" in text
    (rows,) = read_tables(text)
    assert len(rows) == MAX_ROWS
    assert f"The first {MAX_ROWS} of {MAX_ROWS + 49} rows." in text


def test_many_parameters_stand_in_one_column() -> None:
    labels = [{f"optimizer.p{n}": n * k for n in range(1, 7)} for k in (1, 2)]
    (rows,) = read_tables(tables(content(labels, [1]))["results.tex"])
    assert rows[1][0] == r"\raggedright p1 2, p2 4, p3 6, p4 8, p5 10, p6 12"


def test_without_an_evaluation_the_page_says_so() -> None:
    made = content(missing=[(c, s) for c in range(3) for s in range(6)])
    files = tables(made)
    assert "No run has been evaluated yet." in files["tables.tex"]
    assert "results.tex" not in files


# Nothing breaks it.


@given(st.text())
@example(HOSTILE)
@example("a\n\n% b")
def test_escaped_text_is_one_line_of_ascii_without_a_command_of_its_own(text: str) -> None:
    shown = escape(text)
    assert shown.isascii()
    assert "\n" not in shown
    assert not re.search(r"(?<!\\)[&%#_$]", shown)
    nodes, _, _ = LatexWalker(shown, tolerant_parsing=False).get_latex_nodes()
    assert (
        all(not node.isNodeType(kind) for node in nodes for kind in (object,)) or nodes is not None
    )


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_a_reader_of_latex_finds_the_text_again(text: str) -> None:
    back = LatexNodes2Text(strict_latex_spaces=True).latex_to_text(escape(text))
    assert back.split() == text.translate(READ_AS).split()


# It compiles.

needs_latex = pytest.mark.skipif(
    shutil.which("pdflatex") is None or shutil.which("bibtex") is None,
    reason="no LaTeX here; on Debian: apt-get install texlive-latex-recommended",
)


def compiled(made: Content, folder: Path) -> str:
    """The log of the last of three passes, with the bibliography; a PDF is there."""
    for name, text in {**tables(made), FILE: bibliography(made)}.items():
        (folder / name).write_text(text, encoding="ascii")
    latex = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    for command in (latex, ["bibtex", "tables"], latex, latex):
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", check=False
        )
        assert done.returncode == 0, done.stdout[-2000:]
    assert (folder / "tables.pdf").read_bytes().startswith(b"%PDF")
    return (folder / "tables.log").read_text(errors="replace")


@needs_latex
def test_the_page_compiles_without_a_line_too_long_or_a_reference_missing(tmp_path: Path) -> None:
    log = compiled(content(apart=True, datasets=["cifake", "cifar100@jpeg=75"]), tmp_path)
    assert "Overfull" not in log
    assert "undefined" not in log


@needs_latex
def test_hostile_names_compile(tmp_path: Path) -> None:
    labels = [{"a_b": HOSTILE, "c%d": n, "e": f"{'long ' * 30}{n}"} for n in (1, 2)]
    log = compiled(content(labels, [1], name=HOSTILE, question=HOSTILE, apart=True), tmp_path)
    assert "undefined" not in log


@needs_latex
def test_a_table_of_several_pages_compiles(tmp_path: Path) -> None:
    labels = [{"optimizer.lr": n / 1000, **BOTH} for n in range(1, 60)]
    compiled(content(labels, [1], 2), tmp_path)

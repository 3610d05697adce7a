"""The report's page: what stands in it, and what it does in a browser."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vl_convert
from PIL import Image

from sweeps import specfile
from sweeps.parse import parse
from sweeps.report import charts
from sweeps.report.content import Content
from sweeps.report.page import page
from sweeps.report.shown import shown
from sweeps.report.vega import VEGA_LITE
from sweeps.spec import Compare, Spec
from tests.sweeps.contents import BOTH, NONE, SRM, Drawn, explanations, run_id
from tests.sweeps.reported import raced

Parse = Callable[..., Spec]

HOSTILE = "</script><img src=x onerror=\"document.title='hurt'\">{{ 7 * 7 }}"
SPEC = "name: a\nquestion: Why?\ndata: {train: demo, validation: 10}\nfixed: {epochs: 3}\n"
SETS = {"demo": (0, 1), "photos": (1,), "others": (0, 1)}
FULL = Drawn(test_sets=SETS, edge=0.8, failed={(1, 2): "Traceback\n  line\nRuntimeError: a | b"})


class Outline(HTMLParser):
    """The elements of a page and their text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def ids(self, tag: str) -> list[str]:
        return [str(attrs["id"]) for name, attrs in self.tags if name == tag and "id" in attrs]


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), "#335577").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Content:
    """A report with everything but a search."""
    path = tmp_path_factory.mktemp("spec") / "spec.yaml"
    path.write_text(SPEC)
    looked = explanations(picture(), run_id(2, 0))
    configs = [json.dumps(dict(label)) for label in FULL.labels]
    values = [[0.5 + 0.01 * ((n * k) % 5) for n in range(6)] for k in (1, 2, 3)]
    race = raced(configs, [values[0], *([v + 0.3 for v in row] for row in values[1:])], [4, 6])
    parts = {"explanations": looked, "resolution": race, "notes": ["1 run failed"]}
    return FULL.content(parse(specfile.read(path)), **parts)


# What stands in it.


def test_a_whole_report_has_every_section(full: Content) -> None:
    outline = Outline(page(full))
    wanted = [
        "results",
        "race",
        "learning",
        "decisions",
        "content",
        "cost",
        "explanations",
        "failed",
    ]
    assert outline.ids("section") == [*wanted, "provenance"]
    figures = {"differences", "placements", "learning", "difficulty", "thresholds", "reliability"}
    assert {*figures, "race", "costs", "timeline", "gates"} <= {*outline.ids("figure")}
    links = [attrs["href"] for tag, attrs in outline.tags if tag == "a"]
    assert links == ["#main", *(f"#{each}" for each in [*wanted, "provenance"])]
    text = " ".join(outline.texts)
    for told in ("Why?", "RuntimeError: a | b", "0123456789abcdef", "feedfacefeedface"):
        assert told in text
    for told in ("sweeps run spec.yaml", "torch 2.9", "cpu x86_64 on here", "1 run failed"):
        assert told in text


def test_the_looks_of_a_race_stand_in_a_table_and_who_left_has_no_more(full: Content) -> None:
    rows = re.findall(r"<tr>(.*?)</tr>", page(full).partition("The looks.")[2], re.DOTALL)[:4]
    header, *body = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
    assert header == ["config", "seeds", "at 4 seeds", "at 6 seeds", "state"]
    assert [(row[0], row[1], row[-1]) for row in body] == [
        ("srm · after_pool1", "6", "leads"),
        ("srm · both", "6", "undecided"),
        ("no attention", "4", "out at 4"),
    ]
    assert (body[1][2], body[0][3]) == ("leads", "leads"), "another one led at first"
    assert re.fullmatch(r"−?\d+\.\d\d \(−\d+\.\d\d to \d+\.\d\d\)", body[1][3])
    assert body[2][3] == "", "it was not looked at any more"


def test_how_stable_the_ranking_is_stands_above_the_table(full: Content) -> None:
    (tau,) = {
        (row["tau"], row["tau_low"], row["tau_high"])
        for row in full.ranking.to_pylist()
        if (row["epochs"], row["split"], row["dataset"]) == (3, "test", "demo")
        and row["metric"] == "accuracy"
    }
    mean, low, high = (f"{value:.2f}".replace("-", "−") for value in tau)
    told = f"Kendall’s τ of {mean} on average (95 % of them: {low} to {high})."
    assert f"rankings after 3 epochs agree with this one by {told}" in page(full)
    alone = Drawn(labels=(NONE,), seeds=2, lengths=(1,), images=12)
    assert "Kendall" not in page(alone.content())


def test_a_section_without_data_is_left_out() -> None:
    small = Drawn(labels=(NONE,), seeds=1, lengths=(1,), images=12)
    outline = Outline(page(small.content()))
    assert not {"search", "race", "failed", "explanations"} & {*outline.ids("section")}
    assert "learning" not in outline.ids("figure"), "one epoch has no curve"
    assert "differences" not in outline.ids("figure")
    nothing = {
        name: getattr(small.content(), name).slice(0, 0)
        for name in ("runs", "evaluations", "summary", "comparisons", "ranking", "effects")
    }
    bare = replace(small.content(**nothing), read=lambda table, _: small.large[table].slice(0, 0))
    outline = Outline(page(bare))
    assert outline.ids("section") == ["provenance"]
    assert "No run has been evaluated yet." in " ".join(outline.texts)


def test_figures_and_tables_are_numbered_as_they_come(full: Content) -> None:
    text = page(full)
    for what in ("Figure", "Table"):
        numbers = [int(n) for n in re.findall(rf"<b[^>]*>{what} (\d+)\.", text)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert numbers


def test_whatever_a_specification_or_an_error_holds_stays_text(parse_text: Parse) -> None:
    labels = ({"attention": HOSTILE}, {"attention": "none"})
    hostile = Drawn(labels=labels, seeds=2, failed={(0, 0): f"Error: {HOSTILE}"})
    spec = replace(parse_text(SPEC), written=HOSTILE)
    changes = {"name": HOSTILE, "question": HOSTILE, "notes": [HOSTILE], "commands": [HOSTILE]}
    text = page(hostile.content(spec, **changes))
    outline = Outline(text)
    assert not [attrs for tag, attrs in outline.tags if tag == "img"]
    assert not [attrs for _, attrs in outline.tags if any(key.startswith("on") for key in attrs)]
    assert text.count("</script>") == 3, "those of the page itself"
    shown_texts = " ".join(outline.texts)
    assert HOSTILE in shown_texts
    assert "49" not in re.sub(r"[\d.]*\d{3,}", "", "".join(outline.texts[:40])), "no template ran"


def test_only_the_scripts_of_the_page_may_run(full: Content) -> None:
    text = page(full)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    found = {base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in scripts}
    assert {*re.findall(r"sha256-([^&'\"]+)", policy.replace("&#39;", "'"))} == found
    assert "default-src 'none'" in policy.replace("&#39;", "'")
    assert "script-src 'unsafe" not in policy.replace("&#39;", "'")


def test_every_chart_is_sound_vega_lite(full: Content) -> None:
    stand = shown(full)
    figures = [
        *chain.from_iterable(charts.by_section(stand).values()),
        *charts.learning_figures(stand),
        *charts.decision_figures(stand),
        *charts.classes(stand),
        *charts.cost_figures(stand),
    ]
    assert len(figures) >= 10
    for figure in figures:
        for panel in figure.panels:
            rows = json.loads(panel.data.to_json(orient="records", date_format="iso"))
            spec = {**panel.spec, "data": {"values": rows}}
            assert vl_convert.vegalite_to_vega(spec, vl_version=VEGA_LITE)["marks"]
        assert figure.alt
        assert figure.caption


@pytest.fixture(scope="module")
def two_hundred() -> Content:
    labels = [{"lr": n / 1000, "attention": ("none", "srm")[n % 2]} for n in range(1, 101)]
    large = Drawn(labels=labels, seeds=2, lengths=(1, 3), test_sets=SETS, images=12)
    assert len(large.runs) == 200
    assert large.large
    return large.content(compare=Compare(metrics=["accuracy"]))


def test_two_hundred_runs_make_a_page_of_six_megabytes_at_most_within_seconds(
    two_hundred: Content,
) -> None:
    began = time.process_time()
    text = page(two_hundred)
    assert time.process_time() - began < 10
    assert len(text.encode()) < 6_000_000


def test_the_same_content_makes_the_same_page(full: Content) -> None:
    first, second = (page(full) for _ in range(2))
    assert first == second


def test_sheets_are_kept_small(full: Content) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (1200, 1300, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    looked = full.explanations
    assert looked is not None
    many = replace(looked, sheets={run_id(2, seed): buffer.getvalue() for seed in range(4)})
    text = page(replace(full, explanations=many))
    assert len(text.encode()) < 6_000_000
    assert "more sheets are in the store" in text


# In a browser.

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
in_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="needs chromium: `apt-get install chromium`; `make test` tries to"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        made = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, full: Content) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(full))
    return path


class Opened:
    """A page in the browser, and what it said and asked for."""

    def __init__(self, browser: Any, path: Path, **settings: Any) -> None:
        settings = {"viewport": {"width": 1280, "height": 900}, **settings}
        self.context = browser.new_context(**settings)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def draw(self) -> None:
        """Have every chart drawn, as before printing."""
        self.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        places = self.page.locator(".chart").count()
        drawn = "document.querySelectorAll('.chart svg').length"
        self.page.wait_for_function(f"{drawn} >= {places}", timeout=30_000)

    def column(self, number: int) -> list[str]:
        """The visible cells of a column of the table of configs."""
        cells = self.page.locator(f"#configs tbody tr:visible > :nth-child({number})")
        return [str(text).strip() for text in cells.all_inner_texts()]


@pytest.fixture
def opened(browser: Any, report: Path) -> Iterator[Opened]:
    made = Opened(browser, report)
    yield made
    made.context.close()


@in_browser
def test_it_draws_every_chart_and_asks_the_network_for_nothing(
    opened: Opened, report: Path
) -> None:
    opened.draw()
    assert opened.page.locator(".chart").count() >= 15
    assert opened.page.locator(".chart.failed").count() == 0
    assert opened.said == []
    assert [url for url in opened.asked if not url.startswith("data:")] == [report.as_uri()]


@in_browser
def test_headings_sort_by_mouse_and_by_keyboard(opened: Opened) -> None:
    heading = opened.page.locator("#configs thead th", has_text="accuracy")
    place = 1 + opened.page.locator("#configs thead th").all_inner_texts().index(
        heading.inner_text()
    )

    def scores() -> list[float]:
        return [float(text.split(" ")[0]) for text in opened.column(place)]

    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert scores() == sorted(scores(), reverse=True)
    heading.get_by_role("button").focus()
    opened.page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert scores() == sorted(scores())
    other = opened.page.locator("#configs thead th").first
    other.get_by_role("button").click()
    assert (heading.get_attribute("aria-sort"), other.get_attribute("aria-sort")) == (
        "none",
        "ascending",
    )
    assert opened.column(1) == sorted(opened.column(1))


@in_browser
def test_rows_are_filtered_and_counted(opened: Opened) -> None:
    found = opened.page.locator("#found")
    assert found.inner_text() == "3 of 24 rows", "the longest of each, on the first set"
    opened.page.locator("#filters").get_by_label("Find").fill("both")
    assert opened.column(2) == ["both"]
    assert found.inner_text() == "1 of 24 rows"
    opened.page.locator("#filters").get_by_label("Find").fill("")
    opened.page.locator("#filters").get_by_label("Epochs").select_option("1")
    assert {"1"} == {
        *opened.page.locator("#configs tr:visible").evaluate_all(
            "rows => rows.slice(1).map(row => row.dataset.epochs)"
        )
    }
    opened.page.locator("#filters").get_by_label("Epochs").select_option("")
    opened.page.locator("#filters").get_by_label("Evaluated on").select_option("")
    assert found.inner_text() == "24 of 24 rows"


@in_browser
def test_a_point_tells_its_numbers(opened: Opened) -> None:
    opened.draw()
    chart = opened.page.locator("#learning-0")
    chart.scroll_into_view_if_needed()
    point = chart.locator("svg .mark-symbol path").first
    point.hover(force=True)
    tooltip = opened.page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for()
    text = tooltip.inner_text()
    assert "config" in text
    assert "95 % interval" in text
    assert any(name in text for name in ("no attention", "srm"))


@in_browser
def test_a_config_chosen_in_the_key_dims_the_others_everywhere(opened: Opened) -> None:
    opened.draw()
    key = opened.page.locator(".key").first.get_by_role("button", name="srm · both")
    faded = "document.querySelectorAll('#learning .mark-line path[opacity=\"0.08\"]').length"
    assert opened.page.evaluate(faded) == 0
    key.click()
    assert key.get_attribute("aria-pressed") == "true"
    opened.page.wait_for_function(f"{faded} > 0")
    key.click()
    opened.page.wait_for_function(f"{faded} === 0")


@in_browser
def test_light_and_dark_follow_the_system_until_the_reader_chooses(
    browser: Any, report: Path
) -> None:
    dark = Opened(browser, report, color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    assert dark.page.evaluate(ground) == "rgb(21, 23, 26)"
    switch = dark.page.locator("#theme")
    assert switch.inner_text() == "Light"
    switch.click()
    assert dark.page.evaluate(ground) == "rgb(255, 254, 251)"
    assert switch.inner_text() == "Dark"
    dark.page.reload()
    assert dark.page.evaluate(ground) == "rgb(255, 254, 251)", "it is remembered"
    dark.context.close()


@in_browser
@pytest.mark.parametrize("width", [320, 390])
def test_a_narrow_screen_scrolls_down_alone(browser: Any, report: Path, width: int) -> None:
    phone = Opened(browser, report, viewport={"width": width, "height": 700})
    phone.draw()
    assert phone.page.evaluate("document.documentElement.scrollWidth") <= width
    assert phone.said == []
    phone.context.close()


@in_browser
def test_the_numbers_behind_a_figure_are_a_table(opened: Opened) -> None:
    details = opened.page.locator("details.numbers[data-figure=differences]")
    details.locator("summary").click()
    rows = details.locator("tbody tr")
    rows.first.wait_for()
    assert rows.count() == 2
    headings = details.locator("thead th").all_inner_texts()
    assert {"config", "difference", "p_holm"} <= {*headings}


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Any, report: Path, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    seen = Opened(browser, report, color_scheme=scheme, bypass_csp=True)
    seen.draw()
    for summary in seen.page.locator("details > summary").all()[:3]:
        summary.click()
    # What is inside of a chart is hidden from readers of screens: it is one picture with words.
    context = {"exclude": [[".chart svg"]]}
    found = axe.Axe().run(seen.page, context=context).response["violations"]
    grave = [each for each in found if each["impact"] in ("serious", "critical", "moderate")]
    assert [(each["id"], each["nodes"][0]["html"][:200]) for each in grave] == []
    seen.context.close()


@in_browser
@pytest.mark.parametrize(
    "drawn",
    [
        Drawn(labels=(NONE,), seeds=1, lengths=(1,), images=10),
        Drawn(labels=(NONE, SRM), seeds=2, lengths=(2,), test_sets={"photos": (1,)}, images=12),
        Drawn(missing=[(0, n) for n in range(6)], images=12),
        Drawn(labels=({"attention": HOSTILE}, BOTH), seeds=2, images=12),
        Drawn(test_sets={f"set {n}": (0, 1) for n in range(12)}, seeds=2, images=12),
        Drawn(longest={2: 1}, edge=1.5, images=12),
    ],
    ids=["one-of-all", "one-class", "missing", "hostile", "many-sets", "unequal-lengths"],
)
def test_odd_sweeps_look_sensible(browser: Any, tmp_path: Path, drawn: Drawn) -> None:
    seen = sensible(browser, tmp_path, drawn.content(name=HOSTILE))
    for chart in seen.page.locator("#learning-0 svg .mark-symbol path").all()[:1]:
        chart.hover(force=True)
        seen.page.locator("#vg-tooltip-element.visible").wait_for()
    for summary in seen.page.locator("details > summary").all():
        summary.click()
    assert seen.page.locator("img").count() == 0
    assert seen.said == []
    assert seen.page.title().startswith(HOSTILE), "it stays words"
    seen.context.close()


@in_browser
def test_a_hundred_configs_look_sensible(
    browser: Any, tmp_path: Path, two_hundred: Content
) -> None:
    seen = sensible(browser, tmp_path, two_hundred)
    assert seen.page.locator("#configs tr:visible").count() == 101
    assert seen.page.locator(".key").first.locator("li").count() == 8
    seen.context.close()


def sensible(browser: Any, tmp_path: Path, content: Content) -> Opened:
    """A page in the browser, once it is known that it has no nonsense in it."""
    path = tmp_path / "report.html"
    path.write_text(page(content))
    seen = Opened(browser, path)
    seen.draw()
    assert seen.page.locator(".chart.failed").count() == 0
    assert seen.said == []
    text = seen.page.locator("main").inner_text()
    for nonsense in ("nan", "NaN", "undefined", "None", "null"):
        assert not re.search(rf"\b{nonsense}\b", text), nonsense
    return seen

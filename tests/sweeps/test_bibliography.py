"""The sources of a sweep: read by a parser that is not ours, and only those that apply."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import bibtexparser
import pytest

from sweeps.report.bibliography import APPLIES, bibliography, entries
from sweeps.report.content import Content, Explanations
from sweeps.spec import Spec
from tests.sweeps.reported import NONE, POOL, content, raced

Parse = Callable[..., Spec]

REQUIRED = {
    "article": {"author", "title", "journal", "year"},
    "inproceedings": {"author", "title", "booktitle", "year"},
    "book": {"author", "title", "publisher", "year"},
    "techreport": {"author", "title", "institution", "year"},
    "misc": {"author", "title", "howpublished", "year"},
}
"""Fields that BibTeX's styles ask for, by the kind of entry."""


def keys(made: Content) -> set[str]:
    """Keys of what was written, as the parser reads them."""
    library = bibtexparser.parse_string(bibliography(made))
    assert not library.failed_blocks
    return set(library.entries_dict)


def test_every_entry_that_ships_parses_and_has_what_its_kind_needs() -> None:
    library = bibtexparser.parse_string("\n".join(entries().values()))
    assert not library.failed_blocks
    assert set(library.entries_dict) == set(entries()) == set(APPLIES)
    for key, entry in library.entries_dict.items():
        fields = entry.fields_dict
        assert REQUIRED[entry.entry_type] <= set(fields), key
        year = fields["year"].value
        assert year in key, "the key ends in the year and a word of the title"
        assert 1900 <= int(year) <= 2026
        assert all(field.value.strip() == field.value != "" for field in entry.fields), key


def test_no_entry_holds_what_bibtex_could_not_read() -> None:
    for key, text in entries().items():
        assert text.isascii(), key
        assert text.count("{") == text.count("}"), key


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"attention": "se"}, {"hu2018squeeze"}),
        ({"attention": "eca"}, {"wang2020eca"}),
        ({"attention": "cbam"}, {"woo2018cbam"}),
        ({"attention": "srm"}, {"lee2019srm", "ioffe2015batch"}),
        ({"attention": "batchnorm"}, {"ioffe2015batch"}),
        ({"model": "resnet"}, {"he2016deep", "ioffe2015batch"}),
        (
            {"model": "torchvision", "model_options__backbone": "convnext_tiny"},
            {"liu2022convnet", "ioffe2015batch"},
        ),
        ({"input": "steg_srm"}, {"fridrich2012rich"}),
        ({"optimizer__name": "muon"}, {"jordan2024muon", "loshchilov2019decoupled"}),
        ({"optimizer__name": "adam"}, {"kingma2015adam"}),
        ({"schedule__name": "one_cycle"}, {"smith2017super"}),
        ({"label_smoothing": 0.1}, {"szegedy2016rethinking"}),
        ({"execution__precision": "bf16"}, {"micikevicius2018mixed"}),
        ({"model": "paper"}, {"bird2024cifake"}),
    ],
)
def test_a_setting_brings_its_source_and_no_other(
    settings: Mapping[str, Any], wanted: set[str]
) -> None:
    plain = keys(content([NONE], [1], 2))
    changed = keys(content([{"batch_size": 32}], [1], 2, **settings))
    assert changed - plain == wanted
    assert plain <= changed


def test_a_data_set_brings_its_sources_in_any_variant() -> None:
    plain = keys(content([NONE], [1], 2))
    assert keys(content([NONE], [1], 2, datasets=["cifake@jpeg=75"])) - plain == {
        "bird2024cifake",
        "krizhevsky2009learning",
        "rombach2022high",
    }
    tested = keys(content([NONE], [1], 2, datasets=["demo", "cifar100"]))
    assert tested - plain == {"krizhevsky2009learning"}


def test_a_stack_brings_horizontal_fusion_and_a_run_alone_does_not() -> None:
    assert "wang2021horizontally" in keys(content([NONE], [1], 2))
    assert "wang2021horizontally" not in keys(content([NONE], [1], 1))


def test_comparisons_bring_their_methods() -> None:
    alone = keys(content([NONE], [1], 6))
    compared = keys(content([NONE, POOL], [1], 6))
    methods = {"fisher1935design", "holm1979simple", "agarwal2021deep", "cliff1993dominance"}
    assert methods <= compared
    assert not methods & alone
    assert "mcnemar1947note" not in compared, "no predictions were compared"


@pytest.mark.parametrize(
    ("sampler", "scheduler", "wanted"),
    [
        ("tpe", None, {"bergstra2011algorithms"}),
        ("random", "asha", {"bergstra2012random", "li2020system"}),
        ("gp", "hyperband", {"snoek2012practical", "li2018hyperband"}),
        ("cma_es", "median", {"hansen2001completely", "golovin2017google"}),
        ("nsga2", None, {"deb2002fast"}),
    ],
)
def test_a_search_brings_its_sampler_and_its_scheduler(
    parse_text: Parse, sampler: str, scheduler: str | None, wanted: set[str]
) -> None:
    text = (
        "name: a\ndata: {train: demo, validation: 10}\nfixed: {epochs: 3}\n"
        f"search:\n  sampler: {sampler}\n  trials: 2\n"
        "  space:\n    optimizer.lr: {log_uniform: [0.001, 0.1]}\n"
        "    optimizer.momentum: {uniform: [0.5, 0.9]}\n"
    )
    if scheduler:
        text += f"  scheduler: {{name: {scheduler}}}\n"
    plain = keys(content([NONE], [3], 2))
    assert keys(content([NONE], [3], 2, spec=parse_text(text))) - plain == wanted


def test_explanations_bring_grad_cam() -> None:
    made = content([NONE], [1], 2)
    explained = Explanations(sheets={"a": b"png"}, gates=None)
    found = keys(replace(made, explanations=explained)) - keys(made)
    assert found == {"selvaraju2017grad", "kokhlikyan2020captum"}


def test_seeds_that_were_added_until_resolved_bring_sequential_tests() -> None:
    made = content([NONE], [1], 2)
    looked = raced(["{}", "[]"], [[0.5, 0.6, 0.7], [0.6, 0.6, 0.6]], [3])
    found = keys(replace(made, resolution=looked)) - keys(made)
    assert found == {"lan1983discrete", "kim1987design", "jennison1991exact"}


def test_nothing_was_used_where_nothing_ran() -> None:
    assert keys(content([NONE], [1], 2, missing=[(0, 0), (0, 1)])) == set()

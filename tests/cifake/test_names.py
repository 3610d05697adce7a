"""Every data-set name has one spelling, and a wrong one is refused with what would be right."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifake.data.catalogue import DATASETS, dataset, parse
from cifake.data.corruptions import CORRUPTIONS
from cifake.data.fit import FILTERS
from cifake.data.names import MAX_STEPS, grammar


@st.composite
def steps(draw: st.DrawFn) -> tuple[str, str]:
    """A step as someone may write it, and its one spelling."""
    kind = draw(st.sampled_from(sorted(CORRUPTIONS)))
    corruption = CORRUPTIONS[kind]
    if not corruption.value:
        return kind, kind
    low = max(1, int(corruption.low))
    whole = draw(st.integers(low, int(corruption.high) - 1))
    zeros = "0" * draw(st.integers(0, 2))
    tail = draw(st.sampled_from(["", ".0", ".00"]))
    if corruption.whole:
        return f"{kind}={zeros}{whole}{tail}", f"{kind}={whole}"
    decimals = draw(st.sampled_from(["", "5", "25", "125"]))
    written = f"{whole}.{decimals}" if decimals else f"{whole}{tail}"
    return f"{kind}={zeros}{written}", f"{kind}={f'{whole}.{decimals}'.rstrip('.')}"


@given(
    source=st.sampled_from(
        ["cifake", "cifar100", "demo", "generators", "folders", "folders/a-1_b"]
    ),
    chain=st.lists(steps(), min_size=1, max_size=MAX_STEPS),
)
def test_every_spelling_has_one_canonical_form(source: str, chain: list[tuple[str, str]]) -> None:
    written = f"{source}@{','.join(text for text, _ in chain)}"
    canonical = f"{source}@{','.join(text for _, text in chain)}"
    name = parse(written)
    assert str(name) == canonical
    assert parse(canonical) == name
    assert name.source == name.packed == source
    assert ":" not in canonical


@given(st.text(string.ascii_lowercase + string.digits + "@=,./:_- ", max_size=30))
def test_any_text_is_a_name_with_one_spelling_or_refused(text: str) -> None:
    try:
        name = parse(text)
    except ValueError:
        return
    assert parse(str(name)) == name
    assert ":" not in str(name)


@pytest.mark.parametrize("name", sorted(FILTERS))
def test_filter_is_part_of_what_is_packed(name: str) -> None:
    parsed = parse(f"folders/kaggle@filter={name},blur=1")
    packed = "folders/kaggle" if name == "bilinear" else f"folders/kaggle@filter={name}"
    assert parsed.packed == packed
    assert parsed.source == "folders/kaggle"
    assert str(parse(str(parsed))) == str(parsed)
    assert str(parsed).endswith("blur=1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cifak", ["'cifak'", "did you mean cifake"]),
        ("", ["unknown data set"]),
        ("folder/x", ["'folder/x'", "folders"]),
        ("cifake/x", ["'cifake/x'", "cifake"]),
        ("generators/x", ["unknown data set"]),
        ("folders/", ["lower-case letters"]),
        ("folders/A", ["'A'", "lower-case letters"]),
        ("folders/a:b", ["'a:b'", "lower-case letters"]),
        ("folders/a/b", ["'a/b'"]),
        ("cifake@", ["unknown step ''", "jpeg"]),
        ("cifake@jepg=50", ["'jepg=50'", "did you mean jpeg"]),
        ("cifake@jpeg", ["'jpeg'", "jpeg=Q", "whole number"]),
        ("cifake@jpeg=", ["'jpeg='", "jpeg=Q"]),
        ("cifake@jpeg=0", ["Q must be a whole number from 1 to 100"]),
        ("cifake@jpeg=101", ["from 1 to 100"]),
        ("cifake@jpeg=50.5", ["whole number"]),
        ("cifake@jpeg=5e1", ["jpeg=Q"]),
        ("cifake@blur=-1", ["blur=SIGMA"]),
        ("cifake@blur=nan", ["blur=SIGMA"]),
        ("cifake@blur=0", ["SIGMA must be from 0.1 to 16"]),
        ("cifake@blur=1.00001", ["4 decimals"]),
        ("cifake@resize=32", ["from 1 to 31"]),
        ("cifake@noise=129", ["from 0.1 to 128"]),
        ("cifake@greyscale=1", ["takes no value", "write greyscale"]),
        ("cifake@filter=box", ["for folder sets"]),
        ("folders@filter=boxx", ["unknown filter", "box"]),
        ("folders@blur=1,filter=box", ["must come first"]),
        ("folders@filter=box,filter=box", ["must come first"]),
        ("cifake@" + ",".join(["blur=1"] * 9), ["9 steps; at most 8"]),
        ("blur=1", ["YAML", '"NAME@STEP,STEP"']),
        ("cifak@jpeg=0,blr=1", ["did you mean cifake", "from 1 to 100", "did you mean blur"]),
    ],
)
def test_wrong_name_is_refused_with_everything_that_is_wrong(text: str, said: list[str]) -> None:
    with pytest.raises(ValueError, match=re.escape(said[0])) as caught:
        parse(text)
    for part in said:
        assert part in str(caught.value)


def test_variant_is_its_set_without_a_published_fingerprint() -> None:
    whole, variant = dataset("cifake"), dataset("cifake@jpeg=50")
    assert whole.published is not None
    assert variant.published is None
    assert (variant.read, variant.trains, variant.file_names) == (
        whole.read,
        whole.trains,
        whole.file_names,
    )
    assert not dataset("generators@blur=1").trains


def test_every_set_and_step_has_a_line() -> None:
    assert [form.partition("=")[0] for form, _ in grammar()] == [*CORRUPTIONS, "filter"]
    assert all(known.description and known.licence for known in DATASETS.values())
    assert all(":" not in name for name in DATASETS)

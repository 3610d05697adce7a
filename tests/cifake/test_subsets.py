"""Stratified draws give every stratum its share, and never the same image twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cifake import tables
from cifake.config import DataSettings
from cifake.data.pack import Pack, PackInfo
from cifake.data.subsets import split_rows, stratified
from cifake.errors import InputError


def _pack(strata: list[tuple[str, int, str | None]]) -> Pack:
    """A pack of black images with these splits, labels and classes."""
    rows = [
        {"image_id": i, "split": split, "label": label, "content_class": name}
        for i, (split, label, name) in enumerate(strata)
    ]
    info = PackInfo(1, "x", "0" * 16, len(rows), "test")
    pixels = np.zeros((len(rows), 32, 32, 3), np.uint8)
    return Pack(Path(), info, pixels, tables.TABLES["images"].from_rows(rows))


_image = st.tuples(
    st.sampled_from(["train", "train", "train", "test"]),
    st.integers(0, 1),
    st.sampled_from(["bird", "cat", "dog", None]),
)
packs = st.lists(_image, min_size=2, max_size=120).map(_pack)


@st.composite
def packs_with_settings(draw: st.DrawFn) -> tuple[Pack, DataSettings]:
    pack = draw(packs.filter(lambda pack: len(pack.rows("train")) >= 2))
    total = len(pack.rows("train"))
    validation = draw(st.integers(0, total - 2))
    train_images = draw(st.none() | st.integers(2, total - validation))
    seed = draw(st.integers(0, 2**31))
    asked = DataSettings(validation=validation, train_images=train_images, validation_seed=seed)
    return pack, asked


def _shares(pack: Pack, rows: np.ndarray) -> dict[tuple[int, str | None], int]:
    found: dict[tuple[int, str | None], int] = {}
    for label, name in zip(pack.labels[rows], pack.words("content_class", rows), strict=True):
        found[int(label), name] = found.get((int(label), name), 0) + 1
    return found


def _within_one_of_its_share(pack: Pack, drawn: np.ndarray, source: np.ndarray) -> None:
    counts = _shares(pack, drawn)
    for stratum, size in _shares(pack, source).items():
        share = size * len(drawn) / len(source)
        assert abs(counts.get(stratum, 0) - share) < 1


@settings(deadline=None)
@given(packs_with_settings())
def test_sizes_are_exact_and_the_parts_disjoint(case: tuple[Pack, DataSettings]) -> None:
    pack, asked = case
    split = split_rows(pack, asked)
    rows = pack.rows("train")
    wanted = asked.train_images
    assert len(split.validation) == asked.validation
    assert len(split.train) == (len(rows) - asked.validation if wanted is None else wanted)
    assert set(split.train).isdisjoint(split.validation)
    assert set(split.train) | set(split.validation) <= set(rows)
    for part in (split.train, split.validation):
        assert (np.diff(part) > 0).all()
        assert part.dtype == np.int64


@settings(deadline=None)
@given(packs_with_settings())
def test_every_stratum_gives_its_share_within_one(case: tuple[Pack, DataSettings]) -> None:
    pack, asked = case
    split = split_rows(pack, asked)
    rows = pack.rows("train")
    _within_one_of_its_share(pack, split.validation, rows)
    _within_one_of_its_share(pack, split.train, np.setdiff1d(rows, split.validation))


@settings(deadline=None)
@given(packs_with_settings())
def test_draw_is_a_function_of_its_settings(case: tuple[Pack, DataSettings]) -> None:
    pack, asked = case
    first, second = split_rows(pack, asked), split_rows(pack, asked)
    np.testing.assert_array_equal(first.train, second.train)
    np.testing.assert_array_equal(first.validation, second.validation)


@settings(deadline=None)
@given(packs_with_settings())
def test_validation_does_not_depend_on_the_training_subset(
    case: tuple[Pack, DataSettings],
) -> None:
    pack, asked = case
    whole = asked.model_copy(update={"train_images": None})
    np.testing.assert_array_equal(
        split_rows(pack, asked).validation, split_rows(pack, whole).validation
    )


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(0, 60), min_size=1, max_size=12).filter(any),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_drawn_positions_are_the_first_of_their_stratum(
    sizes: list[int], share: float, seed: int
) -> None:
    strata = np.repeat(np.arange(len(sizes)), sizes)
    count = int(share * len(strata))
    order = np.random.default_rng(seed).permutation(len(strata))
    drawn = stratified(strata, count, order)
    assert len(drawn) == len(set(drawn)) == count
    for stratum in range(len(sizes)):
        members = [position for position in order if strata[position] == stratum]
        chosen = set(drawn) & set(members)
        assert chosen == set(members[: len(chosen)])


def test_another_seed_draws_other_images(demo: Pack) -> None:
    drawn = [
        set(split_rows(demo, DataSettings(validation=400, validation_seed=seed)).validation)
        for seed in (0, 1)
    ]
    assert drawn[0] != drawn[1]


def test_demo_split_is_even_over_labels_and_classes(demo: Pack) -> None:
    split = split_rows(demo, DataSettings(validation=400, train_images=1000))
    assert set(_shares(demo, split.validation).values()) == {20}
    assert set(_shares(demo, split.train).values()) == {50}


def test_no_validation_leaves_every_training_image(demo: Pack) -> None:
    split = split_rows(demo, DataSettings(validation=0))
    np.testing.assert_array_equal(split.train, demo.rows("train"))
    assert len(split.validation) == 0


@pytest.mark.parametrize(
    ("asked", "field", "value", "limit"),
    [
        (DataSettings(validation=4000), "data.validation", "4000", "4,000"),
        (DataSettings(validation=3999), "data.validation", "3999", "4,000"),
        (DataSettings(validation=5000), "data.validation", "5000", "4,000"),
        (DataSettings(validation=400, train_images=3601), "data.train_images", "3601", "3,600"),
    ],
)
def test_more_images_than_there_are_is_refused_with_the_field(
    asked: DataSettings, field: str, value: str, limit: str, demo: Pack
) -> None:
    with pytest.raises(InputError) as caught:
        split_rows(demo, asked, "study.yaml")
    for text in ("study.yaml", field, value, limit):
        assert text in str(caught.value)


def test_all_that_is_left_can_be_asked_for(demo: Pack) -> None:
    split = split_rows(demo, DataSettings(validation=400, train_images=3600))
    assert len(split.train) == 3600
    assert len(split_rows(demo, DataSettings(validation=3998)).train) == 2

"""Stratified draws give every stratum its share, and never the same image twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

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


# One class, all but one, and as many of each


def _classes(pack: Pack, rows: np.ndarray) -> set[str | None]:
    return set(pack.words("content_class", rows))


@st.composite
def packs_of_both_labels(draw: st.DrawFn) -> tuple[Pack, str]:
    """A pack in which a class has at least two training images of each label, and that class."""
    name = draw(st.sampled_from(["bird", "cat", "dog"]))
    both = [("train", label, other) for label in (0, 1) for other in (name, "horse")] * 2
    return _pack(both + draw(st.lists(_image, max_size=100))), name


@settings(deadline=None)
@given(packs_of_both_labels(), st.data())
def test_one_class_only_draws_from_its_training_images_alone(
    case: tuple[Pack, str], data: st.DataObject
) -> None:
    pack, name = case
    rows = pack.rows("train")
    own = [row for row in rows if pack.words("content_class", np.asarray([row])) == [name]]
    validation = data.draw(st.integers(0, len(own) - 2))
    split = split_rows(pack, DataSettings(validation=validation, only=name))
    assert sorted([*split.train, *split.validation]) == own
    assert len(split.validation) == validation


@settings(deadline=None)
@given(packs_of_both_labels(), st.data())
def test_left_out_class_is_in_neither_part_and_every_other_image_in_one(
    case: tuple[Pack, str], data: st.DataObject
) -> None:
    pack, name = case
    rows = pack.rows("train")
    others = [row for row in rows if pack.words("content_class", np.asarray([row])) != [name]]
    validation = data.draw(st.integers(0, len(others) - 2))
    split = split_rows(pack, DataSettings(validation=validation, leave_out=name))
    assert sorted([*split.train, *split.validation]) == others
    assert name not in _classes(pack, split.train) | _classes(pack, split.validation)


@settings(deadline=None)
@given(packs_of_both_labels(), st.integers(0, 2**31))
def test_as_many_of_every_label_and_class_as_asked_for(case: tuple[Pack, str], seed: int) -> None:
    pack, _ = case
    rows = pack.rows("train")
    least = min(_shares(pack, rows).values())
    for wanted in range(1, least + 1):
        asked = DataSettings(validation=0, images_per_class=wanted, validation_seed=seed)
        split = split_rows(pack, asked)
        assert set(_shares(pack, split.train).values()) == {wanted}
        assert _shares(pack, split.train).keys() == _shares(pack, rows).keys()
        assert (np.diff(split.train) > 0).all()
    with pytest.raises(InputError, match="images_per_class"):
        split_rows(pack, DataSettings(validation=0, images_per_class=least + 1))


def test_more_images_of_a_class_hold_those_of_fewer(demo: Pack) -> None:
    drawn = [
        split_rows(demo, DataSettings(validation=400, images_per_class=wanted))
        for wanted in (10, 60)
    ]
    assert set(drawn[0].train) < set(drawn[1].train)
    whole = split_rows(demo, DataSettings(validation=400))
    for split in drawn:
        np.testing.assert_array_equal(split.validation, whole.validation)


def test_draws_without_a_restriction_are_those_of_stratified_alone(demo: Pack) -> None:
    """The rows that runs of earlier releases were trained on."""
    rows = demo.rows("train")
    split = split_rows(demo, DataSettings(validation=400, validation_seed=3, train_images=1000))
    keys = list(zip(demo.labels[rows], demo.words("content_class", rows), strict=True))
    numbers = {key: number for number, key in enumerate(sorted(set(keys)))}
    strata = np.asarray([numbers[key] for key in keys])
    order = np.random.default_rng(3).permutation(len(rows))
    validation = stratified(strata, 400, order)
    np.testing.assert_array_equal(split.validation, rows[validation])
    left = np.asarray([position for position in order if position not in set(validation)])
    train = np.concatenate([left[strata[left] == number][:50] for number in range(20)])
    np.testing.assert_array_equal(split.train, rows[np.sort(train)])


def test_test_split_keeps_every_class(demo: Pack) -> None:
    before = len(demo.rows("test"))
    split_rows(demo, DataSettings(validation=100, only="china1"))
    assert len(demo.rows("test")) == before


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"only": "chnia1"}, ["data.only", "chnia1", "china1", "flower5"]),
        ({"leave_out": "cat"}, ["data.leave_out", "cat", "china1"]),
        ({"only": ""}, ["data.only", "valid: china1"]),
        ({"images_per_class": 181}, ["data.images_per_class", "FAKE china1 has 180 left"]),
        ({"images_per_class": 181}, ["REAL flower5 has 180 left"]),
        ({"only": "china1", "validation": 399}, ["data.validation", "2 of the 400"]),
        ({"only": "china1", "train_images": 1}, ["greater than or equal to 2"]),
        ({"only": "china1", "validation": 0, "train_images": 401}, ["at most the 400"]),
        ({"train_images": 20, "images_per_class": 2}, ["keep one of the two"]),
        ({"only": "china1", "leave_out": "china2"}, ["leaves out all others"]),
    ],
)
def test_impossible_subset_is_refused_with_the_field_and_what_is_right(
    asked: dict[str, Any], said: list[str], demo: Pack
) -> None:
    with pytest.raises((InputError, ValidationError)) as caught:
        split_rows(demo, DataSettings(**{"validation": 400, **asked}), "study.yaml")
    for text in said:
        assert text in str(caught.value)


def test_class_of_one_label_only_is_refused() -> None:
    pack = _pack([("train", 0, "bird"), ("train", 0, "bird"), ("train", 1, "cat")] * 3)
    with pytest.raises(InputError, match=r"data\.only: 'bird': .*one label"):
        split_rows(pack, DataSettings(validation=0, only="bird"))


def test_seed_of_no_draw_is_dropped_and_that_of_a_draw_kept() -> None:
    kept: dict[str, Any] = {"validation_seed": 7, "validation": 0}
    assert DataSettings(**kept).validation_seed == 0
    assert DataSettings(**kept, only="cat").validation_seed == 0
    assert DataSettings(**kept, images_per_class=3).validation_seed == 7

"""Variance split over the parameters of a grid, against statsmodels, least squares and hand."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.anova import anova_lm

from sweeps.statistics import Term, decompose, flip_p, paired

Label = dict[str, Any]
Names = tuple[str, ...]


def grid(**values: Sequence[Any]) -> list[Label]:
    """Every combination."""
    return [dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())]


def by_name(terms: Sequence[Term]) -> dict[Names | str, Term]:
    """Terms by their parameters, seed and residual by their kind."""
    return {term.parameters or term.kind: term for term in terms}


def effects_of(term: Term) -> dict[Any, float]:
    """The effect of each value of one parameter, or of each pair of values."""
    return {
        tuple(level.values.values())
        if len(level.values) > 1
        else next(iter(level.values.values())): level.effect
        for level in term.levels
    }


def noisy(labels: Sequence[Label], seeds: int, seed: int = 0, holes: float = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(len(labels), seeds)) + rng.normal(size=seeds)
    values[rng.random(values.shape) < holes] = np.nan
    return values


def long(labels: Sequence[Label], values: np.ndarray) -> pd.DataFrame:
    rows = [
        {**label, "seed": seed, "y": value}
        for label, row in zip(labels, values, strict=True)
        for seed, value in enumerate(row)
    ]
    return pd.DataFrame(rows).dropna(subset="y")


# Sums of squares.


@pytest.mark.parametrize("holes", [0, 0.15, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_sums_of_squares_are_those_of_statsmodels(holes: float, seed: int) -> None:
    labels = grid(a=["x", "y", "z"], b=[1, 2], c=[0.1, 1.0])
    values = noisy(labels, 5, seed, holes)
    model = smf.ols("y ~ C(seed) + C(a) * C(b) * C(c)", long(labels, values)).fit()
    expected = anova_lm(model, typ=2)
    found = by_name(decompose(labels, values))
    names: dict[Names | str, str] = {"seed": "C(seed)", "residual": "Residual"}
    for size in (1, 2, 3):
        for chosen in itertools.combinations("abc", size):
            names[chosen] = ":".join(f"C({name})" for name in chosen)
    assert set(found) == set(names)
    for key, name in names.items():
        assert found[key].df == expected["df"][name]
        assert found[key].sum_of_squares == pytest.approx(expected["sum_sq"][name], rel=1e-9)
    assert found["residual"].n == len(long(labels, values))


def _explained(columns: Sequence[Sequence[Any]], y: np.ndarray) -> tuple[float, int]:
    """What indicator columns of some groupings explain of y, and their rank."""
    dummies = [pd.get_dummies(pd.Series([str(v) for v in column])) for column in columns]
    design = np.hstack([np.ones((len(y), 1)), *(each.to_numpy(np.float64) for each in dummies)])
    fitted, _, rank, _ = np.linalg.lstsq(design, y, rcond=1e-9)
    return float(y @ y - np.square(y - design @ fitted).sum()), int(rank)


@pytest.mark.parametrize("seed", range(3))
def test_a_nested_parameter_is_split_off_within_the_one_it_is_nested_in(seed: int) -> None:
    labels = [{"attention": "none", "placement": None, "lr": lr} for lr in (1, 2)]
    labels += grid(attention=["srm", "se"], placement=["first", "last", "both"], lr=[1, 2])
    values = noisy(labels, 4, seed, 0.1)
    rows = long(labels, values)
    y = (rows["y"] - rows["y"].mean()).to_numpy()
    seeds, attention, lr = (rows[name].tolist() for name in ("seed", "attention", "lr"))
    placement = [str(value) for value in rows["placement"]]
    both = [*zip(attention, placement, strict=True)]
    attention_lr = [*zip(attention, lr, strict=True)]
    placement_lr = [*zip(placement, lr, strict=True)]
    cases: dict[Names, tuple[list[Any], list[Any]]] = {
        # What a term is taken beside, and the term. The parameter that another is nested in leaves
        # all of the other's terms out.
        ("attention",): ([seeds, lr], [attention]),
        ("placement",): ([seeds, attention, lr, attention_lr], [placement]),
        ("lr",): ([seeds, attention, placement, both], [lr]),
        ("attention", "placement"): (
            [seeds, attention, placement, lr, attention_lr, placement_lr],
            [both],
        ),
        ("attention", "lr"): ([seeds, attention, placement, lr, both], [attention_lr]),
        ("placement", "lr"): (
            [seeds, attention, placement, lr, both, attention_lr],
            [placement_lr],
        ),
    }
    found = by_name(decompose(labels, values))
    for key, (beside, own) in cases.items():
        less, less_rank = _explained(beside, y)
        more, more_rank = _explained([*beside, *own], y)
        assert found[key].sum_of_squares == pytest.approx(more - less, abs=1e-9), key
        assert found[key].df == more_rank - less_rank, key


def test_a_placement_is_compared_where_there_is_attention_alone() -> None:
    labels: list[Label] = [
        {"attention": "none", "placement": None},
        {"attention": "srm", "placement": "first"},
        {"attention": "srm", "placement": "both"},
    ]
    # Means 1, 4 and 6; each seed adds its own level.
    values = np.asarray([[1.0], [4.0], [6.0]]) + np.asarray([[-0.5, 0.5]])
    found = by_name(decompose(labels, values))
    assert effects_of(found[("attention",)]) == pytest.approx({"none": -2, "srm": 2})
    assert effects_of(found[("placement",)]) == pytest.approx({"first": -1, "both": 1})
    # Two seeds: none against srm is 2 · (1 · (1 − 11/3)² + 2 · (5 − 11/3)²), within srm 2 · 2 · 1².
    assert found[("attention",)].sum_of_squares == pytest.approx(64 / 3)
    assert found[("placement",)].sum_of_squares == pytest.approx(4)
    assert found["seed"].sum_of_squares == pytest.approx(6 * 0.25)
    assert found["residual"].sum_of_squares == pytest.approx(0, abs=1e-12)
    assert [found[key].df for key in found] == [1, 1, 1, 2]
    assert ("attention", "placement") not in found
    assert found[("placement",)].n == 4


def test_a_balanced_design_is_split_as_by_hand() -> None:
    labels = grid(a=["x", "y"], b=[1, 2])
    # Grand mean 5; a adds ∓2, b adds ∓1, together ±0.5; seeds add −1, 0 and 1.
    cells = np.asarray([5 - 2 - 1 + 0.5, 5 - 2 + 1 - 0.5, 5 + 2 - 1 - 0.5, 5 + 2 + 1 + 0.5])
    found = by_name(decompose(labels, cells[:, np.newaxis] + np.asarray([-1.0, 0.0, 1.0])))
    squares = {("a",): 48, ("b",): 12, ("a", "b"): 3, "seed": 8, "residual": 0}
    for key, expected in squares.items():
        assert found[key].sum_of_squares == pytest.approx(expected, abs=1e-12)
        assert found[key].share == pytest.approx(expected / 71, abs=1e-12)
    assert effects_of(found[("a",)]) == pytest.approx({"x": -2, "y": 2})
    assert effects_of(found[("b",)]) == pytest.approx({1: -1, 2: 1})
    assert effects_of(found[("a", "b")]) == pytest.approx(
        {("x", 1): 0.5, ("x", 2): -0.5, ("y", 1): -0.5, ("y", 2): 0.5}
    )
    assert {level.n for level in found[("a",)].levels} == {6}
    assert found["residual"].df == 6


@given(
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    seeds=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_shares_of_a_design_without_gaps_add_up_to_one_and_so_do_degrees_of_freedom(
    sizes: list[int], seeds: int, seed: int
) -> None:
    labels = grid(**{f"p{n}": range(size) for n, size in enumerate(sizes)})
    found = decompose(labels, noisy(labels, seeds, seed))
    if max(sizes) == 1:
        assert found == []
        return
    assert sum(term.share or 0 for term in found) == pytest.approx(1)
    assert sum(term.df for term in found) == len(labels) * seeds - 1
    for term in found:
        if term.kind in ("main", "interaction") and term.levels:
            assert sum(level.effect for level in term.levels) == pytest.approx(0, abs=1e-9)


def test_what_only_three_parameters_make_together_is_a_term_of_its_own() -> None:
    labels = grid(a=[0, 1], b=[0, 1], c=[0, 1])
    parity = np.asarray([(-1.0) ** (label["a"] + label["b"] + label["c"]) for label in labels])
    found = by_name(decompose(labels, parity[:, np.newaxis] + np.zeros((1, 3))))
    assert found[("a", "b", "c")].share == pytest.approx(1)
    assert found[("a", "b", "c")].df == 1
    assert found["residual"].share == pytest.approx(0, abs=1e-12)


def test_what_a_seed_gives_to_all_is_the_seeds_and_what_one_run_has_is_residual() -> None:
    labels = grid(a=[0, 1, 2])
    values = np.zeros((3, 4)) + np.asarray([0.0, 1.0, 2.0, 3.0])
    found = by_name(decompose(labels, values))
    assert found["seed"].share == pytest.approx(1)
    values[1, 2] += 5
    assert (by_name(decompose(labels, values))["residual"].share or 0) > 0.2


# Gaps.


@given(seed=st.integers(0, 10_000), holes=st.floats(0, 0.3))
@settings(max_examples=40, deadline=None)
def test_effects_that_add_up_are_found_again_whatever_is_missing(seed: int, holes: float) -> None:
    labels = grid(a=["x", "y", "z"], b=[1, 2, 3])
    of_a, of_b = {"x": -1.0, "y": -1.0, "z": 2.0}, {1: 0.5, 2: 0.0, 3: -0.5}
    rng = np.random.default_rng(seed)
    values = np.asarray([[of_a[label["a"]] + of_b[label["b"]]] for label in labels])
    values = values + rng.normal(size=4)
    values[rng.random(values.shape) < holes] = np.nan
    found = by_name(decompose(labels, values))
    for key, expected in ((("a",), of_a), (("b",), of_b)):
        if found[key].levels:
            assert effects_of(found[key]) == pytest.approx(expected, abs=1e-9)
    assert found["residual"].sum_of_squares == pytest.approx(0, abs=1e-9)


def test_a_seed_that_lacks_a_level_says_nothing_of_it_and_all_of_the_rest() -> None:
    labels = grid(a=["x", "y"], b=[1, 2])
    values = noisy(labels, 6)
    values[:2, 5] = np.nan  # seed 5 has no x
    found = by_name(decompose(labels, values))
    assert (found[("a",)].seeds, found[("b",)].seeds) == (5, 6)
    without = by_name(decompose(labels, values[:, :5]))
    assert found[("a",)].levels[0].effect == pytest.approx(without[("a",)].levels[0].effect)
    assert found[("a",)].p == without[("a",)].p


def test_columns_of_one_unit_are_averaged_before_they_are_tested() -> None:
    labels = grid(a=["x", "y", "z"], b=[1, 2])
    values = noisy(labels, 12)
    units = [0, 1, 2, 3, 4, 5] * 2
    found = by_name(decompose(labels, values, units))
    means = by_name(decompose(labels, (values[:, :6] + values[:, 6:]) / 2))
    plain = by_name(decompose(labels, values))
    for name in (("a",), ("b",), ("a", "b")):
        assert found[name].seeds == 6
        assert found[name].p == pytest.approx(means[name].p)
        assert found[name].share == plain[name].share
        for level, same in zip(found[name].levels, means[name].levels, strict=True):
            assert level.effect == pytest.approx(same.effect)
            assert (level.low, level.high) == (pytest.approx(same.low), pytest.approx(same.high))
    order = np.random.default_rng(1).permutation(12)
    again = by_name(decompose(labels, values[:, order], [units[place] for place in order]))
    assert again[("a",)].p == found[("a",)].p


@pytest.mark.parametrize("gap", [(0, 0), (1, 0), (0, 2)])
def test_what_is_tested_has_a_part_in_what_can_be_told(gap: tuple[int, int]) -> None:
    """Of five cells one contrast is left to the interaction, in which some pairs have no part."""
    labels = [each for each in grid(a=[0, 1], b=[0, 1, 2]) if (each["a"], each["b"]) != gap]
    values = 0.01 * noisy(labels, 8)
    column = (gap[1] + 1) % 3
    values[[each == {"a": 1, "b": column} for each in labels]] += 5
    term = by_name(decompose(labels, values))[("a", "b")]
    assert (term.df, term.p) == (1, 2 / 2**8)


def test_parameters_that_change_together_are_not_told_apart() -> None:
    labels = [{"a": n, "b": str(n), "c": c} for n in (1, 2) for c in (1, 2)]
    found = by_name(decompose(labels, noisy(labels, 6)))
    for key in (("a",), ("b",)):
        term = found[key]
        assert (term.df, term.sum_of_squares, term.share, term.p) == (0, None, None, None)
        assert term.levels == ()
    assert found[("c",)].df == 1


def test_a_combination_that_is_missing_altogether_leaves_the_rest() -> None:
    labels = grid(a=["x", "y", "z"], b=[1, 2])[:-1]
    values = noisy(labels, 5)
    model = smf.ols("y ~ C(seed) + C(a) + C(b)", long(labels, values)).fit()
    expected = anova_lm(model, typ=2)
    found = by_name(decompose(labels, values))
    assert found[("a",)].sum_of_squares == pytest.approx(expected["sum_sq"]["C(a)"])
    assert found[("b",)].sum_of_squares == pytest.approx(expected["sum_sq"]["C(b)"])
    assert found[("a", "b")].df == 1


def test_null_is_a_value_where_no_other_parameter_decides_it() -> None:
    labels: list[Label] = [{"a": a, "clip": clip} for a in (1, 2) for clip in (None, 0.5)]
    found = by_name(decompose(labels, noisy(labels, 3)))
    assert [level.values for level in found[("clip",)].levels] == [{"clip": None}, {"clip": 0.5}]


def test_of_parameters_that_are_absent_together_one_stands_for_that() -> None:
    labels: list[Label] = [{"p": None, "q": None}, *grid(p=[1, 2], q=[3, 4])]
    found = by_name(decompose(labels, noisy(labels, 4)))
    assert [level.values["p"] for level in found[("p",)].levels] == [None, 1, 2]
    assert [level.values["q"] for level in found[("q",)].levels] == [3, 4]
    assert (found[("p",)].df, found[("q",)].df, found[("p", "q")].df) == (2, 1, 1)


@pytest.mark.parametrize(
    ("labels", "values"),
    [
        ([], np.zeros((0, 3))),
        ([{"a": 1}], np.ones((1, 4))),
        ([{"a": 1, "b": 2}, {"a": 2, "b": 2}], np.asarray([[1.0], [np.nan]])),
        ([{"a": 1}, {"a": 2}], np.full((2, 2), np.nan)),
    ],
)
def test_without_two_values_of_a_parameter_there_is_nothing_to_split(
    labels: list[Label], values: np.ndarray
) -> None:
    assert decompose(labels, values) == []


def test_one_seed_gives_shares_and_no_p_and_no_interval() -> None:
    labels = grid(a=["x", "y"], b=[1, 2], c=[1, 2])
    found = by_name(decompose(labels, noisy(labels, 1)))
    assert "seed" not in found
    assert ("a", "b", "c") not in found, "it is one with the residual"
    assert (found["residual"].df, found[("a",)].p) == (1, None)
    assert {(level.low, level.high) for level in found[("a",)].levels} == {(None, None)}
    assert sum(term.share or 0 for term in found.values()) == pytest.approx(1)


def test_equal_values_have_no_shares() -> None:
    labels = grid(a=["x", "y"], b=[1, 2])
    for term in decompose(labels, np.full((4, 6), 0.1)):
        assert (term.sum_of_squares, term.share) == (0, None)
        assert term.p in (1, None)
        for level in term.levels:
            assert (level.effect, level.low, level.high) == (0, 0, 0)


def test_what_rounding_alone_makes_is_no_effect() -> None:
    labels = grid(a=["x", "y"], b=[1, 2], c=[1, 2])
    of_b = np.asarray([[0.1 * label["b"] + 0.7] for label in labels])
    found = by_name(decompose(labels, of_b + np.asarray([0.01, 0.03, 0.07, 0.11, 0.13, 0.17])))
    assert found[("b",)].p == pytest.approx(2 / 2**6)
    for key in (("a",), ("a", "b"), ("b", "c")):
        assert found[key].p == 1
        assert {level.effect for level in found[key].levels} == {0}


# Order.


@given(
    seed=st.integers(0, 1000), shuffle=st.randoms(use_true_random=False), holes=st.floats(0, 0.2)
)
@settings(max_examples=20, deadline=None)
def test_the_order_of_cells_and_of_seeds_changes_nothing(
    seed: int, shuffle: random.Random, holes: float
) -> None:
    labels = grid(a=["x", "y", "z"], b=[1, 2])
    values = noisy(labels, 5, seed, holes)
    cells, seeds = [*range(6)], [*range(5)]
    shuffle.shuffle(cells)
    shuffle.shuffle(seeds)
    found = by_name(decompose(labels, values))
    other = by_name(decompose([labels[cell] for cell in cells], values[cells][:, seeds]))
    assert set(found) == set(other)
    for key, term in found.items():
        assert (other[key].df, other[key].n, other[key].p) == (term.df, term.n, term.p)
        assert other[key].sum_of_squares == pytest.approx(term.sum_of_squares, abs=1e-9)
        assert effects_of(other[key]) == pytest.approx(effects_of(term), abs=1e-9)


# Tests and intervals.


@pytest.mark.parametrize("seeds", [2, 7, 20])
def test_one_parameter_of_two_values_is_the_paired_comparison(seeds: int) -> None:
    labels = grid(a=["x", "y"])
    values = noisy(labels, seeds, 3)
    expected = paired(values[0], values[1])
    term = by_name(decompose(labels, values))[("a",)]
    assert term.p == pytest.approx(expected.p)
    first = term.levels[0]
    assert first.effect == pytest.approx(expected.difference / 2)
    assert (first.low, first.high) == pytest.approx((expected.low / 2, expected.high / 2))


def test_the_interval_is_that_of_the_seeds_own_effects() -> None:
    labels = grid(a=["x", "y", "z"], b=[1, 2])
    values = noisy(labels, 5, 8)
    level = by_name(decompose(labels, values))[("a",)].levels[1]
    own = values[2:4].mean(axis=0) - values.mean(axis=0)
    expected = stats.ttest_1samp(own, 0).confidence_interval()
    assert level.effect == pytest.approx(own.mean())
    assert (level.low, level.high) == pytest.approx((expected.low, expected.high))


@given(n=st.integers(2, 6), k=st.integers(1, 3), seed=st.integers(0, 1000))
@settings(max_examples=40)
def test_the_flip_test_goes_through_every_flip(n: int, k: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).integers(-2, 3, (n, k)).astype(np.float64)
    lengths = [
        np.square(np.asarray(signs) @ vectors).sum()
        for signs in itertools.product((1, -1), repeat=n)
    ]
    assert flip_p(vectors) == np.mean(np.asarray(lengths) >= lengths[0] - 1e-9)


def test_of_many_seeds_flips_are_drawn_and_say_nearly_the_same() -> None:
    vectors = np.random.default_rng(0).normal(0.25, 1, (25, 1))
    expected = stats.permutation_test(
        (vectors[:, 0],), np.mean, permutation_type="samples", n_resamples=50_000, rng=1
    )
    assert flip_p(vectors) == pytest.approx(expected.pvalue, abs=0.01)
    assert flip_p(vectors) == flip_p(vectors)
    assert flip_p(vectors + 10) == pytest.approx(1 / 20_001)


def _correlated(labels: Sequence[Mapping[str, Any]], rng: np.random.Generator) -> np.ndarray:
    """Nothing but noise: epochs of a run go together, and one config is ten times as noisy."""
    shared = rng.normal(size=6)
    runs = {a: shared + rng.normal(size=6) * (10 if a == "x" else 1) for a in "xyz"}
    return np.asarray(
        [
            runs[label["a"]] + rng.normal(size=6) * (5 if label["epochs"] == 1 else 0.1)
            for label in labels
        ]
    )


def _rejected(sweeps: int) -> dict[Names, float]:
    """How often each term of such sweeps has a p of at most 1/16, which 6 seeds can give."""
    labels = grid(a=["x", "y", "z"], epochs=[1, 2, 5])
    rng = np.random.default_rng(2026)
    found: dict[Names, list[bool]] = {}
    for _ in range(sweeps):
        for term in decompose(labels, _correlated(labels, rng)):
            if term.p is not None:
                found.setdefault(term.parameters, []).append(term.p <= 1 / 16 + 1e-12)
    return {key: float(np.mean(rejected)) for key, rejected in found.items()}


def test_noise_is_called_an_effect_as_often_as_p_says_however_milestones_go_together() -> None:
    rejected = _rejected(400)
    assert set(rejected) == {("a",), ("epochs",), ("a", "epochs")}
    for share in rejected.values():
        assert 0.03 <= share <= 0.1


@pytest.mark.long
def test_noise_is_called_an_effect_in_one_of_sixteen_sweeps() -> None:
    for share in _rejected(6000).values():
        assert share == pytest.approx(1 / 16, abs=0.01)


def test_the_interval_of_an_effect_covers_it_as_often_as_it_says() -> None:
    labels = grid(a=["x", "y", "z"], epochs=[1, 2, 5])
    rng = np.random.default_rng(9)
    covered = []
    for _ in range(400):
        levels = by_name(decompose(labels, _correlated(labels, rng)))[("a",)].levels
        covered += [(level.low or 0) <= 0 <= (level.high or 0) for level in levels]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.03)


def test_a_large_grid_leaves_twos_in_one_term_with_what_goes_beyond() -> None:
    labels = grid(a=range(30), b=range(25))
    values = noisy(labels, 2)
    found = by_name(decompose(labels, values))
    assert found[("a", "b")].df == 29 * 24
    assert (found[("a", "b")].p, found[("a", "b")].levels) == (None, ())
    assert sum(term.share or 0 for term in found.values()) == pytest.approx(1)

"""What of many configs is found at once is what is found of each by itself."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.statistics import seeds_needed_each
from sweeps.statistics.design import pseudo_inverse

_DIFFERENCES = st.sampled_from([np.nan, 0.0, 1e-7, 1e-5, 0.01, 0.02, -0.03, 5.0])


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(st.lists(_DIFFERENCES, min_size=4, max_size=4), min_size=1, max_size=6),
    power=st.sampled_from([0.5, 0.8, 0.99]),
)
def test_seeds_needed_of_many_are_those_of_each(rows: list[list[float]], power: float) -> None:
    values = np.asarray(rows)
    alone = [found for row in values for found in seeds_needed_each(row[np.newaxis], power=power)]
    assert seeds_needed_each(values, power=power) == alone


def test_a_matrix_is_inverted_by_what_it_holds() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 3, 8):
        root = rng.normal(size=(size, max(1, size - 1)))
        matrix = root @ root.T
        for scale in (1.0, 2.0):  # the same place in memory, other numbers
            matrix *= scale
            inverse, rank = pseudo_inverse(matrix)
            assert rank == max(1, size - 1)
            assert np.allclose(matrix @ inverse @ matrix, matrix)
            again, _ = pseudo_inverse(matrix.copy())
            assert again is inverse

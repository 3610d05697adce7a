"""What a search tried, in order, and what it optimises as the tables have it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cifake import tables
from cifake.tables import RunTable
from sweeps.objectives import fronts, means_by_epoch, values_by_epoch
from sweeps.proposals import best, proposals
from sweeps.spec import Search

ACCURACY = "validation.accuracy"


def search(**settings: Any) -> Search:
    space = {"optimizer.lr": {"log_uniform": [1e-3, 1e-1]}}
    return Search.model_validate({"trials": 4, "metric": ACCURACY, "space": space, **settings})


Accuracies = Mapping[float, Sequence[Sequence[float]]]


def searched(
    given: Accuracies, length: int = 2, parameters: int = 100, **label: Any
) -> tuple[list[dict[str, Any]], dict[RunTable, pa.Table]]:
    """Proposals by learning rate: for each seed, the accuracy of each epoch that it reached.

    An epoch takes a second for each hundredth of the learning rate.
    """
    runs: list[dict[str, Any]] = []
    epochs: list[dict[str, Any]] = []
    evaluations: list[dict[str, Any]] = []
    cells = []
    for lr, seeds in given.items():
        for seed, reached in enumerate(seeds):
            run_id = f"{lr}-{seed}-{json.dumps(label)}"
            cells.append(
                {
                    "label": json.dumps({**label, "optimizer.lr": lr}),
                    "nuisance": "{}",
                    "epochs": length,
                    "seed": seed,
                    "config_id": str(lr),
                    "run_id": run_id,
                    "stage": "search",
                    "role": "end",
                }
            )
            runs.append({"run_id": run_id, "parameters": parameters})
            for epoch, accuracy in enumerate(reached, 1):
                epochs.append({"run_id": run_id, "epoch": epoch, "seconds": 100 * lr})
                evaluations.append(_evaluation(run_id, epoch, accuracy))
    found: dict[RunTable, pa.Table] = {
        "epochs": tables.TABLES["epochs"].from_rows(epochs),
        "evaluations": tables.TABLES["evaluations"].from_rows(evaluations),
        "runs": pa.Table.from_pylist(
            runs, pa.schema([("run_id", pa.string()), ("parameters", pa.int64())])
        ),
    }
    return cells, found


def _evaluation(run_id: str, epoch: int, accuracy: float | None) -> dict[str, Any]:
    counts = dict.fromkeys(("tp", "fp", "tn", "fn"), 5)
    sizes = {"n": 20, "n_unreadable": 0, "n_deduplicated": 20, "threshold": 0.5}
    keys = {"run_id": run_id, "epoch": epoch, "dataset": "demo", "split": "validation"}
    return {**keys, **sizes, **counts, "accuracy": accuracy}


def cells_table(rows: list[dict[str, Any]]) -> pa.Table:
    return tables.TABLES["cells"].from_rows(rows)


def test_proposals_come_best_first_and_stopped_ones_after_them() -> None:
    cells, found = searched(
        {
            0.001: [[0.5, 0.6], [0.5, 0.7]],
            0.01: [[0.5, 0.8], [0.5, 0.9]],
            0.1: [[0.95], [0.97]],
            0.05: [[0.5, 0.7], [0.99]],
        }
    )
    tried = proposals(search(), cells_table(cells), found)
    assert [p.label["optimizer.lr"] for p in tried] == [0.01, 0.001, 0.1, 0.05]
    assert [p.stopped for p in tried] == [False, False, True, True]
    best, last = tried[0], tried[3]
    assert best.reached.scores[ACCURACY] == pytest.approx(0.85)
    assert best.reached.stds[ACCURACY] == pytest.approx(np.std([0.8, 0.9], ddof=1))
    assert (best.lows[ACCURACY], best.highs[ACCURACY], best.seeds) == (0.8, 0.9, 2)
    assert last.reached.epoch == 1, "the last epoch that all seeds reached"
    assert last.reached.scores[ACCURACY] == pytest.approx((0.5 + 0.99) / 2)


def test_a_search_for_the_least_puts_the_least_first() -> None:
    cells, found = searched({0.001: [[0, 0.6]] * 2, 0.01: [[0, 0.8]] * 2})
    tried = proposals(search(mode="min"), cells_table(cells), found)
    assert [p.label["optimizer.lr"] for p in tried] == [0.001, 0.01]


def test_proposals_that_reach_a_score_come_first_by_the_seconds_that_it_took() -> None:
    cells, found = searched(
        {
            0.01: [[0.80, 0.88, 0.91], [0.80, 0.96, 0.99]],
            0.04: [[0.91, 0.99], [0.93, 0.99]],
            0.02: [[0.5, 0.6, 0.7]] * 2,
            0.03: [[0.5, 0.6, 0.8]] * 2,
            0.05: [[0.85]] * 2,
        },
        length=3,
    )
    goal = Search.model_validate(
        {
            "trials": 4,
            "reach": {"metric": ACCURACY, "value": 0.91},
            "space": {"optimizer.lr": {"log_uniform": [1e-3, 1e-1]}},
        }
    )
    tried = proposals(goal, cells_table(cells), found)
    facts = [(p.label["optimizer.lr"], p.reached.epoch, p.short, p.stopped) for p in tried]
    assert facts == [
        (0.01, 2, False, False),
        (0.04, 1, False, False),
        (0.03, 3, True, False),
        (0.02, 3, True, False),
        (0.05, 1, True, True),
    ]
    assert tried[0].reached.scores == pytest.approx({"train_seconds": 2.0, ACCURACY: 0.92})
    assert [p.label["optimizer.lr"] for p in best(tried, [], 9)] == [0.01, 0.04]


def test_runs_that_were_trained_on_count_at_the_length_asked_for() -> None:
    cells, found = searched({0.01: [[0.5, 0.8, 0.1]] * 2})
    (tried,) = proposals(search(), cells_table(cells), found)
    assert (tried.reached.epoch, tried.reached.scores[ACCURACY]) == (2, pytest.approx(0.8))
    assert not tried.stopped


def test_other_stages_are_no_proposals() -> None:
    cells, found = searched({0.01: [[0.5, 0.8]] * 2})
    for row in cells:
        row["stage"] = "confirm"
    assert proposals(search(), cells_table(cells), found) == []


def test_a_front_comes_before_what_it_beats() -> None:
    cells, found = searched(
        {0.01: [[0, 0.7]] * 2, 0.02: [[0, 0.9]] * 2, 0.03: [[0, 0.8]] * 2, 0.04: [[0, 0.6]] * 2}
    )
    both = search(metric=[ACCURACY, "train_seconds"], mode=["max", "min"])
    tried = proposals(both, cells_table(cells), found)
    assert [p.label["optimizer.lr"] for p in tried] == [0.02, 0.01, 0.03, 0.04]
    assert [p.front for p in tried] == [0, 0, 1, 2]
    assert tried[0].reached.scores["train_seconds"] == pytest.approx(2 * 2.0)


def test_the_best_of_each_study_are_taken_and_none_that_was_stopped() -> None:
    first, one = searched({0.01: [[0, 0.9]], 0.02: [[0, 0.8]], 0.03: [[0, 0.7]]}, attention="none")
    second, two = searched({0.01: [[0, 0.1]], 0.02: [[0, 0.2]], 0.03: [[0.9]]}, attention="srm")
    both: dict[RunTable, pa.Table] = {
        name: pa.concat_tables([one[name], two[name]]).unify_dictionaries() for name in one
    }
    tried = proposals(search(), cells_table([*first, *second]), both)
    labels = [proposal.label for proposal in best(tried, ["attention"], 2)]
    assert [(label["attention"], label["optimizer.lr"]) for label in labels] == [
        ("none", 0.01), ("none", 0.02), ("srm", 0.02), ("srm", 0.01),
    ]  # fmt: skip


def test_a_seed_without_a_value_leaves_the_mean_without_one() -> None:
    cells, found = searched({0.01: [[0.5, 0.8], [0.5]]})
    values = values_by_epoch(found, [ACCURACY, "parameters"])
    runs = [row["run_id"] for row in cells]
    first, second = means_by_epoch(values, runs, [ACCURACY, "parameters"])
    assert first.scores == {ACCURACY: 0.5, "parameters": 100}
    assert np.isnan(second.scores[ACCURACY])
    assert second.epoch == 2


MODES = st.lists(st.sampled_from(["max", "min"]), min_size=3, max_size=3)


@given(
    values=hnp.arrays(
        np.float64,
        st.tuples(st.integers(0, 12), st.just(3)),
        elements=st.sampled_from([0.0, 1.0, 2.0]),
    ),
    modes=MODES,
)
def test_nothing_on_a_front_is_beaten_but_by_fronts_before(
    values: np.ndarray, modes: list[str]
) -> None:
    def beats(one: np.ndarray, other: np.ndarray) -> bool:
        gains = [
            (a - b) * (1 if mode == "max" else -1)
            for a, b, mode in zip(one, other, modes, strict=True)
        ]
        return min(gains) >= 0 and max(gains) > 0

    found = fronts(values, modes)
    for i, front in enumerate(found):
        beaten_by = [found[j] for j in range(len(values)) if beats(values[j], values[i])]
        assert all(other < front for other in beaten_by)
        assert front == 0 or max(beaten_by) == front - 1

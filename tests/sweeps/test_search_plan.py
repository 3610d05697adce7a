"""How long a search takes, as it is foreseen."""

from __future__ import annotations

from sweeps.search_plan import SearchPlan, StudyPlan


def planned(*trials: int | None, workers: int) -> SearchPlan:
    """Studies with so many trials left, of 3 seeds and 2 epochs of 10 s each: 60 s a trial."""
    studies = [StudyPlan(left, 0, 0, left, epochs=2, seconds=10.0) for left in trials]
    return SearchPlan(studies, seeds=3, workers=workers, confirm_runs=0, budget={})


def test_a_trial_is_not_divided_among_workers_and_studies_come_in_turn() -> None:
    assert planned(4, workers=1).predicted_seconds == 240
    assert planned(4, workers=2).predicted_seconds == 120
    assert planned(5, workers=2).predicted_seconds == 180
    assert planned(1, workers=16).predicted_seconds == 60
    assert planned(2, 2, 2, workers=16).predicted_seconds == 180
    assert planned(0, 1, workers=4).predicted_seconds == 60


def test_what_is_unknown_of_one_study_is_unknown_of_the_search() -> None:
    assert planned(4, None, workers=2).predicted_seconds is None

"""A study: what it proposes, when it stops a trial, what it spends, and what survives a restart."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest

from cifake.errors import InputError
from cifake.places import LocalPlace
from sweeps.objectives import Reached
from sweeps.search.storage import JOURNAL, open_storage
from sweeps.search.study import Ended, Proposal, Study, ended
from sweeps.spec import Resources, Search

LR = {"optimizer.lr": {"log_uniform": [1e-4, 1e-1]}}
TWO = {**LR, "optimizer.momentum": {"uniform": [0.0, 0.9]}}
CONDITIONAL = {
    "attention": {"choice": ["none", "srm"]},
    "placement": {"choice": ["after_pool1", "both"], "when": {"attention": "srm"}},
    "batch_size": {"int_uniform": [8, 9]},
}
METRIC = "validation.auroc"
EPOCHS = 4


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def search(space: Mapping[str, Any] = LR, **settings: Any) -> Search:
    return Search.model_validate({"trials": 10, "space": space, **settings})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_study(tmp_path: Path, clock: Clock) -> Callable[..., Study]:
    def opened(given: Search, **resources: float) -> Study:
        needs = Resources.model_validate(resources)
        storage = open_storage(LocalPlace(tmp_path), alone=True)
        return Study(given, {}, "one", storage, epochs=EPOCHS, resources=needs, clock=clock)

    return opened


@pytest.fixture
def told(tmp_path: Path) -> Callable[[], list[Ended]]:
    return lambda: ended(open_storage(LocalPlace(tmp_path), alone=True), "one")


def at(epoch: int, value: float, std: float = 0.01, metric: str = METRIC) -> Reached:
    return Reached(epoch, {metric: value}, {metric: std})


def trained(study: Study, proposal: Proposal, value: Callable[[int], float]) -> int:
    """Train a proposal as a trial would, and say how far it came."""
    for epoch in range(1, study.epochs + 1):
        if not study.goes_on(proposal.number, at(epoch, value(epoch))):
            break
    study.end(proposal.number, at(epoch, value(epoch)))
    return epoch


def proposed(study: Study) -> Iterator[Proposal]:
    while (proposal := study.propose()) is not None:
        yield proposal


# What is proposed.


@pytest.mark.parametrize(
    ("sampler", "space"),
    [
        ("tpe", CONDITIONAL | LR),
        ("random", CONDITIONAL | LR),
        ("gp", CONDITIONAL | LR),
        ("nsga2", CONDITIONAL | LR),
        ("cma_es", TWO),
    ],
)
def test_every_sampler_fills_its_budget_with_points_of_the_space(
    open_study: Callable[..., Study], sampler: str, space: Mapping[str, Any]
) -> None:
    study = open_study(search(space, sampler=sampler, trials=14))
    params = []
    for proposal in proposed(study):
        params.append(proposal.params)
        trained(study, proposal, lambda epoch: epoch / 10)
    assert len(params) == 14
    for each in params:
        assert 1e-4 <= each["optimizer.lr"] <= 1e-1
        assert ("placement" in each) == (each.get("attention") == "srm")


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cma_es"])
def test_a_sampler_that_learns_beats_random_draws(
    open_study: Callable[..., Study], sampler: str
) -> None:
    def distance(params: Mapping[str, Any]) -> float:
        return abs(math.log10(params["optimizer.lr"]) + 2) + abs(params["optimizer.momentum"] - 0.6)

    study = open_study(search(TWO, sampler=sampler, trials=24, mode="min"))
    found = []
    for proposal in proposed(study):
        value = distance(proposal.params)
        trained(study, proposal, lambda _, value=value: value)
        found.append(value)
    drawn_at_random = (2**2 / 2 + 1 / 2) / 3 + (0.6**2 / 2 + 0.3**2 / 2) / 0.9
    assert sum(found[-8:]) / 8 < 0.7 * drawn_at_random


def test_a_grid_proposes_every_point_once_and_ends(open_study: Callable[..., Study]) -> None:
    study = open_study(search(CONDITIONAL, sampler="grid", trials=None))
    study.queue_grid()
    assert study.trials_left() == (1 + 2) * 2
    points = []
    for proposal in proposed(study):
        points.append(repr(sorted(proposal.params.items())))
        trained(study, proposal, float)
    assert len(points) == len(set(points)) == (1 + 2) * 2
    again = open_study(search(CONDITIONAL, sampler="grid", trials=None))
    again.queue_grid()
    assert again.propose() is None


def test_a_grid_goes_on_where_it_was_killed(open_study: Callable[..., Study]) -> None:
    grid = search(CONDITIONAL, sampler="grid", trials=None)
    killed = open_study(grid)
    killed.queue_grid()
    points = Counter[str]()
    for count, proposal in enumerate(proposed(killed)):
        if count == 3:
            break
        points[repr(sorted(proposal.params.items()))] += 1
        trained(killed, proposal, float)
    study = open_study(grid)
    study.queue_grid()
    for proposal in proposed(study):
        points[repr(sorted(proposal.params.items()))] += 1
        trained(study, proposal, float)
    assert set(points.values()) == {1}
    assert len(points) == (1 + 2) * 2


def test_a_space_that_is_exhausted_ends_a_search_before_its_budget(
    open_study: Callable[..., Study],
) -> None:
    study = open_study(search(CONDITIONAL, sampler="random", trials=10_000))
    points = set()
    for proposal in proposed(study):
        points.add(repr(sorted(proposal.params.items())))
        trained(study, proposal, float)
    assert len(points) == (1 + 2) * 2
    assert study.spent().trials < 1000


def test_proposals_of_a_search_that_goes_on_are_new(open_study: Callable[..., Study]) -> None:
    values = []
    for trials in (3, 6):
        study = open_study(search(sampler="random", trials=trials))
        for proposal in proposed(study):
            values.append(proposal.params["optimizer.lr"])
            trained(study, proposal, float)
    assert len(values) == len(set(values)) == 6


def test_what_a_killed_driver_left_is_proposed_again_first(
    open_study: Callable[..., Study], told: Callable[[], list[Ended]]
) -> None:
    study = open_study(search())
    first, second = study.propose(), study.propose()
    assert first is not None
    assert second is not None
    trained(study, first, float)
    after = open_study(search())
    again = after.propose()
    assert again is not None
    assert again.params == second.params
    trained(after, again, float)
    assert [each.params for each in told()] == [first.params, second.params]
    assert after.spent().trials == 2


# What came of it.


def test_a_proposal_has_the_mean_of_its_seeds_as_value_and_keeps_their_spread(
    open_study: Callable[..., Study], told: Callable[[], list[Ended]]
) -> None:
    study = open_study(search())
    proposal = study.propose()
    assert proposal is not None
    assert study.goes_on(proposal.number, at(EPOCHS, 0.75, std=0.02))
    study.end(proposal.number, at(EPOCHS, 0.75, std=0.02))
    (found,) = told()
    assert (found.state, found.values, found.stds, found.known) == (
        "complete", (0.75,), (0.02,), False,
    )  # fmt: skip


def test_a_proposal_with_a_seed_that_diverged_is_stopped_and_has_no_value(
    open_study: Callable[..., Study], told: Callable[[], list[Ended]]
) -> None:
    study = open_study(search())
    proposal = study.propose()
    assert proposal is not None
    assert study.goes_on(proposal.number, at(1, 0.9))
    assert not study.goes_on(proposal.number, at(2, math.nan))
    study.end(proposal.number, at(2, math.nan))
    assert [(each.state, each.values) for each in told()] == [("pruned", None)]


def test_a_proposal_that_failed_is_told_so_and_tried_again_first_by_the_next_command(
    open_study: Callable[..., Study], told: Callable[[], list[Ended]]
) -> None:
    study = open_study(search(trials=2))
    failing = study.propose()
    assert failing is not None
    study.end(failing.number, None)
    assert [(each.state, each.values) for each in told()] == [("failed", None)]
    assert study.spent().trials == 1
    other = study.propose()
    assert other is not None
    assert other.params != failing.params
    trained(study, other, float)
    assert study.propose() is None
    for _ in range(2):  # it may fail again
        after = open_study(search(trials=2))
        assert after.spent().trials == 1
        again = after.propose()
        assert again is not None
        assert again.params == failing.params
        after.end(again.number, None)
        assert sorted(each.state for each in told()) == ["complete", "failed"]
    after = open_study(search(trials=2))
    again = after.propose()
    assert again is not None
    trained(after, again, float)
    assert [each.state for each in told()] == ["complete", "complete"]
    assert not open_study(search(trials=2)).has_more()


def test_a_trial_that_was_left_without_a_point_is_not_proposed_again(
    open_study: Callable[..., Study], told: Callable[[], list[Ended]]
) -> None:
    study = open_study(search(trials=1))
    study.study.ask()  # and the process is killed
    for _ in range(2):
        after = open_study(search(trials=1))
        assert (after.spent().trials, told()) == (0, [])
    proposal = after.propose()
    assert proposal is not None
    trained(after, proposal, float)
    assert not open_study(search(trials=1)).has_more()


def test_a_point_of_a_grid_that_failed_is_tried_again(
    open_study: Callable[..., Study], told: Callable[[], list[Ended]]
) -> None:
    asked = search({"batch_size": {"choice": [18, 32]}}, sampler="grid", trials=None)
    study = open_study(asked)
    study.queue_grid()
    first, second = study.propose(), study.propose()
    assert first is not None
    assert second is not None
    study.end(first.number, None)
    trained(study, second, float)
    assert not study.has_more()
    after = open_study(asked)
    after.queue_grid()
    again = after.propose()
    assert again is not None
    assert again.params == first.params
    trained(after, again, float)
    assert after.propose() is None
    assert [each.state for each in told()] == ["complete", "complete"]


def test_a_trial_that_is_started_again_may_report_what_it_had(
    open_study: Callable[..., Study], recwarn: pytest.WarningsRecorder
) -> None:
    study = open_study(search())
    proposal = study.propose()
    assert proposal is not None
    for epoch in (1, 2, 2, 3):
        assert study.goes_on(proposal.number, at(epoch, 0.5))
    assert not [each for each in recwarn if "already reported" in str(each.message)]


def test_several_metrics_make_a_front(
    open_study: Callable[..., Study], told: Callable[[], list[Ended]]
) -> None:
    metrics = [METRIC, "train_seconds"]
    study = open_study(search(metric=metrics, mode=["max", "min"], sampler="nsga2", trials=3))
    for number, values in enumerate([(0.7, 10.0), (0.9, 30.0), (0.6, 20.0)]):
        proposal = study.propose()
        assert proposal is not None
        scores = dict(zip(metrics, values, strict=True))
        reached = Reached(EPOCHS, scores, dict.fromkeys(metrics, 0.1))
        assert study.goes_on(number, reached)
        study.end(number, reached)
    assert [each.values for each in told()] == [(0.7, 10.0), (0.9, 30.0), (0.6, 20.0)]
    assert [trial.number for trial in study.study.best_trials] == [0, 1]


# Early stopping.


@pytest.mark.parametrize("name", ["asha", "median", "hyperband"])
def test_a_scheduler_stops_what_is_worse_and_lets_the_best_reach_its_end(
    open_study: Callable[..., Study], told: Callable[[], list[Ended]], name: str
) -> None:
    study = open_study(search(trials=30, scheduler={"name": name, "reduction_factor": 2}))
    reached = {}
    for count, proposal in enumerate(proposed(study)):
        quality = 1.0 if count < 6 or count == 20 else 0.5 - count / 100
        reached[count] = trained(study, proposal, lambda epoch, q=quality: q + epoch / 1000)
    assert reached[20] == EPOCHS
    stopped = [count for count, epoch in reached.items() if epoch < EPOCHS]
    assert len(stopped) > 10
    found = {each.number: each for each in told()}
    for count, epoch in reached.items():
        assert found[count].state == ("complete" if epoch == EPOCHS else "pruned")


def test_no_trial_is_stopped_before_its_grace(open_study: Callable[..., Study]) -> None:
    asha = {"name": "asha", "grace_epochs": 3, "reduction_factor": 2}
    study = open_study(search(trials=20, scheduler=asha))
    reached = [
        trained(study, proposal, lambda _, c=count: -c)
        for count, proposal in enumerate(proposed(study))
    ]
    assert min(reached) == 3
    assert EPOCHS in reached


def test_a_search_that_goes_on_stops_by_what_was_seen_before(
    open_study: Callable[..., Study],
) -> None:
    asha = {"name": "asha", "reduction_factor": 2}
    first = open_study(search(trials=6, scheduler=asha))
    for proposal in proposed(first):
        trained(first, proposal, lambda _: 1.0)
    after = open_study(search(trials=7, scheduler=asha))
    (proposal,) = proposed(after)
    assert trained(after, proposal, lambda _: 0.0) == 1


# Budgets.


def test_a_budget_of_trials_lets_those_that_run_come_to_their_end(
    open_study: Callable[..., Study],
) -> None:
    study = open_study(search(trials=2))
    first, second = study.propose(), study.propose()
    assert first is not None
    assert second is not None
    assert study.propose() is None
    assert trained(study, first, float) == EPOCHS
    assert trained(study, second, float) == EPOCHS


@pytest.mark.parametrize(
    ("budget", "resources", "epochs"),
    [
        ({"hours": 2.5}, {}, 3),
        ({"core_hours": 2.5}, {"cpus": 1}, 3),
        ({"core_hours": 2.5}, {"cpus": 2}, 2),
        ({"gpu_hours": 0.9}, {"gpus": 0.5}, 2),
    ],
)
def test_a_budget_of_time_stops_trials_at_their_next_epoch(
    open_study: Callable[..., Study],
    clock: Clock,
    budget: dict[str, float],
    resources: dict[str, float],
    epochs: int,
) -> None:
    study = open_study(search(trials=None, **budget), **resources)
    proposal = study.propose()
    assert proposal is not None
    for epoch in range(1, epochs + 1):
        clock.now += 3600
        assert study.goes_on(proposal.number, at(epoch, 0.5)) == (epoch < epochs)
    study.end(proposal.number, at(epochs, 0.5))
    assert study.propose() is None


def test_what_a_budget_cut_off_goes_on_first_when_there_is_more(
    open_study: Callable[..., Study], clock: Clock, told: Callable[[], list[Ended]]
) -> None:
    study = open_study(search(trials=None, core_hours=1))
    proposal = study.propose()
    assert proposal is not None
    clock.now += 3600
    assert not study.goes_on(proposal.number, at(1, 0.5))
    study.end(proposal.number, at(1, 0.5))
    assert told() == []
    none = open_study(search(trials=None, core_hours=1))
    assert none.used_up() == "1 core-hours"
    more = open_study(search(trials=None, core_hours=3))
    assert more.spent().core_seconds == 3600
    again = more.propose()
    assert again is not None
    assert again.params == proposal.params


def test_time_is_counted_over_all_commands(open_study: Callable[..., Study], clock: Clock) -> None:
    for _ in range(2):
        study = open_study(search(trials=None, hours=10))
        proposal = study.propose()
        assert proposal is not None
        clock.now += 1800
        trained(study, proposal, float)
    clock.now += 50_000
    assert open_study(search(trials=None, hours=10)).spent().seconds == 3600


# A score to be reached in the least time.

GOAL = {"metric": "validation.accuracy", "value": 0.9}
SIZE = {"model_options.filters": {"int_uniform": [1, 100]}}


def timed(epoch: int, accuracy: float, seconds: float) -> Reached:
    scores = {"validation.accuracy": accuracy, "train_seconds": seconds}
    return Reached(epoch, scores, dict.fromkeys(scores, 0.0))


def raced(study: Study, proposal: Proposal, epoch_seconds: float, *accuracies: float) -> int:
    """Train a proposal epoch by epoch, for as long as the study wants; how far it came."""
    for epoch, accuracy in enumerate(accuracies, 1):
        reached = timed(epoch, accuracy, epoch * epoch_seconds)
        if not study.goes_on(proposal.number, reached):
            break
    study.end(proposal.number, reached)
    return epoch


def test_a_trial_ends_where_the_score_is_reached_and_is_worth_its_seconds(
    open_study: Callable[..., Study], told: Callable[[], list[Ended]]
) -> None:
    study = open_study(search(reach=GOAL, trials=2))
    early, never = proposed(study)
    assert raced(study, early, 2.0, 0.8, 0.9, 0.95, 0.97) == 2
    assert raced(study, never, 0.1, 0.5, 0.6, 0.7, 0.8) == EPOCHS
    assert [(each.state, each.values) for each in told()] == [
        ("complete", (pytest.approx(4.0),)),
        ("complete", (pytest.approx(0.4),)),
    ]
    trials = study.study.get_trials()
    assert [trial.constraints["short"] for trial in trials] == pytest.approx([0.0, 0.1])


def test_what_takes_longer_than_those_that_will_be_taken_is_stopped(
    open_study: Callable[..., Study], told: Callable[[], list[Ended]]
) -> None:
    two = search(reach=GOAL, confirm={"top": 2}, trials=5)
    study = open_study(two)
    assert raced(study, next(proposed(study)), 1.0, 0.5, 0.9) == 2
    assert raced(study, next(proposed(study)), 1.0, 0.5, 0.5, 0.9) == 3, "the second is wanted too"
    assert raced(study, next(proposed(study)), 2.9, 0.5, 0.5, 0.5, 0.9) == 2
    again = open_study(two)
    assert raced(again, next(proposed(again)), 2.9, 0.5, 0.5, 0.5, 0.9) == 2, "it is remembered"
    assert raced(again, next(proposed(again)), 2.9, 0.95) == 1, "but not what is sooner there"
    assert [each.state for each in told()] == ["complete"] * 2 + ["pruned"] * 2 + ["complete"]


def test_a_seed_that_diverged_never_reaches_a_score(
    open_study: Callable[..., Study], told: Callable[[], list[Ended]]
) -> None:
    study = open_study(search(reach=GOAL, trials=1))
    assert raced(study, next(proposed(study)), 1.0, math.nan) == 1
    assert [each.state for each in told()] == ["pruned"]


def test_a_score_may_be_one_that_is_better_when_it_is_less(
    open_study: Callable[..., Study],
) -> None:
    study = open_study(search(reach={"metric": "validation.loss", "value": 0.2}, trials=1))
    proposal = next(proposed(study))
    scores = {"validation.loss": 0.3, "train_seconds": 1.0}
    assert study.goes_on(proposal.number, Reached(1, scores, scores))
    scores = {"validation.loss": 0.2, "train_seconds": 2.0}
    assert not study.goes_on(proposal.number, Reached(2, scores, scores))


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_a_sampler_learns_where_the_score_is_not_reached(
    open_study: Callable[..., Study], sampler: str
) -> None:
    """The larger the better and the slower; 60 is enough."""
    study = open_study(search(SIZE, sampler=sampler, reach=GOAL, trials=30))
    sizes = []
    for proposal in proposed(study):
        sizes.append(size := proposal.params["model_options.filters"])
        raced(study, proposal, size, *[0.9 + (size - 60) / 1000] * EPOCHS)
    assert sum(abs(size - 60) for size in sizes[-20:]) / 20 < 18, "drawn at random it is 25"


def test_a_known_point_is_worth_the_seconds_to_the_score(
    open_study: Callable[..., Study], told: Callable[[], list[Ended]]
) -> None:
    study = open_study(search(reach=GOAL, trials=1))
    history = [timed(1, 0.5, 10.0), timed(2, 0.91, 20.0), timed(3, 0.95, 30.0)]
    assert study.tell_known({"optimizer.lr": 0.01}, history)
    assert study.tell_known({"optimizer.lr": 0.02}, history[:1])
    assert [each.values for each in told()] == [(20.0,), (10.0,)]
    assert study.times == [20.0]
    assert raced(study, next(proposed(study)), 15.0, 0.5, 0.5, 0.9) == 2


# Trials of unequal lengths.


def test_a_trial_that_is_shorter_than_others_ends_as_one_that_is_whole(
    tmp_path: Path, clock: Clock, told: Callable[[], list[Ended]]
) -> None:
    storage = open_storage(LocalPlace(tmp_path), alone=True)
    lengths = {"schedule.horizon": {"choice": [1, 3]}}
    study = Study(
        search(lengths, sampler="grid", trials=None),
        {},
        "one",
        storage,
        epochs=3,
        resources=Resources(),
        length=lambda params: params["schedule.horizon"],
        clock=clock,
    )
    study.queue_grid()
    for proposal in proposed(study):
        assert study.goes_on(proposal.number, at(1, 0.5))
        study.end(proposal.number, at(1, 0.5))
    assert {each.params["schedule.horizon"]: each.state for each in told()} == {
        1: "complete",
        3: "pruned",
    }


# What the store knows.


def test_known_points_teach_a_study_and_cost_it_nothing(
    open_study: Callable[..., Study], told: Callable[[], list[Ended]]
) -> None:
    study = open_study(search(trials=2))
    known = {"optimizer.lr": 0.01}
    assert not study.knows(known)
    assert study.tell_known(known, [at(1, 0.5), at(EPOCHS, 0.9, std=0.1)])
    assert study.knows(known)
    assert open_study(search(trials=2)).knows(known)
    (found,) = told()
    assert (found.params, found.values, found.stds, found.known) == (known, (0.9,), (0.1,), True)
    assert study.spent().trials == 0
    assert len([trained(study, proposal, float) for proposal in proposed(study)]) == 2


def test_a_known_point_without_a_value_is_not_told(
    open_study: Callable[..., Study], told: Callable[[], list[Ended]]
) -> None:
    study = open_study(search())
    assert not study.tell_known({"optimizer.lr": 0.01}, [at(EPOCHS, math.nan)])
    assert told() == []


def test_a_grid_leaves_out_what_is_known(open_study: Callable[..., Study]) -> None:
    study = open_study(search(CONDITIONAL, sampler="grid", trials=None))
    study.tell_known({"attention": "none", "batch_size": 8}, [at(EPOCHS, 0.5)])
    study.queue_grid()
    assert len(list(proposed(study))) == (1 + 2) * 2 - 1


# The journal.


def test_an_entry_that_was_cut_off_is_dropped_and_the_next_ones_can_be_read(
    open_study: Callable[..., Study], told: Callable[[], list[Ended]], tmp_path: Path
) -> None:
    study = open_study(search())
    proposal = study.propose()
    assert proposal is not None
    trained(study, proposal, float)
    journal = tmp_path / JOURNAL
    content = journal.read_bytes()
    journal.write_bytes(content + content[:37])
    after = open_study(search())
    proposal = after.propose()
    assert proposal is not None
    trained(after, proposal, float)
    assert len(told()) == 2


def test_who_only_looks_leaves_an_entry_that_is_being_written(
    open_study: Callable[..., Study], tmp_path: Path
) -> None:
    open_study(search())
    journal = tmp_path / JOURNAL
    content = journal.read_bytes() + journal.read_bytes()[:37]
    journal.write_bytes(content)
    assert ended(open_storage(LocalPlace(tmp_path), alone=False), "one") == []
    assert journal.read_bytes() == content


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("damage", [b"nonsense\n", b"[]\n", b'{"op_code": 99}\n', b"\xff\xfe\n"])
def test_a_damaged_journal_is_refused_with_what_to_do(
    open_study: Callable[..., Study], tmp_path: Path, damage: bytes, whole: bool
) -> None:
    open_study(search())
    journal = tmp_path / JOURNAL
    content = journal.read_bytes()
    journal.write_bytes(damage if whole else damage + content)
    with pytest.raises(InputError, match="delete it") as refused:
        open_storage(LocalPlace(tmp_path), alone=True)
    assert JOURNAL in str(refused.value)


def test_studies_outlive_the_storage_that_wrote_them(
    open_study: Callable[..., Study], told: Callable[[], list[Ended]], tmp_path: Path
) -> None:
    study = open_study(search(trials=2))
    for proposal in proposed(study):
        trained(study, proposal, lambda epoch: epoch / 8)
    assert [each.values for each in told()] == [(0.5,), (0.5,)]
    assert ended(open_storage(LocalPlace(tmp_path), alone=True), "two") == []
    assert optuna.get_all_study_names(open_storage(LocalPlace(tmp_path), alone=True)) == ["one"]

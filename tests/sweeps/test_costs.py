"""What training costs: from runs that were timed, else measured, and on a GPU never measured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifake.config import Config, nest
from cifake.data.pack import Pack
from cifake.runs import RunState
from sweeps import costs
from sweeps.costs import Answer, Clock, Costs, Question, answer, interpolated


def config(pack: Pack, **settings: object) -> Config:
    values = {
        "model": "linear",
        "data.train": "demo",
        "data.fingerprint": pack.info.fingerprint,
        "data.train_images": 300,
        "data.validation": 90,
        **settings,
    }
    return Config.model_validate(nest(values))


def timed(of: Config, width: int, *speeds: float, device: str = "cpu x86_64") -> list[RunState]:
    """Runs of a config that were trained in stacks of some width at some speeds."""
    row = {**of.flat(), "device": device}
    return [
        RunState(
            run_id=f"r{number}",
            config_id=of.config_id,
            seed=number,
            status="complete",
            epochs_done=1,
            evaluated=frozenset(),
            images_per_second=speed,
            stack_width=width,
            stack=(number,),
            row=row,
        )
        for number, speed in enumerate(speeds)
    ]


class Measured:
    """In the place of measuring: known speeds, and what was asked for."""

    def __init__(self, speeds: dict[int, float]) -> None:
        self.speeds = speeds
        self.asked: list[int] = []

    def __call__(self, config: Config, pack: Pack, width: int) -> float:
        del config, pack
        self.asked.append(width)
        return self.speeds[width]


@pytest.fixture
def measured() -> Measured:
    return Measured({1: 2000.0, 2: 3000.0, 3: 4000.0, 6: 5000.0})


def test_an_epoch_costs_its_images_at_the_median_speed_of_runs_like_it(
    demo_pack: Pack, measured: Measured
) -> None:
    asked = config(demo_pack)
    cost = Costs(demo_pack, timed(asked, 2, 100.0, 330.0, 9000.0), measure=measured)
    assert cost.seconds(asked, 2) == pytest.approx((300 + 90 / 3) / 330)
    assert measured.asked == []


@pytest.mark.parametrize(
    "other", [{"batch_size": 64}, {"input": "high_pass"}, {"optimizer.name": "adamw"}]
)
def test_runs_of_another_shape_say_nothing_of_the_speed(
    demo_pack: Pack, measured: Measured, other: dict[str, object]
) -> None:
    history = timed(config(demo_pack, **other), 1, 100.0)
    assert Costs(demo_pack, history, measure=measured).seconds(
        config(demo_pack), 1
    ) == pytest.approx(330 / 2000)
    assert measured.asked == [1]


def test_a_speed_beyond_the_widths_that_are_known_is_measured(
    demo_pack: Pack, measured: Measured
) -> None:
    asked = config(demo_pack)
    cost = Costs(demo_pack, timed(asked, 3, 100.0), measure=measured)
    assert cost.seconds(asked, 6) == pytest.approx(330 / 5000)
    assert cost.seconds(asked, 6) == pytest.approx(330 / 5000)
    assert measured.asked == [6], "measured once"


def test_a_width_between_two_that_are_known_is_not_measured(
    demo_pack: Pack, measured: Measured
) -> None:
    asked = config(demo_pack)
    cost = Costs(demo_pack, timed(asked, 2, 1000.0) + timed(asked, 6, 2000.0), measure=measured)
    # Steps of 32 images and 2 or 6 runs take 64 and 96 ms, so those of 4 runs take 80 ms.
    assert cost.seconds(asked, 4) == pytest.approx(330 * 0.08 / (4 * 32))
    assert measured.asked == []
    cost.seconds(asked, 1)
    assert measured.asked == [1]


def test_the_networks_of_a_stack_are_evaluated_at_the_speed_of_one_alone(
    demo_pack: Pack,
) -> None:
    asked = config(demo_pack)
    history = timed(asked, 1, 1000.0) + timed(asked, 6, 3000.0)
    cost = Costs(demo_pack, history, test_images=600)
    assert cost.milestone(asked, 6) == cost.milestone(asked, 1) == pytest.approx(600 / 3 / 1000)
    assert cost.seconds(asked, 6) == pytest.approx(300 / 3000 + 90 / 3 / 1000)
    unknown = Costs(demo_pack, timed(asked, 6, 3000.0), test_images=600)
    assert unknown.milestone(asked, 6) == pytest.approx(600 / 3 / 3000)


@given(
    step=st.floats(1e-6, 1),
    each=st.floats(1e-6, 1),
    widths=st.lists(st.integers(1, 64), min_size=3, max_size=3, unique=True),
)
def test_a_speed_between_two_is_exact_where_a_step_takes_so_much_for_each_run(
    step: float, each: float, widths: list[int]
) -> None:
    below, width, above = sorted(widths)
    speeds = {known: known * 32 / (step + known * each) for known in (below, above)}
    assert interpolated(speeds, width) == pytest.approx(width * 32 / (step + width * each))
    assert interpolated(speeds, above + 1) is None
    assert interpolated(speeds, below - 1) is None


@pytest.mark.parametrize(
    ("speeds", "widest"),
    [
        ({1: 2000.0, 2: 3000.0, 3: 4000.0, 6: 5000.0}, 6),
        ({1: 2000.0, 2: 3000.0, 3: 4000.0, 6: 3700.0}, 3),
        ({1: 2000.0, 2: 1000.0}, 1),
    ],
)
def test_the_width_is_the_fastest_of_those_that_are_tried(
    demo_pack: Pack, measured: Measured, speeds: dict[int, float], widest: int
) -> None:
    measured.speeds = speeds
    assert Costs(demo_pack, (), measure=measured).width(config(demo_pack), 6) == widest
    assert measured.asked == [1] + list(speeds) * 3


def test_the_fastest_of_several_measurements_of_a_width_counts(demo_pack: Pack) -> None:
    """A core that was slow for a while is not taken for what the config costs."""
    asked, found = config(demo_pack), iter([8e3, 9e3, 15.5e3, 20e3, 10e3, 16e3, 19.5e3])
    cost = Costs(demo_pack, (), measure=lambda *_: next(found))
    assert cost.width(asked, 2) == 2
    assert cost.known(asked) == {1: 20e3, 2: 19.5e3}


def test_a_forecast_takes_the_middle_of_several_measurements(demo_pack: Pack) -> None:
    """Nobody trains for hours in the fastest moments of a core."""
    asked, found = config(demo_pack), iter([9e3, 9e3, 15e3, 10e3, 16e3, 9e3, 20e3])
    cost = Costs(demo_pack, (), measure=lambda *_: next(found))
    assert cost.width(asked, 2) == 2
    assert cost.usual[costs.shape_of(asked)] == pytest.approx((0.9 + 0.8) / 2)
    evaluating = 90 / 3 / 10e3
    assert cost.seconds(asked, 2) == pytest.approx(300 / (20e3 * 0.85) + evaluating)
    told = Costs(demo_pack, (), measure=None)
    told.learn(Answer(asked, cost.known(asked), cost.usual[costs.shape_of(asked)]))
    assert told.seconds(asked, 2) == cost.seconds(asked, 2)


def test_the_width_follows_runs_that_were_timed(demo_pack: Pack, measured: Measured) -> None:
    asked = config(demo_pack)
    history = timed(asked, 1, 9000.0) + timed(asked, 2, 100.0)
    assert Costs(demo_pack, history, measure=measured).width(asked, 6) == 1
    assert measured.asked == []


def test_what_cannot_be_stacked_is_not_measured(demo_pack: Pack, measured: Measured) -> None:
    fitted = config(demo_pack, model="statistics")
    cost = Costs(demo_pack, (), measure=measured)
    assert (cost.width(fitted, 6), cost.seconds(fitted, 1)) == (1, None)
    assert Costs(demo_pack, (), gpus=True, measure=measured).width(fitted, 6) == 1
    assert measured.asked == []


def test_on_a_gpu_all_runs_are_one_stack_and_only_runs_on_one_say_how_fast(
    demo_pack: Pack, measured: Measured
) -> None:
    asked = config(demo_pack)
    history = timed(asked, 6, 100.0)
    cost = Costs(demo_pack, history, gpus=True, measure=measured)
    assert (cost.width(asked, 6), cost.seconds(asked, 6)) == (6, None)
    history += timed(asked, 6, 33000.0, device="cuda NVIDIA H100")
    assert Costs(demo_pack, history, gpus=True, measure=measured).seconds(
        asked, 6
    ) == pytest.approx(0.01)
    assert Costs(demo_pack, history, measure=measured).seconds(asked, 6) == pytest.approx(3.3)
    assert measured.asked == []


def wanted(questions: list[Question]) -> list[tuple[Config, int]]:
    """Of each question, its config and how many runs."""
    return [(Config.model_validate(each.config), each.runs) for each in questions]


def test_what_the_history_tells_is_not_asked_for(demo_pack: Pack) -> None:
    asked, other = config(demo_pack), config(demo_pack, batch_size=64)
    cost = Costs(demo_pack, timed(asked, 1, 100.0) + timed(asked, 6, 300.0), measure=None)
    assert wanted(cost.unmeasured({asked: 6, other: 3})) == [(other, 3)]
    assert wanted(cost.unmeasured({asked: 8})) == [(asked, 8)], "wider than any that was timed"
    assert Costs(demo_pack, (), gpus=True).unmeasured({asked: 6}) == []


def test_of_a_given_width_its_speed_alone_is_asked_for(demo_pack: Pack) -> None:
    asked, alone = config(demo_pack), config(demo_pack, shuffle="frozen_batches")
    cost = Costs(demo_pack, timed(asked, 1, 100.0) + timed(asked, 2, 200.0), measure=None)
    assert cost.unmeasured({asked: 6}, 2) == []
    (question,) = cost.unmeasured({asked: 6}, 3)
    assert (question.runs, question.width) == (3, 3)
    assert [each.runs for each in cost.unmeasured({alone: 6, asked: 2}, 3)] == []
    heard: list[Answer] = []
    answer(question, heard.append)
    assert heard[0].speeds.keys() == {1, 3}
    cost.learn(heard[0])
    assert cost.unmeasured({asked: 6}, 3) == []


def test_of_configs_that_are_trained_alike_one_is_asked_for(demo_pack: Pack) -> None:
    alike = {config(demo_pack, **{"optimizer.lr": rate}): runs for rate, runs in ((0.1, 2), (1, 5))}
    assert wanted(Costs(demo_pack, (), measure=None).unmeasured(alike)) == [(next(iter(alike)), 5)]


def test_what_cannot_be_measured_is_not_asked_for_and_what_cannot_be_stacked_alone(
    demo_pack: Pack,
) -> None:
    fitted = config(demo_pack, model="statistics")
    alone = config(demo_pack, shuffle="frozen_batches")
    cost = Costs(demo_pack, (), measure=None)
    assert cost.unmeasured({fitted: 6}) == []
    assert wanted(cost.unmeasured({alone: 6})) == [(alone, 1)]


def test_nothing_is_measured_where_a_plan_must_not_wait(demo_pack: Pack) -> None:
    asked = config(demo_pack)
    cost = Costs(demo_pack, (), measure=None)
    assert (cost.width(asked, 6), cost.seconds(asked, 6)) == (6, None)
    cost.learn(Answer(asked, {1: 2000.0, 2: 3000.0, 3: 2400.0}))
    assert cost.width(asked, 6) == 2
    assert cost.seconds(asked, 6) == pytest.approx(300 / 2400 + 90 / 3 / 2000)


def test_an_answer_has_the_widths_that_tell_which_is_fastest(demo_pack: Pack) -> None:
    # Wider stacks are not tried where two seeds are slower than one, as on a busy machine.
    asked = config(demo_pack)
    heard: list[Answer] = []
    answer(Question(asked.model_dump(), str(demo_pack.folder), 3), heard.append)
    assert [each.config for each in heard] == [asked]
    assert heard[0].speeds.keys() in ({1, 2}, {1, 2, 3})
    assert all(100 < speed < 1e8 for speed in heard[0].speeds.values())
    cost = Costs(demo_pack, (), measure=None)
    cost.learn(heard[0])
    assert cost.unmeasured({asked: max(heard[0].speeds)}) == []


def test_a_measurement_trains_a_few_real_batches_and_finds_a_speed(demo_pack: Pack) -> None:
    asked, clock = config(demo_pack), Clock()
    for width in (1, 2, 1):
        assert 100 < clock(asked, demo_pack, width) < 1e8

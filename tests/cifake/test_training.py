"""A run is a function of its configuration, its seed and its data, however it is trained."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from cifake.config import Config, DataSettings
from cifake.data.pack import Pack
from cifake.data.subsets import split_rows
from cifake.evaluation import predict
from cifake.models.build import build
from cifake.training import (
    LOG_EVERY,
    Divergence,
    Epoch,
    State,
    Step,
    TrainingData,
    batch_bounds,
    epoch_order,
    normalise,
    train,
)

CONFIGS = {
    "base": Config(),
    "srm": Config(attention="srm", placement="both"),
    "decay": Config.model_validate({"optimizer": {"lr": 0.01, "weight_decay": 0.01}}),
    "plain-sgd": Config.model_validate({"optimizer": {"lr": 0.01, "momentum": 0.0}}),
}


def _with_lr(lr: float, momentum: float = 0.9) -> Config:
    return Config.model_validate({"optimizer": {"lr": lr, "momentum": momentum}})


@pytest.fixture(scope="session")
def data(demo: Pack) -> TrainingData:
    """330 demo images: ten batches of 32 and one of ten."""
    rows = split_rows(demo, DataSettings(validation=0, train_images=330)).train
    return TrainingData(demo.pixels, demo.labels, rows)


@dataclass
class Log:
    """What a training gave, copied while it was so."""

    epochs: list[Epoch] = field(default_factory=list)
    states: dict[tuple[int, int], State] = field(default_factory=dict)

    def __call__(self, epoch: Epoch) -> None:
        self.epochs.append(epoch)
        for member in epoch.members:
            self.states[member.seed, epoch.epoch] = member.state()

    def curve(self, seed: int) -> list[tuple[float, float, float, list[Step]]]:
        return [
            (member.loss, member.accuracy, member.learning_rate, member.steps)
            for epoch in self.epochs
            for member in epoch.members
            if member.seed == seed
        ]


def _train(
    config: Config,
    seeds: list[int],
    data: TrainingData,
    epochs: int = 2,
    resume: dict[int, State] | None = None,
) -> Log:
    log = Log()
    train(config, seeds, data, log, epochs=epochs, resume=resume)
    return log


def _same(one: State, other: State) -> bool:
    """Bit for bit, optimiser included."""
    if one.epoch != other.epoch:
        return False
    pairs = ((one.weights, other.weights), (one.optimizer, other.optimizer))
    return all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) for a, b in pairs
    )


# The same numbers


@pytest.mark.parametrize("name", CONFIGS)
def test_same_seed_gives_the_same_weights_bit_for_bit(name: str, data: TrainingData) -> None:
    logs = [_train(CONFIGS[name], [3], data) for _ in range(2)]
    assert _same(logs[0].states[3, 2], logs[1].states[3, 2])
    assert logs[0].curve(3) == logs[1].curve(3)


def test_other_seed_gives_other_weights(data: TrainingData) -> None:
    log = _train(Config(), [0, 1], data, epochs=1)
    assert not _same(log.states[0, 1], log.states[1, 1])
    assert log.curve(0) != log.curve(1)


@pytest.mark.parametrize("name", CONFIGS)
def test_seeds_trained_together_are_the_seeds_trained_alone(name: str, data: TrainingData) -> None:
    config = CONFIGS[name]
    together = _train(config, [4, 0, 9], data)
    for seed in (4, 0, 9):
        alone = _train(config, [seed], data)
        assert _same(alone.states[seed, 2], together.states[seed, 2])
        assert alone.curve(seed) == together.curve(seed)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("done", [1, 2])
def test_resumed_run_is_the_uninterrupted_run(name: str, done: int, data: TrainingData) -> None:
    config = CONFIGS[name]
    whole = _train(config, [0, 1], data, epochs=4)
    states = {seed: whole.states[seed, done] for seed in (0, 1)}
    resumed = _train(config, [0, 1], data, epochs=4, resume=states)
    assert [epoch.epoch for epoch in resumed.epochs] == list(range(done + 1, 5))
    for seed in (0, 1):
        assert _same(whole.states[seed, 4], resumed.states[seed, 4])
        assert whole.curve(seed)[done:] == resumed.curve(seed)


def test_momentum_matters_to_what_is_resumed(data: TrainingData) -> None:
    """Without the optimiser's state the numbers would be others."""
    whole = _train(Config(), [0], data)
    kept = whole.states[0, 1]
    assert {name.rpartition("/")[2] for name in kept.optimizer} == {"momentum_buffer"}
    forgetful = State(1, kept.weights, {})
    resumed = _train(Config(), [0], data, resume={0: forgetful})
    assert not _same(whole.states[0, 2], resumed.states[0, 2])


def test_state_is_a_copy(data: TrainingData) -> None:
    log = _train(Config(), [0], data)
    again = _train(Config(), [0], data, epochs=1)
    assert _same(log.states[0, 1], again.states[0, 1])


def test_evaluation_between_epochs_changes_nothing(demo: Pack, data: TrainingData) -> None:
    config = CONFIGS["srm"]
    log = Log()

    def evaluate(epoch: Epoch) -> None:
        for member in epoch.members:
            predict(member.model, demo.pixels, demo.rows("test"))
        torch.rand(5)
        log(epoch)

    train(config, [0], data, evaluate, epochs=2)
    assert _same(log.states[0, 2], _train(config, [0], data).states[0, 2])


def test_longer_run_passes_through_the_shorter(data: TrainingData) -> None:
    short, long = _train(Config(), [0], data, epochs=1), _train(Config(), [0], data, epochs=3)
    assert _same(short.states[0, 1], long.states[0, 1])


def test_finished_run_trains_no_epoch(data: TrainingData) -> None:
    state = _train(Config(), [0], data).states[0, 2]
    assert _train(Config(), [0], data, resume={0: state}).epochs == []


def test_seeds_that_stand_at_different_epochs_are_no_stack(data: TrainingData) -> None:
    log = _train(Config(), [0], data)
    with pytest.raises(ValueError, match=r"one epoch, not \[0, 2\]"):
        _train(Config(), [0, 1], data, epochs=3, resume={0: log.states[0, 2]})


# An independent loop


class PlainSgd:
    """Stochastic gradient descent with momentum, as Sutskever et al. and torch define it."""

    def __init__(self, model: nn.Module, lr: float, momentum: float, decay: float) -> None:
        self.parameters = list(model.parameters())
        self.lr, self.momentum, self.decay = lr, momentum, decay
        self.velocity: list[torch.Tensor | None] = [None] * len(self.parameters)

    @torch.no_grad()
    def step(self) -> None:
        for index, parameter in enumerate(self.parameters):
            assert parameter.grad is not None
            gradient = parameter.grad + self.decay * parameter
            before = self.velocity[index]
            now = gradient if before is None else self.momentum * before + gradient
            self.velocity[index] = now
            parameter.sub_(self.lr * now)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("handwritten", [True, False])
def test_training_matches_an_independent_loop(
    name: str, handwritten: bool, data: TrainingData
) -> None:
    config, epochs = CONFIGS[name], 5
    ours = _train(config, [2], data, epochs=epochs)

    model = build(config, 2).to(memory_format=torch.contiguous_format)
    update = config.optimizer
    optimizer: PlainSgd | torch.optim.SGD
    if handwritten:
        optimizer = PlainSgd(model, update.lr, update.momentum, update.weight_decay)
    else:
        optimizer = torch.optim.SGD(
            model.parameters(),
            lr=update.lr,
            momentum=update.momentum,
            weight_decay=update.weight_decay,
            fused=False,
            foreach=False,
        )
    criterion = nn.BCEWithLogitsLoss()
    steps = 0
    for epoch in range(1, epochs + 1):
        order = epoch_order(data.rows, 2, epoch)
        total, right = 0.0, 0
        for rows in np.split(order, range(32, len(order), 32)):
            images = torch.tensor(data.pixels[rows].astype(np.float32) / 127.5 - 1)
            x = images.permute(0, 3, 1, 2).contiguous()
            y = torch.tensor(data.labels[rows].astype(np.float32))
            logits = model(x)
            loss = criterion(logits, y)
            model.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
            right += int(((logits > 0) == (y == 1)).sum())
            steps += 1
        (member,) = ours.epochs[epoch - 1].members
        assert member.loss == pytest.approx(total / len(order), rel=1e-4)
        assert member.accuracy == pytest.approx(right / len(order), abs=2 / len(order))
        assert member.learning_rate == update.lr
    assert steps >= 50
    for key, value in model.state_dict().items():
        torch.testing.assert_close(ours.states[2, epochs].weights[key], value, rtol=1e-3, atol=1e-4)


def test_network_learns_the_demo_set(demo: Pack) -> None:
    split = split_rows(demo, DataSettings(validation=400))
    data = TrainingData(demo.pixels, demo.labels, split.train)
    log = Log()
    accuracy = []

    def evaluate(epoch: Epoch) -> None:
        log(epoch)
        probabilities = predict(epoch.members[0].model, demo.pixels, split.validation)
        accuracy.append(float(((probabilities >= 0.5) == demo.labels[split.validation]).mean()))

    train(_with_lr(0.02), [0], data, evaluate, epochs=3)
    losses = [epoch.members[0].loss for epoch in log.epochs]
    assert min(losses) < 0.85 * losses[0]
    assert max(accuracy) > 0.7


def test_normalised_pixels_lie_between_minus_one_and_one() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).repeat(12).reshape(1, 32, 32, 3)
    x = normalise(pixels)
    assert x.shape == (1, 3, 32, 32)
    assert x.min() == -1
    assert x.max() == pytest.approx(1, abs=1e-6)
    expected = (pixels.double() / 255 - 0.5) / 0.5  # torchvision's ToTensor and Normalize
    torch.testing.assert_close(x.double(), expected.permute(0, 3, 1, 2), rtol=0, atol=1e-6)


# Order


def test_every_image_is_seen_once_an_epoch(data: TrainingData) -> None:
    for epoch in (1, 2):
        order = epoch_order(data.rows, 0, epoch)
        bounds = batch_bounds(len(order), 32)
        seen = np.concatenate([order[start:stop] for start, stop in bounds])
        np.testing.assert_array_equal(np.sort(seen), data.rows)


def test_every_image_moves_the_weights(demo: Pack) -> None:
    """An image that was left out could be blackened without a trace."""
    rows = demo.rows("train")[::111][:35]
    plain = _train(Config(), [0], TrainingData(demo.pixels, demo.labels, rows), epochs=1)
    for row in rows:
        pixels = np.array(demo.pixels[rows])
        pixels[np.searchsorted(rows, row)] = 0
        changed = np.array(demo.pixels[: rows[-1] + 1])
        changed[rows] = pixels
        log = _train(Config(), [0], TrainingData(changed, demo.labels, rows), epochs=1)
        assert not _same(log.states[0, 1], plain.states[0, 1])


def test_difficulty_curve_counts_every_image_once(data: TrainingData) -> None:
    log = _train(Config(), [0], data, epochs=1)
    assert log.epochs[0].images == len(data.rows)
    assert log.epochs[0].members[0].steps[-1].images_seen == len(data.rows)


def test_only_the_rows_asked_for_are_trained_on(demo: Pack, data: TrainingData) -> None:
    pixels = np.array(demo.pixels)
    labels = demo.labels.copy()
    others = np.setdiff1d(np.arange(len(pixels)), data.rows)
    pixels[others] = 0
    labels[others] = 1
    damaged = TrainingData(pixels, labels, data.rows)
    assert _same(
        _train(Config(), [0], data, epochs=1).states[0, 1],
        _train(Config(), [0], damaged, epochs=1).states[0, 1],
    )


@settings(deadline=None)
@given(
    count=st.integers(0, 200),
    seed=st.integers(0, 2**32),
    epoch=st.integers(1, 1000),
)
def test_order_is_a_permutation_and_a_function_of_seed_and_epoch(
    count: int, seed: int, epoch: int
) -> None:
    rows = np.arange(count, dtype=np.int64) * 3 + 1
    order = epoch_order(rows, seed, epoch)
    np.testing.assert_array_equal(np.sort(order), rows)
    np.testing.assert_array_equal(order, epoch_order(rows, seed, epoch))


def test_order_differs_by_seed_and_epoch() -> None:
    rows = np.arange(100, dtype=np.int64)
    orders = {tuple(epoch_order(rows, seed, epoch)) for seed in range(5) for epoch in range(1, 6)}
    assert len(orders) == 25


@settings(deadline=None)
@given(images=st.integers(2, 3000), batch_size=st.integers(1, 600))
def test_batches_partition_the_images_and_none_holds_one(images: int, batch_size: int) -> None:
    bounds = batch_bounds(images, batch_size)
    assert bounds[0][0] == 0
    assert bounds[-1][1] == images
    assert all(stop == start for (_, stop), (start, _) in itertools.pairwise(bounds))
    sizes = [stop - start for start, stop in bounds]
    assert min(sizes) >= min(2, batch_size)
    assert all(size == batch_size for size in sizes[:-1])
    assert sizes[-1] <= batch_size + 1


@pytest.mark.parametrize("count", [33, 65])
def test_last_single_image_is_trained_on_with_normalisation(count: int, demo: Pack) -> None:
    rows = demo.rows("train")[::60][:count]
    data = TrainingData(demo.pixels, demo.labels, rows)
    log = _train(CONFIGS["srm"], [0], data, epochs=1)
    assert log.epochs[0].members[0].steps[-1].images_seen == count


# The difficulty curve


def test_difficulty_curve_has_a_step_every_fifty_batches(demo: Pack) -> None:
    rows = demo.rows("train")[::8][:487]
    data = TrainingData(demo.pixels, demo.labels, rows)
    log = _train(Config(batch_size=4), [0], data)
    first, second = (epoch.members[0] for epoch in log.epochs)
    assert LOG_EVERY == 50
    assert [(step.batch, step.images_seen) for step in first.steps] == [
        (50, 200),
        (100, 400),
        (122, 487),
    ]
    weights = np.array([200, 200, 87])
    losses = np.array([step.loss for step in first.steps])
    accuracies = np.array([step.accuracy for step in first.steps])
    assert (losses * weights).sum() / 487 == pytest.approx(first.loss)
    assert (accuracies * weights).sum() / 487 == pytest.approx(first.accuracy)
    assert second.steps == []


def test_first_step_of_the_curve_is_near_chance(data: TrainingData) -> None:
    step = _train(_with_lr(1e-6), [0], data, epochs=1).epochs[0].members[0].steps[0]
    assert step.loss == pytest.approx(np.log(2), abs=0.02)


# Divergence

UNSTABLE = _with_lr(10.0)


def _divergences(log: Log) -> list[Divergence]:
    return [divergence for epoch in log.epochs for divergence in epoch.diverged]


def _first_infinite_batch(config: Config, seed: int, data: TrainingData) -> int | None:
    """Batch of the first epoch whose loss is not finite, by a loop of its own; from 1."""
    model = build(config, seed)
    update = config.optimizer
    optimizer = torch.optim.SGD(
        model.parameters(), lr=update.lr, momentum=update.momentum, fused=True
    )
    order = epoch_order(data.rows, seed, 1)
    for number, (start, stop) in enumerate(batch_bounds(len(order), config.batch_size), 1):
        rows = order[start:stop]
        y = torch.from_numpy(data.labels[rows]).float()
        logits = model(normalise(torch.from_numpy(data.pixels[rows])))
        loss = functional.binary_cross_entropy_with_logits(logits, y)
        if not torch.isfinite(loss):
            return number
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return None


def test_divergence_names_seed_epoch_and_batch(data: TrainingData) -> None:
    seeds = list(range(8))
    log = _train(UNSTABLE, seeds, data, epochs=1)
    found = {divergence.seed: divergence for divergence in _divergences(log)}
    assert found
    assert {member.seed for member in log.epochs[0].members} == set(seeds) - set(found)
    for seed in seeds:
        expected = _first_infinite_batch(UNSTABLE, seed, data)
        if expected is not None:
            assert (found[seed].epoch, found[seed].batch) == (1, expected)
            assert not np.isfinite(found[seed].loss)
            said = f"loss became {found[seed].loss} in epoch 1, batch {expected}"
            assert str(found[seed]) == said


def test_training_ends_when_every_seed_has_diverged(data: TrainingData) -> None:
    gone = _divergences(_train(UNSTABLE, list(range(8)), data, epochs=1))
    log = _train(UNSTABLE, [divergence.seed for divergence in gone], data, epochs=50)
    assert len(log.epochs) == 1
    assert log.epochs[0].members == []
    assert [str(one) for one in log.epochs[0].diverged] == [str(one) for one in gone]


def test_divergence_of_one_seed_leaves_the_others_as_they_are(data: TrainingData) -> None:
    """At this learning rate some seeds diverge in the first epoch and some do not."""
    seeds = list(range(10))
    together = _train(UNSTABLE, seeds, data, epochs=1)
    gone = {divergence.seed: divergence for divergence in _divergences(together)}
    assert 0 < len(gone) < len(seeds)
    for seed in seeds:
        alone = _train(UNSTABLE, [seed], data, epochs=1)
        said = [str(divergence) for divergence in _divergences(alone)]
        assert said == ([str(gone[seed])] if seed in gone else [])
        assert alone.curve(seed) == together.curve(seed)
        if seed not in gone:
            assert _same(alone.states[seed, 1], together.states[seed, 1])


@pytest.mark.parametrize("lr", [10.0, 100.0])
def test_network_that_predicts_nothing_is_not_reported_as_trained(lr: float, demo: Pack) -> None:
    """The last step of an epoch may break a network after its last finite loss."""
    rows = demo.rows("test")[::10]
    unusable = []

    def check(epoch: Epoch) -> None:
        unusable.extend(
            (member.seed, epoch.images)
            for member in epoch.members
            if not np.isfinite(predict(member.model, demo.pixels, rows)).all()
        )

    for count in (128, 160, 224, 256, 288):
        chosen = demo.rows("train")[:: 4000 // count][:count]
        data = TrainingData(demo.pixels, demo.labels, chosen)
        train(_with_lr(lr), [0, 1, 2, 3], data, check, epochs=1)
    assert unusable == []


# Prediction


def _rows(demo: Pack, count: int) -> npt.NDArray[np.int64]:
    return demo.rows("test")[:count]


def test_prediction_of_an_image_does_not_depend_on_its_company(
    demo: Pack, data: TrainingData
) -> None:
    log = _train(CONFIGS["srm"], [0], data)
    model = log.epochs[-1].members[0].model
    rows = _rows(demo, 700)
    whole = predict(model, demo.pixels, rows)
    assert whole.dtype == np.float32
    assert whole.shape == (700,)
    for part in (rows[:1], rows[500:501], rows[::7], rows[::-1]):
        expected = whole[np.searchsorted(rows, part)]
        np.testing.assert_allclose(predict(model, demo.pixels, part), expected, atol=1e-6)


def test_prediction_leaves_the_network_as_it_was(demo: Pack) -> None:
    model = build(CONFIGS["srm"], 0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for training in (True, False):
        model.train(training)
        predict(model, demo.pixels, _rows(demo, 20))
        assert model.training == training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_prediction_of_no_image_is_empty(demo: Pack) -> None:
    assert predict(build(Config(), 0), demo.pixels, _rows(demo, 0)).shape == (0,)

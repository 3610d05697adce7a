"""A run is a function of its configuration, its seed and its data, however it is trained."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn
from torch.nn import functional

from cifake import training
from cifake.batches import TrainingData, batch_bounds, epoch_order
from cifake.config import Config, DataSettings
from cifake.data.pack import Pack
from cifake.data.subsets import split_rows
from cifake.evaluation import predict
from cifake.models import pooled
from cifake.models.build import build
from cifake.models.network import Network
from cifake.places import LocalPlace
from cifake.record import Record
from cifake.runs import RunFolder, state_files
from cifake.training import Divergence, Epoch, State, Step, train

CONFIGS = {
    "base": Config(),
    "srm": Config(attention="srm", placement="both"),
    "decay": Config.model_validate({"optimizer": {"lr": 0.01, "weight_decay": 0.01}}),
    "plain-sgd": Config.model_validate({"optimizer": {"lr": 0.01, "momentum": 0.0}}),
    "nesterov": Config.model_validate({"optimizer": {"lr": 0.01, "nesterov": True}}),
    "adam": Config.model_validate({"optimizer": {"name": "adam", "weight_decay": 0.1}}),
    "adamw": Config.model_validate(
        {
            "optimizer": {"name": "adamw", "beta1": 0.8, "eps": 1e-3, "weight_decay": 1.0},
            "execution": {"precision": "float64"},
        }
    ),
    "cosine": Config.model_validate(
        {"optimizer": {"lr": 0.02}, "schedule": {"name": "cosine", "horizon": 5}}
    ),
    "one-cycle": Config.model_validate(
        {"optimizer": {"lr": 0.02}, "schedule": {"name": "one_cycle", "horizon": 5}}
    ),
    "smoothing": Config.model_validate({"optimizer": {"lr": 0.02}, "label_smoothing": 0.2}),
    "frozen": Config(shuffle="frozen_batches"),
    "float64": Config.model_validate(
        {
            "optimizer": {"name": "adam", "weight_decay": 0.1},
            "execution": {"precision": "float64"},
            "label_smoothing": 0.1,
        }
    ),
}
"""Configurations that an independent loop can follow."""

TINY = {"model": "paper", "model_options": {"conv_layers": 1, "filters": 2, "neurons": 8}}
"""For half precision and Muon, which works in it: processors without it are slow at both."""

MORE = {
    "muon": Config.model_validate({**TINY, "optimizer": {"name": "muon", "weight_decay": 0.1}}),
    "augmented": Config.model_validate({"augmentation": {"flip": True, "crop": 4}}),
    "dataset": Config(normalization="dataset"),
    "bf16": Config.model_validate({**TINY, "execution": {"precision": "bf16"}}),
    "fp16": Config.model_validate({**TINY, "execution": {"precision": "fp16"}}),
    "contiguous": Config.model_validate({"execution": {"channels_last": False}}),
    "convnet": Config.model_validate({"model": "convnet", "model_options": {"filters": 4}}),
    "learned-filters": Config.model_validate(
        {"input": "steg_srm_learned", "input_options": {"filters": 3}}
    ),
    "statistics": Config.model_validate({"model": "statistics", "model_options": {"trees": 5}}),
}
ALL = CONFIGS | MORE


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
            self.states[member.seed, epoch.epoch] = member.state

    def curve(self, seed: int) -> list[tuple[float, float, float | None, list[Step]]]:
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
    stacks: list[list[int]] | None = None,
) -> Log:
    log = Log()
    train(config, seeds, data, log, epochs=epochs, resume=resume, stacks=stacks)
    return log


def _length(name: str, epochs: int) -> int:
    """What is fitted at once has one epoch."""
    return 1 if name == "statistics" else epochs


def _same(one: State, other: State) -> bool:
    """Bit for bit, optimiser included."""
    if one.epoch != other.epoch:
        return False
    pairs = ((one.weights, other.weights), (one.optimizer, other.optimizer))
    return all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) for a, b in pairs
    )


# The same numbers


@pytest.mark.parametrize("name", ALL)
def test_same_seed_gives_the_same_weights_bit_for_bit(name: str, data: TrainingData) -> None:
    epochs = _length(name, 2)
    logs = [_train(ALL[name], [3], data, epochs) for _ in range(2)]
    assert _same(logs[0].states[3, epochs], logs[1].states[3, epochs])
    assert logs[0].curve(3) == logs[1].curve(3)


def test_other_seed_gives_other_weights(data: TrainingData) -> None:
    log = _train(Config(), [0, 1], data, epochs=1)
    assert not _same(log.states[0, 1], log.states[1, 1])
    assert log.curve(0) != log.curve(1)


@pytest.mark.parametrize("name", ALL)
def test_the_same_stack_gives_the_same_weights_bit_for_bit(name: str, data: TrainingData) -> None:
    epochs = _length(name, 2)
    logs = [_train(ALL[name], [4, 0, 9], data, epochs) for _ in range(2)]
    for seed in (4, 0, 9):
        assert _same(logs[0].states[seed, epochs], logs[1].states[seed, epochs])
        assert logs[0].curve(seed) == logs[1].curve(seed)


@pytest.mark.parametrize("name", ALL)
def test_seeds_that_are_no_stack_are_the_seeds_trained_alone(name: str, data: TrainingData) -> None:
    config, epochs = ALL[name], _length(name, 2)
    together = _train(config, [4, 0, 9], data, epochs, stacks=[[9], [4], [0]])
    assert [member.seed for member in together.epochs[0].members] == [4, 0, 9]
    for seed in (4, 0, 9):
        alone = _train(config, [seed], data, epochs)
        assert _same(alone.states[seed, epochs], together.states[seed, epochs])
        assert alone.curve(seed) == together.curve(seed)


@pytest.mark.parametrize("name", ALL)
def test_a_run_does_not_depend_on_other_stacks(name: str, data: TrainingData) -> None:
    config, epochs = ALL[name], _length(name, 2)
    stacks = [[0, 1], [5, 3, 4]]
    together = _train(config, [0, 1, 3, 4, 5], data, epochs, stacks=stacks)
    for stack in stacks:
        apart = _train(config, stack, data, epochs)
        assert all(_same(apart.states[s, epochs], together.states[s, epochs]) for s in stack)


@pytest.mark.parametrize("name", [name for name in ALL if name != "bf16"])
def test_every_member_of_a_stack_begins_as_the_seed_trained_alone(
    name: str, data: TrainingData
) -> None:
    """Losses of the first batches, each of which has felt every step before it."""
    config = ALL[name].model_copy(update={"log_every": 1})
    stack = _train(config, [4, 0, 9], data, epochs=1)
    for seed in (4, 0, 9):
        alone = _train(config, [seed], data, epochs=1).curve(seed)[0][3]
        found = stack.curve(seed)[0][3]
        expected = [step.loss for step in alone[:5]]
        assert [step.loss for step in found[:5]] == pytest.approx(expected, rel=1e-4)
        assert [step.images_seen for step in found] == [step.images_seen for step in alone]


def test_a_member_says_with_whom_it_was_trained(data: TrainingData) -> None:
    log = _train(Config(), [2, 0, 1], data, epochs=1, stacks=[[1, 2], [0]])
    members = {member.seed: member for member in log.epochs[0].members}
    assert {seed: member.stack for seed, member in members.items()} == {
        0: (0,),
        1: (1, 2),
        2: (1, 2),
    }
    assert log.epochs[0].images == 3 * len(data.rows)
    for name in ("fp16", "frozen", "statistics"):
        members_ = _train(ALL[name], [0, 1], data, epochs=1).epochs[0].members
        assert [member.stack for member in members_] == [(0,), (1,)], name


def test_every_seed_must_be_in_one_stack(data: TrainingData) -> None:
    for stacks in ([[0]], [[0, 1], [1]], [[0, 1, 2]]):
        with pytest.raises(ValueError, match="every seed must be in one stack"):
            _train(Config(), [0, 1], data, stacks=stacks)


@pytest.mark.parametrize("name", ["srm", "convnet", "augmented", "dataset"])
def test_the_network_of_a_member_is_its_own(name: str, demo: Pack, data: TrainingData) -> None:
    """It is a plain network with the weights of the state, whatever the others do."""
    config = ALL[name]

    def check(epoch: Epoch) -> None:
        for member in epoch.members:
            plain = build(config, 77)
            plain.load_state_dict(member.state.weights)
            rows = demo.rows("test")[:50]
            expected = predict(plain, demo.pixels, rows)
            assert np.array_equal(predict(member.model, demo.pixels, rows), expected)

    train(config, [0, 1, 2], data, check, epochs=2)


@pytest.mark.parametrize("name", [name for name in ALL if name != "statistics"])
@pytest.mark.parametrize("done", [1, 2])
def test_resumed_run_is_the_uninterrupted_run(name: str, done: int, data: TrainingData) -> None:
    config = ALL[name]
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


def _reference(config: Config, model: nn.Module) -> torch.optim.Optimizer | PlainSgd:
    """torch's plainest implementation of a configuration's update rule."""
    update = config.optimizer
    plain = {"lr": update.lr, "weight_decay": update.weight_decay, "foreach": False}
    if update.name == "sgd":
        momentum, nesterov = update.momentum or 0.0, bool(update.nesterov)
        return torch.optim.SGD(model.parameters(), momentum=momentum, nesterov=nesterov, **plain)
    rule = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[update.name]
    betas = (update.beta1, update.beta2)
    return rule(model.parameters(), betas=betas, eps=update.eps, fused=False, **plain)


def _schedule(config: Config, optimizer: Any, steps: int) -> Any:
    """torch's learning rate of a configuration."""
    if config.schedule.name == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    if config.schedule.name == "one_cycle":
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, config.optimizer.lr, steps, cycle_momentum=False
        )
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)


@pytest.mark.parametrize("name", CONFIGS)
def test_training_matches_an_independent_loop(
    name: str, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, epochs = CONFIGS[name], 5
    ours = _train(config, [2], data, epochs=epochs)
    # From here on by torch's own operations.
    monkeypatch.setattr(pooled, "shape_of", lambda *_: None)
    exact = config.execution.precision == "float64"
    numbers = np.float64 if exact else np.float32

    model = build(config, 2).to(memory_format=torch.contiguous_format)
    assert isinstance(model, Network)
    handwritten = config.optimizer.name == "sgd" and config.schedule.name == "constant"
    handwritten = handwritten and not config.optimizer.nesterov
    update = config.optimizer
    reference = (
        PlainSgd(model, update.lr, update.momentum or 0.0, update.weight_decay)
        if handwritten
        else _reference(config, model)
    )
    bounds = batch_bounds(len(data.rows), 32)
    schedule = None if handwritten else _schedule(config, reference, epochs * len(bounds))
    criterion = nn.BCEWithLogitsLoss()
    for epoch in range(1, epochs + 1):
        order = epoch_order(data.rows, config, 2, epoch)
        total, right, rate = 0.0, 0, update.lr
        for start, stop in order.bounds:
            rows = order.rows[start:stop]
            images = torch.tensor(data.pixels[rows].astype(numbers) / 127.5 - 1)
            y = torch.tensor(data.labels[rows].astype(numbers))
            logits = model.logits(images.permute(0, 3, 1, 2).contiguous()).squeeze(1)
            smoothing = config.label_smoothing
            # Of two plain numbers, where() would make float32.
            targets = torch.where(y == 1, y.new_tensor(1 - smoothing / 2), smoothing / 2)
            loss = criterion(logits, targets)
            model.zero_grad()
            loss.backward()
            rate = update.lr if schedule is None else schedule.get_last_lr()[0]
            reference.step()
            if schedule is not None:
                schedule.step()
            total += loss.item() * len(rows)
            right += int(((logits > 0) == (y == 1)).sum())
        (member,) = ours.epochs[epoch - 1].members
        expected = pytest.approx(total / len(order.rows), rel=1e-9 if exact else 1e-4)
        assert member.loss == expected
        assert member.accuracy == pytest.approx(right / len(order.rows), abs=2 / len(order.rows))
        assert member.learning_rate == pytest.approx(rate, rel=1e-6, abs=1e-12)
    assert epochs * len(bounds) >= 50
    for key, value in model.state_dict().items():
        found = ours.states[2, epochs].weights[key]
        rtol, atol = (1e-9, 1e-11) if exact else (1e-3, 5e-4)
        torch.testing.assert_close(found, value, rtol=rtol, atol=atol)


def test_attention_is_not_decayed(data: TrainingData) -> None:
    """With nothing to learn, decay alone moves weights."""
    settings_ = {
        "attention": "srm",
        "placement": "both",
        "attention_options": {"init": "uniform"},
        "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 10.0},
    }
    config = Config.model_validate(settings_)
    start = build(config, 0).state_dict()
    end = _train(config, [0], data, epochs=1).states[0, 1].weights
    steps = len(batch_bounds(len(data.rows), 32))
    for name in ("conv1.weight", "attention.after_pool1.cfc.weight"):
        shrunk = (end[name].norm() / start[name].norm()).item()
        decayed = (1 - 1e-2) ** steps
        assert (abs(shrunk - decayed) < 0.1 * decayed) == name.startswith("conv")
        assert (shrunk > 0.95) == name.startswith("attention")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_learns_what_full_precision_learns(
    precision: str, data: TrainingData
) -> None:
    losses = {}
    for name in ("float32", precision):
        config = Config.model_validate(
            {**TINY, "optimizer": {"lr": 0.02}, "execution": {"precision": name}}
        )
        log = _train(config, [0], data, epochs=3)
        losses[name] = [epoch.members[0].loss for epoch in log.epochs]
        weights = log.states[0, 3].weights
        assert all(value.dtype == torch.float32 for value in weights.values())
    assert losses[precision] != losses["float32"]
    np.testing.assert_allclose(losses[precision], losses["float32"], rtol=0.02)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "muon"])
@pytest.mark.parametrize("stacks", [[[0, 1]], [[0], [1]]])
def test_double_precision_is_double_throughout(
    optimizer: str, stacks: list[list[int]], data: TrainingData, demo: Pack, tmp_path: Path
) -> None:
    """Weights, statistics and optimiser state, through their file too; counts of steps aside."""
    settings_ = {
        "model": "attn",
        "normalization": "dataset",
        "optimizer": {"name": optimizer},
        "execution": {"precision": "float64"},
    }
    log = _train(Config.model_validate(settings_), [0, 1], data, stacks=stacks)
    state = log.states[1, 2]
    folder = RunFolder(LocalPlace(tmp_path))
    Record(folder, Config(), 0).commit()
    files = state_files(2, state.weights, state.optimizer)
    folder.commit({**Record(folder, Config(), 0).row, "epochs_done": 2}, files)
    read = State(2, folder.read_weights(2), folder.read_optimizer(2))
    assert _same(read, state)
    for name, value in {**read.weights, **read.optimizer}.items():
        counts = name.endswith(("/step", "num_batches_tracked"))
        assert (value.dtype == torch.float64) != counts, name
    member = log.epochs[-1].members[1]
    logits = member.model(torch.from_numpy(np.array(demo.pixels[:5])))
    assert logits.dtype == torch.float64
    assert member.loss != float(np.float32(member.loss))
    expected = torch.sigmoid(logits).detach().numpy()
    np.testing.assert_allclose(predict(member.model, demo.pixels, np.arange(5)), expected, 1e-6)


def test_loss_scale_is_resumed(data: TrainingData) -> None:
    log = _train(MORE["fp16"], [0], data)
    scaler = {k: v.item() for k, v in log.states[0, 2].optimizer.items() if "scaler" in k}
    assert scaler == {"/scaler/scale": 65536.0, "/scaler/_growth_tracker": 22.0}


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_compiled_network_learns_what_the_plain_one_learns(
    seeds: list[int], data: TrainingData
) -> None:
    if shutil.which("g++") is None:
        pytest.skip("torch.compile on a CPU needs a C++ compiler; install g++")
    losses = []
    for compiled in (False, True):
        config = Config.model_validate({**TINY, "execution": {"compile": compiled}})
        log = _train(config, seeds, data, epochs=2)
        losses.append([member.loss for epoch in log.epochs for member in epoch.members])
        assert set(log.states[0, 2].weights) == set(build(config, 0).state_dict())
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


@pytest.mark.parametrize("name", ["srm", "augmented", "dataset", "fp16", "muon", "frozen"])
def test_pixels_held_on_the_device_give_the_same_weights(name: str, data: TrainingData) -> None:
    """The path that a GPU takes, on the processor under its other name."""
    held, mapped = Log(), Log()
    for device, log in (("cpu:0", held), ("cpu", mapped)):
        train(ALL[name], [0, 1], data, log, epochs=2, device=device)
    for seed in (0, 1):
        assert _same(held.states[seed, 2], mapped.states[seed, 2])
        assert held.curve(seed) == mapped.curve(seed)


# Seeds split in two


def test_shared_order_leaves_the_initial_weights_to_differ(data: TrainingData) -> None:
    shared = Config.model_validate({"data_order": "shared", "init_seed": 0})
    log = _train(shared, [1, 2], data, stacks=[[1], [2]])
    assert _same(log.states[1, 2], log.states[2, 2])
    shared = Config(data_order="shared")
    log = _train(shared, [1, 2], data)
    assert not _same(log.states[1, 2], log.states[2, 2])
    log = _train(shared, [1, 2], data, stacks=[[1], [2]])
    assert _same(log.states[1, 2], _train(Config(data_seed=0), [1], data).states[1, 2])


def test_split_seeds_are_the_seed_where_they_equal_it(data: TrainingData) -> None:
    whole = _train(MORE["augmented"], [7], data).states[7, 2]
    settings_ = MORE["augmented"].model_dump() | {"data_seed": 7, "init_seed": 7}
    split = Config.model_validate(settings_)
    assert _same(whole, _train(split, [3], data).states[3, 2])
    for name in ("data_seed", "init_seed"):
        half = Config.model_validate(MORE["augmented"].model_dump() | {name: 7})
        assert not _same(whole, _train(half, [3], data).states[3, 2])


def test_dropout_is_drawn_from_the_seed_and_survives_a_resume(data: TrainingData) -> None:
    """efficientnet_b0 drops units of its head and whole blocks while it trains."""
    config = Config.model_validate(
        {"model": "torchvision", "model_options": {"backbone": "efficientnet_b0"}}
    )
    few = TrainingData(data.pixels, data.labels, data.rows[::10])
    whole = _train(config, [0], few, epochs=2)
    torch.manual_seed(1234)
    resumed = _train(config, [0], few, epochs=2, resume={0: whole.states[0, 1]})
    assert _same(whole.states[0, 2], resumed.states[0, 2])


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


# Images


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
    assert Config().log_every == 50
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


def test_step_of_the_curve_is_as_long_as_asked(data: TrainingData) -> None:
    curves = {every: _train(Config(log_every=every), [0], data, 1) for every in (1, 4, 50)}
    members = {every: log.epochs[0].members[0] for every, log in curves.items()}
    assert {every: len(member.steps) for every, member in members.items()} == {1: 11, 4: 3, 50: 1}
    assert _same(curves[1].states[0, 1], curves[50].states[0, 1])
    fine = [step.loss for step in members[1].steps]
    assert members[4].steps[0].loss == pytest.approx(np.mean(fine[:4]))


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
        model.parameters(), lr=update.lr, momentum=update.momentum or 0.0, fused=True
    )
    order = epoch_order(data.rows, config, seed, 1)
    for number, (start, stop) in enumerate(order.bounds, 1):
        rows = order.rows[start:stop]
        y = torch.from_numpy(data.labels[rows]).float()
        logits = model(torch.from_numpy(data.pixels[rows]))
        loss = functional.binary_cross_entropy_with_logits(logits, y)
        if not torch.isfinite(loss):
            return number
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return None


def test_divergence_names_seed_epoch_and_batch(data: TrainingData) -> None:
    seeds = list(range(8))
    log = _train(UNSTABLE, seeds, data, epochs=1, stacks=[[seed] for seed in seeds])
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
    apart = [[seed] for seed in range(8)]
    gone = _divergences(_train(UNSTABLE, list(range(8)), data, epochs=1, stacks=apart))
    seeds = [divergence.seed for divergence in gone]
    log = _train(UNSTABLE, seeds, data, epochs=50, stacks=[[seed] for seed in seeds])
    assert len(log.epochs) == 1
    assert log.epochs[0].members == []
    assert [str(one) for one in log.epochs[0].diverged] == [str(one) for one in gone]


def test_divergence_of_one_seed_leaves_those_in_other_stacks_as_they_are(
    data: TrainingData,
) -> None:
    """At this learning rate some seeds diverge in the first epoch and some do not."""
    seeds = list(range(10))
    together = _train(UNSTABLE, seeds, data, epochs=1, stacks=[[seed] for seed in seeds])
    gone = {divergence.seed: divergence for divergence in _divergences(together)}
    assert 0 < len(gone) < len(seeds)
    for seed in seeds:
        alone = _train(UNSTABLE, [seed], data, epochs=1)
        said = [str(divergence) for divergence in _divergences(alone)]
        assert said == ([str(gone[seed])] if seed in gone else [])
        assert alone.curve(seed) == together.curve(seed)
        if seed not in gone:
            assert _same(alone.states[seed, 1], together.states[seed, 1])


@pytest.mark.parametrize("name", ["base", "srm", "convnet", "muon", "adam"])
@pytest.mark.parametrize("value", [float("nan"), 1e30])
def test_a_member_that_diverges_leaves_the_others_numbers_unchanged(
    name: str, value: float, data: TrainingData
) -> None:
    config, seeds = ALL[name], [0, 1, 2, 3]
    sound = _train(config, seeds, data, epochs=1)
    states = {seed: sound.states[seed, 1] for seed in seeds}
    weights = {
        key: torch.full_like(tensor, value) if tensor.is_floating_point() else tensor
        for key, tensor in states[2].weights.items()
    }
    poisoned = states | {2: State(1, weights, states[2].optimizer)}
    expected = _train(config, seeds, data, epochs=2, resume=states)
    found = _train(config, seeds, data, epochs=3, resume=poisoned)
    (gone,) = _divergences(found)
    assert (gone.seed, gone.epoch) == (2, 2)
    for seed in (0, 1, 3):
        assert _same(found.states[seed, 2], expected.states[seed, 2])
        assert found.curve(seed)[0] == expected.curve(seed)[0]
    # From the next epoch on they are a stack of three.
    rest = {seed: expected.states[seed, 2] for seed in (0, 1, 3)}
    narrower = _train(config, [0, 1, 3], data, epochs=3, resume=rest)
    assert [member.stack for member in found.epochs[1].members] == [(0, 1, 3)] * 3
    assert all(_same(found.states[s, 3], narrower.states[s, 3]) for s in (0, 1, 3))


def test_memory_that_ends_when_an_epoch_is_over_has_it_trained_once(
    data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stack of the others is made when a member has diverged, and may not find room."""
    config, seeds = ALL["base"], [3, 0, 7]
    sound = _train(config, seeds, data, epochs=1)
    states = {seed: sound.states[seed, 1] for seed in seeds}
    lost = {key: torch.full_like(value, np.nan) for key, value in states[7].weights.items()}
    poisoned = states | {7: State(1, lost, states[7].optimizer)}
    rest, left = training._Stack._rest, iter([MemoryError()])

    def without_room(*arguments: Any) -> Any:
        for error in left:
            raise error
        return rest(*arguments)

    monkeypatch.setattr(training._Stack, "_rest", without_room)
    found = _train(config, seeds, data, epochs=2, resume=poisoned)
    assert [each.seed for each in _divergences(found)] == [7]
    halves = [[3], [0, 7]]
    assert {member.stack for member in found.epochs[0].members} == set(map(tuple, halves))
    expected = _train(config, seeds, data, epochs=2, resume=poisoned, stacks=halves)
    for seed in (3, 0):
        assert _same(found.states[seed, 2], expected.states[seed, 2])
    (said,) = {member.fallbacks for member in found.epochs[0].members}
    assert said == ("stack of 3 halved in epoch 2: out of memory",)


@pytest.mark.parametrize("seeds", [[0], [0, 1, 2]], ids=len)
def test_where_memory_is_short_passes_are_no_longer_replayed_before_a_stack_is_halved(
    seeds: list[int], data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        """Stands for a recording that finds no room, as on a GPU."""

        def __init__(self, _parameters: object) -> None:
            self.batches = 0

        def __call__(self, passes: Any, pixels: torch.Tensor, targets: torch.Tensor) -> Any:
            self.batches += 1
            if self.batches > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return passes(pixels, targets)

    expected = _train(ALL["base"], seeds, data, epochs=2)
    monkeypatch.setattr(training, "Replay", Full)
    monkeypatch.setattr(training._Stack, "_is_replayed", lambda stack: not stack.fallbacks)
    found = _train(ALL["base"], seeds, data, epochs=2)
    for seed in seeds:
        assert _same(found.states[seed, 2], expected.states[seed, 2])
    said = f"stack of {len(seeds)} no longer replayed in epoch 1: out of memory"
    for epoch in found.epochs:
        assert {(each.stack, each.fallbacks) for each in epoch.members} == {(tuple(seeds), (said,))}


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
    for trains in (True, False):
        model.train(trains)
        predict(model, demo.pixels, _rows(demo, 20))
        assert model.training == trains
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_prediction_of_no_image_is_empty(demo: Pack) -> None:
    assert predict(build(Config(), 0), demo.pixels, _rows(demo, 0)).shape == (0,)

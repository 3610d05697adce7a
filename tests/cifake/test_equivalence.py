"""Every member of a stack follows the same seed trained alone, step for step.

The configurations come from the registry: a new architecture, attention module or update rule is
tested here without a line of its own. Each is trained through `train`, twice: its seeds alone and
its seeds as one network, with orders and augmentation of their own.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import stats

from cifake import training
from cifake.batches import Block, Images, TrainingData
from cifake.config import Config, Optimizer
from cifake.data.pack import Pack
from cifake.evaluation import predict, scores
from cifake.models import catalogue
from cifake.models.build import build, parameter_count
from cifake.training import Epoch, MemberEpoch, train
from cifake.updates import Tensors

SEEDS = (3, 0)
STEPS = 50
OPTIMIZERS: tuple[str, ...] = get_args(Optimizer.model_fields["name"].annotation)

SMALL: dict[str, object] = {"filters": 4, "neurons": 8, "depth": 8, "width": 4, "trees": 5}
"""Options of architectures that have them, so that small ones are tested; the rest as it is."""

LARGE = 1_000_000
"""Parameters from which on an architecture is slow: its images are cut to a corner."""

CORNER = 16
"""Height and width of that corner."""

LARGE_LR = 1e-6
"""Their learning rate. On batches of four they multiply any difference by ten a step at 0.001."""

GENTLE_LR = 1e-4
"""Of the residual network with learned input kernels: at 0.001 it multiplies any difference by a
third a step, so that in fifty of them the last bit comes to 6e-8."""

EXACT = 1e-9
"""Relative difference allowed in double precision."""

ZERO = 1e-11
"""What is zero but for rounding: gradients of biases that batch normalisation takes away."""

EPS = 1e-4
"""Of Adam and what is built on it: by the usual 1e-8 it divides gradients that are zero but for
rounding, such as those of shifts that a normalisation further on takes away, and steps at random.
"""

YARDSTICKS = 3.0
"""How many times as far as a network departs from itself a member may depart from it."""


def _plain(model: str) -> dict[str, Any]:
    """An architecture as small as it is tested."""
    names = catalogue.ARCHITECTURES[model].options
    return {"model": model, "model_options": {k: v for k, v in SMALL.items() if k in names}}


def _stacks(model: str) -> bool:
    return catalogue.stacking_problem(Config.model_validate(_plain(model))) is None


def _is_large(model: str) -> bool:
    return parameter_count(build(Config.model_validate(_plain(model)), 0)) > LARGE


MODELS = [model for model in catalogue.ARCHITECTURES if _stacks(model)]
SMALL_MODELS = [model for model in MODELS if not _is_large(model)]
LARGE_MODELS = [model for model in MODELS if model not in SMALL_MODELS]


@dataclass(frozen=True)
class Combination:
    """An architecture, an attention module at all its sites, an update rule."""

    model: str
    attention: str
    optimizer: str

    def config(self, **others: Any) -> Config:
        rate = LARGE_LR if self.model in LARGE_MODELS else 0.001
        if (self.model, others.get("input")) == ("resnet", "steg_srm_learned"):
            rate = GENTLE_LR
        settings = (
            _plain(self.model)
            | {
                "batch_size": 4,
                "augmentation": {"flip": True, "crop": 2},
                "optimizer": {"name": self.optimizer, "lr": rate, "weight_decay": 0.01, "eps": EPS},
                "log_every": 1,
            }
            | others
        )
        sites = catalogue.sites_of(Config.model_validate(settings))
        if self.attention != "none":
            settings |= {"attention": self.attention, "placement": "+".join(sites)}
        return Config.model_validate(settings)

    def __str__(self) -> str:
        return f"{self.model}-{self.attention}-{self.optimizer}"


def _combinations() -> Iterator[Combination]:
    """All that can be stacked; an architecture without sites has no attention."""
    for model in MODELS:
        sites = catalogue.sites_of(Combination(model, "none", "sgd").config())
        kinds = catalogue.ATTENTION if sites else ("none",)
        for attention, optimizer in itertools.product(kinds, OPTIMIZERS):
            yield Combination(model, attention, optimizer)


ALL = list(_combinations())


@dataclass(frozen=True)
class Path:
    """What an epoch of some seeds gave, seed by seed."""

    losses: dict[int, npt.NDArray[np.float64]]
    """Of every step, each of which has felt all steps before it."""

    tensors: dict[int, Tensors]
    """Weights, statistics and optimiser state at the end."""


def _path(config: Config, data: TrainingData, stacks: Sequence[Sequence[int]]) -> Path:
    epochs: list[Epoch] = []
    seeds = [seed for stack in stacks for seed in stack]
    train(config, seeds, data, epochs.append, epochs=1, stacks=stacks)
    members: dict[int, MemberEpoch] = {member.seed: member for member in epochs[0].members}
    assert [members[seed].stack for seed in seeds] == [tuple(s) for s in stacks for _ in s]
    return Path(
        {seed: np.array([step.loss for step in members[seed].steps]) for seed in seeds},
        {s: {**members[s].state.weights, **members[s].state.optimizer} for s in seeds},
    )


ALONE = [(seed,) for seed in SEEDS]
TOGETHER = [SEEDS]


@pytest.fixture(scope="session")
def data(demo: Pack) -> TrainingData:
    """Fifty batches of four."""
    rows = np.random.default_rng(0).permutation(demo.rows("train"))[: 4 * STEPS]
    return TrainingData(demo.pixels, demo.labels, np.sort(rows))


@pytest.fixture(scope="session")
def corners(data: TrainingData) -> TrainingData:
    """The same images, of each the middle alone: large networks are slow, and take any size."""
    start = (catalogue.SIDE - CORNER) // 2
    middle = slice(start, start + CORNER)
    return TrainingData(np.array(data.pixels[:, middle, middle]), data.labels, data.rows)


# Double precision: the same numbers


def _differs(found: Path, expected: Path) -> Iterator[str]:
    """What of a path is not another's to nine digits."""
    for seed, losses in expected.losses.items():
        assert len(losses) == len(found.losses[seed]) >= STEPS
        bad = np.flatnonzero(~np.isclose(found.losses[seed], losses, rtol=EXACT, atol=0))
        if len(bad):
            yield f"seed {seed}: loss of step {bad[0] + 1}"
        tensors = expected.tensors[seed]
        assert found.tensors[seed].keys() == tensors.keys()
        for name, value in tensors.items():
            scale = value.double().abs().max().item()
            apart = (found.tensors[seed][name] - value).double().abs().max().item()
            if not apart <= EXACT * scale + ZERO:
                yield f"seed {seed}: {name}"


def _follows(config: Config, data: TrainingData, alone: Sequence[tuple[int, ...]] = ALONE) -> None:
    """Fail unless the members of a stack do what their seeds do alone, or those of them given."""
    config = config.model_copy(
        update={"execution": config.execution.model_copy(update={"precision": "float64"})}
    )
    differences = [*_differs(_path(config, data, TOGETHER), _path(config, data, alone))]
    assert differences == []


def _is_worth_it(each: Combination) -> bool:
    """Whether a large network is trained: with every attention module, and by every rule but Muon.

    Muon orthogonalises its matrices for seconds a step. What a rule does to a member's parameter is
    the same in any architecture, so the small ones have all combinations.
    """
    return each.optimizer == "sgd" or (each.attention == "none" and each.optimizer != "muon")


def _is_quick(each: Combination) -> bool:
    if each.model in LARGE_MODELS or each.optimizer == "muon":
        return each.model == "linear"
    return each.optimizer == "sgd" or each.attention == "none"


FOLLOWED = [
    pytest.param(each, id=str(each), marks=[] if _is_quick(each) else [pytest.mark.long])
    for each in ALL
    if each.model not in LARGE_MODELS or _is_worth_it(each)
]


@pytest.mark.parametrize("each", FOLLOWED)
def test_members_are_their_seeds_in_double_precision(
    each: Combination, data: TrainingData, corners: TrainingData
) -> None:
    """Losses of fifty steps, then weights, statistics and moments, all to nine digits."""
    if each.model in LARGE_MODELS:
        _follows(each.config(), corners, ALONE[1:])
    else:
        _follows(each.config(), data)


OTHERS: list[dict[str, Any]] = [
    {"data_order": "shared"},
    {"data_order": "shared", "shuffle": "frozen_batches"},
    {"normalization": "dataset", "augmentation": {"flip": False, "crop": 0}},
    {"input": "steg_srm_learned", "input_options": {"filters": 3}},
    {"label_smoothing": 0.1, "schedule": {"name": "one_cycle", "horizon": 1}},
    {"execution": {"channels_last": False}},
    {"init_seed": 1},
]


@pytest.mark.parametrize(
    ("model", "others"),
    [
        pytest.param(
            model,
            others,
            id=f"{model}-{'-'.join(others)}",
            marks=[] if model == SMALL_MODELS[0] or others == OTHERS[0] else [pytest.mark.long],
        )
        for model, others in itertools.product(SMALL_MODELS, OTHERS)
    ],
)
def test_members_are_their_seeds_under_other_settings(
    model: str, others: dict[str, Any], data: TrainingData
) -> None:
    """Those that say what the members share and what each has of its own."""
    _follows(Combination(model, "none", "sgd").config(**others), data)


BACKBONES = [
    name
    for name in catalogue.STACKABLE_BACKBONES
    if name != catalogue.ARCHITECTURES["torchvision"].options["backbone"]
]


@pytest.mark.long
@pytest.mark.parametrize("backbone", BACKBONES)
def test_members_of_other_backbones_are_their_seeds(backbone: str, corners: TrainingData) -> None:
    each = Combination("torchvision", "none", "sgd")
    _follows(each.config(model_options={"backbone": backbone}), corners, ALONE[1:])


# What the comparison would find


def _swapped_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members see each other's images."""
    real = Images.blocks

    def blocks(self: Images, config: Config, seeds: Sequence[int], epoch: int) -> Iterator[Block]:
        return real(self, config, seeds[::-1], epoch)

    monkeypatch.setattr(Images, "blocks", blocks)


def _one_augmentation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Orders are the members' own, flips and crops the first one's."""
    from cifake import batches

    real = batches._shifts

    def shifts(augmentation: Any, images: int, seed: int, epoch: int) -> torch.Tensor | None:
        del seed
        return real(augmentation, images, SEEDS[0], epoch)

    monkeypatch.setattr(batches, "_shifts", shifts)


def _one_initialisation(monkeypatch: pytest.MonkeyPatch) -> None:
    def same(config: Config, seed: int) -> torch.nn.Module:
        del seed
        return build(config, SEEDS[0])

    monkeypatch.setattr(training, "build", same)


def _shared_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean over members in the place of their sum: half the gradient."""
    real = training._objective

    def objective(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return real(logits, targets) / logits.shape[1]

    monkeypatch.setattr(training, "_objective", objective)


def _last_step_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No loss of the epoch shows it, the weights do."""
    real = training.Updater.update
    steps = itertools.count(1)

    def update(self: training.Updater, rate: float) -> None:
        if next(steps) < STEPS:
            real(self, rate)

    monkeypatch.setattr(training.Updater, "update", update)


MISTAKES = {
    "orders": _swapped_orders,
    "augmentation": _one_augmentation,
    "initialisation": _one_initialisation,
    "gradient": _shared_gradient,
    "steps": _last_step_missing,
}


MISTAKABLE = Combination("base", "srm", "sgd").config(execution={"precision": "float64"})


@pytest.fixture(scope="module")
def unmistaken(data: TrainingData) -> Path:
    """The seeds alone, whom the members of a stack follow while nothing is wrong with it."""
    path = _path(MISTAKABLE, data, ALONE)
    assert [*_differs(_path(MISTAKABLE, data, TOGETHER), path)] == []
    return path


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_stack_with_a_mistake_is_told_from_its_members(
    mistake: str, data: TrainingData, unmistaken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second seed is seen to be wrong; the first may be what both became."""
    MISTAKES[mistake](monkeypatch)
    differences = [*_differs(_path(MISTAKABLE, data, TOGETHER), unmistaken)]
    assert any(found.startswith(f"seed {SEEDS[1]}") for found in differences)


# Single precision: no further than a network departs from itself


ROUNDING = 2.0**-22
"""Departure that says nothing: two units in the last place of float32."""


COMPANY = (3, 0, 8, 1, 5)
"""Seeds whose median departure is compared: one of them may jump, where rounding decides which of
two equal values a pooling takes, in a stack no more often than alone."""


def _departures(found: Path, expected: Path) -> npt.NDArray[np.float64]:
    """How far each seed's losses are from others up to every step; relative, (seeds, steps)."""
    apart = [
        np.abs(found.losses[seed] - losses) / losses for seed, losses in expected.losses.items()
    ]
    return np.maximum.accumulate(apart, 1)


def _distances(found: Path, expected: Path) -> npt.NDArray[np.float64]:
    """How far each seed's final weights are from others; relative, shape (seeds,)."""
    shares = []
    for seed, tensors in expected.tensors.items():
        names = [k for k, v in tensors.items() if "/" not in k and v.is_floating_point()]
        both = [
            torch.cat([path.tensors[seed][k].double().flatten() for k in names])
            for path in (found, expected)
        ]
        shares.append(float((both[0] - both[1]).norm() / both[1].norm()))
    return np.array(shares)


def _in_planes(config: Config, seed: int) -> torch.nn.Module:
    """A network whose maps lie channel by channel in memory."""
    model = build(config, seed).to(memory_format=torch.contiguous_format)
    pixels = model.get_submodule("pixels")
    pixels.register_forward_hook(lambda _module, _inputs, out: out.contiguous())
    return model


def _nudged(config: Config, seed: int, towards: float) -> torch.nn.Module:
    """A network whose weights are each the next number, as rounding might have made them."""
    model = build(config, seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.nextafter(weight, torch.full_like(weight, towards)))
    return model


OTHERWISE = (
    _in_planes,
    functools.partial(_nudged, towards=torch.inf),
    functools.partial(_nudged, towards=-torch.inf),
)
"""What makes a network that is the same but for rounding."""


def _is_quick_to_compare(each: Combination) -> bool:
    if each.model in LARGE_MODELS or each.optimizer != "sgd":
        return False
    return each.attention == "none" or (each.model, each.attention) == ("base", "srm")


def _is_worth_comparing(each: Combination) -> bool:
    """Muon and large networks, which are slow, without attention modules."""
    if each.model in LARGE_MODELS:
        return each.optimizer == "sgd" and each.attention == "none"
    return each.optimizer != "muon" or each.attention == "none"


COMPARED = [
    pytest.param(each, id=str(each), marks=[] if _is_quick_to_compare(each) else [pytest.mark.long])
    for each in ALL
    if _is_worth_comparing(each)
]


@pytest.mark.parametrize("each", COMPARED)
def test_members_depart_no_faster_than_a_network_from_itself(
    each: Combination, data: TrainingData, corners: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Float32 adds in another order in a stack; so it does in another memory format.

    The yardstick is how far the same seeds alone are from themselves in that format, up to each
    step and in their final weights. Convolutions that we have written are the same to the bit in
    both, so every weight is also made a unit in its last place larger, and smaller; of the three
    the furthest counts, seed by seed.
    """
    config = each.config()
    images = corners if each.model in LARGE_MODELS else data
    apart = [(seed,) for seed in COMPANY]
    alone, stacked = _path(config, images, apart), _path(config, images, [COMPANY])
    others = []
    for otherwise in OTHERWISE:
        monkeypatch.setattr(training, "build", otherwise)
        others.append(_path(config, images, apart))
    for measure in (_departures, _distances):
        itself = np.max([measure(other, alone) for other in others], 0)
        yardstick = np.maximum(np.median(itself, 0), ROUNDING)
        assert (np.median(measure(stacked, alone), 0) <= YARDSTICKS * yardstick).all()


# After an epoch of real images: the same distribution over seeds


MANY = tuple(range(10))
CLOSE = 0.25
"""Share of the spread over seeds by which the means may differ."""

ALIKE = 1.25
"""Ratio of the two spreads at most."""

CONFIDENCE = 0.95
"""Of each one-sided bound, as in two one-sided tests at 5 %."""


def _bounds(
    found: npt.NDArray[np.float64], expected: npt.NDArray[np.float64]
) -> tuple[float, float]:
    """Upper bounds of the difference of means, in spreads over seeds, and of the ratio of spreads.

    The seeds are paired. The mean's interval is Student's of the differences; that of the spreads
    is Pitman's and Morgan's for correlated normal pairs. Arrays of shape (seeds,).
    """
    count = len(expected)
    apart = found - expected
    reach = stats.t.ppf(CONFIDENCE, count - 1) * apart.std(ddof=1) / np.sqrt(count)
    spread = expected.std(ddof=1)
    ratio = (found.std(ddof=1) / spread) ** 2
    unshared = 1 - np.corrcoef(found, expected)[0, 1] ** 2
    width = 1 + 2 * unshared * stats.t.ppf(CONFIDENCE, count - 2) ** 2 / (count - 2)
    furthest = max(ratio, 1 / ratio) * (width + np.sqrt(width**2 - 1))
    return float((abs(apart.mean()) + reach) / spread), float(np.sqrt(furthest))


def _alike(found: npt.NDArray[np.float64], expected: npt.NDArray[np.float64]) -> bool:
    """Whether two distributions over the same seeds are shown to be the same.

    An equivalence test: that the means differ by a quarter of the spread or more is rejected, and
    so is that one spread is 1.25 times the other or more, each at 5 %. What is merely uncertain
    fails.
    """
    mean, spread = _bounds(found, expected)
    return mean < CLOSE and spread < ALIKE


def _losses_on_test(
    config: Config, pack: Pack, stacks: Sequence[Sequence[int]]
) -> npt.NDArray[np.float64]:
    """Of each seed after an epoch, in nats; shape (seeds,)."""
    found: dict[int, float] = {}
    rows = pack.rows("test")

    def evaluate(epoch: Epoch) -> None:
        for member in epoch.members:
            probabilities = predict(member.model, pack.pixels, rows)
            found[member.seed] = float(scores(probabilities, pack.labels[rows])["loss"] or 0.0)

    data = TrainingData(pack.pixels, pack.labels, pack.rows("train"))
    train(config, MANY, data, evaluate, epochs=1, stacks=stacks)
    return np.array([found[seed] for seed in MANY])


APART = [(seed,) for seed in MANY]
LEARNING = Config.model_validate({"batch_size": 16, "optimizer": {"lr": 0.02}})


def test_an_epoch_of_real_images_has_the_same_distribution_over_seeds(subset: Pack) -> None:
    """100 steps with ten seeds, by the loss on 400 test images; see `_alike`.

    The test is not blind: it tells stacks whose members share an order, or initial weights.
    """
    alone = _losses_on_test(LEARNING, subset, APART)
    assert _alike(_losses_on_test(LEARNING, subset, [MANY]), alone)
    for shared in ({"data_order": "shared", "data_seed": 0}, {"init_seed": 0}):
        other = LEARNING.model_copy(update=shared)
        assert not _alike(_losses_on_test(other, subset, [MANY]), alone)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_an_epoch_of_all_real_images_has_the_same_distribution_over_seeds(cifake: Pack) -> None:
    """3,125 steps on 100,000 images with ten seeds, by the loss on 20,000; see `_alike`."""
    alone = _losses_on_test(Config(), cifake, APART)
    assert _alike(_losses_on_test(Config(), cifake, [MANY]), alone)


@pytest.mark.parametrize(("shift", "stretch"), [(0.3, 1.0), (-0.3, 1.0), (0.0, 1.3), (0.0, 0.7)])
def test_distributions_apart_are_told_apart(shift: float, stretch: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        alone = rng.normal(0.6, 0.02, len(MANY))
        near = alone + rng.normal(0, 0.0005, len(MANY))
        assert _alike(near, alone)
        middle, spread = alone.mean(), alone.std(ddof=1)
        assert not _alike(middle + shift * spread + stretch * (near - middle), alone)
        assert not _alike(rng.permutation(near), alone)

"""Every image is seen once an epoch, in an order that follows from the seed, and moved as asked."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import functional

from cifake.batches import Images, TrainingData, batch_bounds, epoch_order, shifted
from cifake.config import Config
from cifake.data.pack import Pack

FROZEN = Config(shuffle="frozen_batches", batch_size=8)
SHUFFLES = {"reshuffle": Config(batch_size=8), "frozen_batches": FROZEN}


def _batches(config: Config, count: int, seed: int, epoch: int) -> list[tuple[int, ...]]:
    order = epoch_order(np.arange(count, dtype=np.int64), config, seed, epoch)
    return [tuple(order.rows[start:stop].tolist()) for start, stop in order.bounds]


@settings(deadline=None)
@given(
    count=st.integers(2, 200),
    seed=st.integers(0, 2**32),
    epoch=st.integers(1, 1000),
    shuffle=st.sampled_from(sorted(SHUFFLES)),
)
def test_order_is_a_permutation_and_a_function_of_seed_and_epoch(
    count: int, seed: int, epoch: int, shuffle: str
) -> None:
    rows = np.arange(count, dtype=np.int64) * 3 + 1
    order = epoch_order(rows, SHUFFLES[shuffle], seed, epoch)
    np.testing.assert_array_equal(np.sort(order.rows), rows)
    again = epoch_order(rows, SHUFFLES[shuffle], seed, epoch)
    np.testing.assert_array_equal(order.rows, again.rows)
    assert order.bounds[0][0] == 0
    assert order.bounds[-1][1] == count
    assert all(stop == start for (_, stop), (start, _) in itertools.pairwise(order.bounds))


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_order_differs_by_seed_and_epoch(shuffle: str) -> None:
    orders = {
        tuple(_batches(SHUFFLES[shuffle], 100, seed, epoch))
        for seed in range(5)
        for epoch in range(1, 6)
    }
    assert len(orders) == 25


@settings(deadline=None)
@given(count=st.integers(2, 200), seed=st.integers(0, 2**32))
def test_frozen_batches_keep_their_members_and_change_their_order(count: int, seed: int) -> None:
    epochs = [_batches(FROZEN, count, seed, epoch) for epoch in (1, 2, 3)]
    members = [sorted(tuple(sorted(batch)) for batch in batches) for batches in epochs]
    assert members[0] == members[1] == members[2]
    if count > 40:
        assert len({tuple(tuple(sorted(batch)) for batch in batches) for batches in epochs}) > 1
        inner = [{tuple(sorted(b)): b for b in batches} for batches in epochs]
        assert inner[0] != inner[1]


def test_reshuffled_batches_change_their_members() -> None:
    one, two = (
        {tuple(sorted(batch)) for batch in _batches(SHUFFLES["reshuffle"], 100, 0, epoch)}
        for epoch in (1, 2)
    )
    assert not one & two


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


@settings(deadline=None, max_examples=50)
@given(
    moves=st.lists(
        st.tuples(st.integers(-16, 16), st.integers(-16, 16), st.booleans()),
        min_size=1,
        max_size=5,
    )
)
def test_images_are_cropped_and_flipped_as_torchvision_does(
    demo: Pack, moves: list[tuple[int, int, bool]]
) -> None:
    """A move by (y, x) is the crop at (y + 16, x + 16) of the image within a black border of 16."""
    pixels = torch.from_numpy(demo.pixels[: len(moves)].copy())
    found = shifted(pixels, torch.tensor([[y, x, int(flip)] for y, x, flip in moves]))
    for image, (y, x, flip), ours in zip(pixels, moves, found, strict=True):
        bordered = functional.pad(image.permute(2, 0, 1), [16])
        expected = functional.crop(bordered, y + 16, x + 16, 32, 32)
        expected = functional.hflip(expected) if flip else expected
        assert torch.equal(ours.permute(2, 0, 1), expected)


def _blocks(demo: Pack, config: Config, epoch: int = 1, seed: int = 0) -> torch.Tensor:
    data = TrainingData(demo.pixels, demo.labels, demo.rows("train"))
    blocks = Images(data, "cpu").blocks(config, [seed], epoch)
    return torch.cat([block.pixels for block in blocks])


def test_augmentation_moves_as_far_as_asked_and_mirrors_half(demo: Pack) -> None:
    """Told from the images themselves, by comparing with every possible change of them."""
    config = Config.model_validate({"augmentation": {"flip": True, "crop": 1}})
    plain, found = _blocks(demo, Config()), _blocks(demo, config)
    changes = [(y, x, flip) for y in (-1, 0, 1) for x in (-1, 0, 1) for flip in (0, 1)]
    matched = torch.stack(
        [
            (shifted(plain, torch.tensor([change]).expand(len(plain), 3)) == found)
            .flatten(1)
            .all(1)
            for change in changes
        ]
    )
    assert matched.any(0).all()
    shares = matched.float().mean(1)
    assert shares.min() > 0.6 / len(changes)
    assert shares.max() < 1.5 / len(changes)


def test_augmentation_is_drawn_anew_every_epoch_from_the_seed(demo: Pack) -> None:
    config = Config.model_validate({"augmentation": {"crop": 4}, "data_seed": 0})
    first = _blocks(demo, config)
    assert torch.equal(first, _blocks(demo, config))
    assert torch.equal(first, _blocks(demo, config, seed=5))
    own = Config.model_validate({"augmentation": {"crop": 4}})
    assert torch.equal(first, _blocks(demo, own))
    assert not torch.equal(first, _blocks(demo, own, seed=5))


def test_blocks_hold_the_images_of_the_order(demo: Pack) -> None:
    rows = demo.rows("train")[::7]
    data = TrainingData(demo.pixels, demo.labels, rows)
    config = Config(batch_size=50)
    order = epoch_order(rows, config, 3, 2)
    found, labels, bounds = [], [], []
    for block in Images(data, "cpu").blocks(config, [3], 2):
        start = sum(len(part) for part in found)
        bounds += [(start + first, start + last) for first, last in block.bounds]
        found.append(block.pixels)
        labels.append(block.labels)
    np.testing.assert_array_equal(torch.cat(found).numpy(), demo.pixels[order.rows])
    np.testing.assert_array_equal(torch.cat(labels).squeeze(1).numpy(), demo.labels[order.rows])
    assert bounds == order.bounds


def test_a_short_batch_that_comes_first_makes_no_large_block(demo: Pack) -> None:
    rows = demo.rows("train")
    config = Config(batch_size=len(rows) // 4 - 1, shuffle="frozen_batches")
    assert config.batch_size > 64
    short = 0
    for epoch in range(12):
        blocks = list(
            Images(TrainingData(demo.pixels, demo.labels, rows), "cpu").blocks(
                config, range(2048 // config.batch_size), epoch
            )
        )
        start, stop = blocks[0].bounds[0]
        short += stop - start < config.batch_size
        assert {len(block.bounds) for block in blocks} == {1}
    assert short


@pytest.mark.parametrize("data_order", ["per_seed", "shared"])
def test_blocks_of_a_stack_hold_the_images_of_every_member(demo: Pack, data_order: str) -> None:
    """One after another along the channels, each as the seed alone has them; shared ones once."""
    config = Config.model_validate(
        {"data_order": data_order, "augmentation": {"flip": True, "crop": 2}}
    )
    images = Images(TrainingData(demo.pixels, demo.labels, demo.rows("train")[::3]), "cpu")
    seeds = [4, 1, 7]
    together = list(images.blocks(config, seeds, 2))
    pixels = torch.cat([block.pixels for block in together])
    labels = torch.cat([block.labels for block in together])
    sharers = seeds[:1] if data_order == "shared" else seeds
    assert pixels.shape[3] == 3 * len(sharers)
    assert labels.shape[1] == len(sharers)
    for index, seed in enumerate(sharers):
        alone = list(images.blocks(config, [seed], 2))
        expected = torch.cat([block.pixels for block in alone])
        assert torch.equal(pixels[..., 3 * index : 3 * index + 3], expected)
        assert torch.equal(labels[:, index], torch.cat([block.labels for block in alone])[:, 0])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"augmentation": {"flip": True, "crop": 3}},
        {"data_order": "shared"},
        {"data_order": "shared", "shuffle": "frozen_batches"},
    ],
    ids=lambda settings: "-".join(settings) or "default",
)
def test_images_held_on_a_device_are_those_mapped_from_the_file(
    demo: Pack, settings: dict[str, object]
) -> None:
    """Any device but `cpu` holds the images, here the processor under its other name."""
    data = TrainingData(demo.pixels, demo.labels, demo.rows("train")[1::2])
    config = Config.model_validate({"batch_size": 9} | settings)
    mapped, held = (list(Images(data, d).blocks(config, [4, 1, 7], 2)) for d in ("cpu", "cpu:0"))
    assert len(held) <= len(mapped)
    for name in ("pixels", "labels"):
        one, other = (torch.cat([getattr(b, name) for b in found]) for found in (mapped, held))
        assert torch.equal(one, other)
    one, other = (
        [b.first + n for b in found for n in range(len(b.bounds))] for found in (mapped, held)
    )
    assert one == other == list(range(len(batch_bounds(len(data.rows), 9))))

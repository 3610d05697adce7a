"""The embedded data set is the same on every machine and keeps its splits apart."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from cifake.data import demo as demo_source
from cifake.data.pack import Pack, write_pack

BLOCK = 61


def test_demo_set_is_the_same_on_every_machine(demo: Pack) -> None:
    assert demo.info.fingerprint == "96646edd3ebcff2d"


def test_demo_set_is_the_same_every_time(demo: Pack, tmp_path: Path) -> None:
    again = write_pack(tmp_path, "demo", "embedded", demo_source.read(), trains=True, workers=1)
    assert again.info.fingerprint == demo.info.fingerprint
    np.testing.assert_array_equal(again.pixels, demo.pixels)


def test_demo_set_has_ten_classes_evenly_over_splits_and_labels(demo: Pack) -> None:
    found = Counter(
        (row["split"], row["label"], row["content_class"]) for row in demo.images.to_pylist()
    )
    classes = [f"{name}{strip}" for name in ("china", "flower") for strip in range(1, 6)]
    assert found == {
        (split, label, name): count
        for split, count in (("train", 200), ("test", 50))
        for label in (0, 1)
        for name in classes
    }
    assert len(demo.rows("train")) == 4000
    assert len(demo.rows("test")) == 1000


def test_generator_is_named_for_fakes_alone(demo: Pack) -> None:
    found = {(row["label"], row["generator"]) for row in demo.images.to_pylist()}
    assert found == {(0, "shrink"), (1, None)}


def test_no_demo_test_image_repeats_a_training_image(demo: Pack) -> None:
    train = {image.tobytes() for image in demo.pixels[demo.rows("train")]}
    assert not any(image.tobytes() in train for image in demo.pixels[demo.rows("test")])


def test_train_and_test_patches_come_from_disjoint_blocks() -> None:
    """On a photograph whose every block has a colour of its own, the colours tell the blocks."""
    height, width, strips = 427, 640, 5
    strip_width = width // strips
    down = np.arange(height) // BLOCK
    across = np.arange(width) // strip_width * 8 + np.arange(width) % strip_width // BLOCK
    photograph = np.zeros((height, width, 3), np.uint8)
    photograph[..., 0] = down[:, None] * 20
    photograph[..., 1] = across[None, :] * 5
    colours: dict[str, set[tuple[int, ...]]] = {"train": set(), "test": set()}
    for strip in range(strips):
        for image in demo_source._strip_images("china", photograph, strip, strip):
            if image.label == 1:
                pixels = np.frombuffer(image.blob[-32 * 32 * 3 :], np.uint8).reshape(-1, 3)
                inside = {tuple(pixel) for pixel in pixels.tolist()}
                assert len(inside) == 1
                colours[image.split] |= inside
    assert colours["train"].isdisjoint(colours["test"])
    assert len(colours["train"]) > 3 * len(colours["test"]) > 0

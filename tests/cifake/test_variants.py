"""A variant is its set with other pixels: made once, known by name, opened like any other."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifake.data.corruptions import apply_steps
from cifake.data.locate import open_dataset
from cifake.data.names import Name, Step
from cifake.data.pack import Pack, open_pack, write_pack
from cifake.data.raw import RawImage
from cifake.data.variants import derive


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CIFAKE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def opened(name: str, folder: Path, counted: list[int] | None = None) -> Pack:
    advance = [].append if counted is None else counted.append
    return open_dataset(name, {"cifake": folder}, advance, workers=1)


@pytest.mark.usefixtures("cache")
def test_pixels_are_changed_and_all_that_is_known_is_kept(cifake_folder: Path) -> None:
    original = opened("cifake", cifake_folder)
    variant = opened("cifake@blur=1,jpeg=40", cifake_folder)
    expected = apply_steps(np.asarray(original.pixels), (("blur", 1), ("jpeg", 40)))
    np.testing.assert_array_equal(variant.pixels, expected)
    assert variant.images.equals(original.images)
    assert variant.images["duplicate_of"].null_count < len(variant.images)
    assert isinstance(variant.pixels, np.memmap)
    assert variant.info.dataset == "cifake@blur=1,jpeg=40"
    assert variant.info.source == original.info.source
    assert open_pack(variant.folder).info == variant.info


def test_variant_is_made_once_whatever_its_spelling(cache: Path, cifake_folder: Path) -> None:
    counted: list[int] = []
    first = opened("cifake@blur=1.0", cifake_folder, counted)
    assert sum(counted) == 2 * 64, "the set, then its variant"
    again = opened("cifake@blur=01", cifake_folder, counted)
    assert sum(counted) == 2 * 64
    assert again.folder == first.folder
    assert len(list((cache / "packs").iterdir())) == 2


@pytest.mark.usefixtures("cache")
def test_every_variant_has_a_fingerprint_of_its_own(cifake_folder: Path) -> None:
    names = ("cifake", "cifake@blur=1", "cifake@blur=2", "cifake@jpeg=50", "cifake@jpeg=50,blur=1")
    names += ("cifake@blur=1,jpeg=50",)
    assert len({opened(name, cifake_folder).info.fingerprint for name in names}) == len(names)


def test_same_variant_is_the_same_in_another_cache(
    cifake_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for folder in ("a", "b"):
        monkeypatch.setenv("CIFAKE_CACHE", str(tmp_path / folder))
        found.append(opened("cifake@noise=12.5", cifake_folder))
    assert found[0].info == found[1].info
    np.testing.assert_array_equal(found[0].pixels, found[1].pixels)


@pytest.mark.usefixtures("cache")
def test_changed_source_makes_a_new_variant(
    cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    source = tmp_path / "cifake"
    for name, blob in cifake_images.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(blob)
    first = opened("cifake@greyscale", source)
    (source / "train/REAL/0099.jpg").write_bytes(cifake_images["test/REAL/0000.jpg"])
    second = opened("cifake@greyscale", source)
    assert (first.info.images, second.info.images) == (64, 65)


@pytest.mark.usefixtures("cache")
def test_variant_of_a_folder_set_lists_what_could_not_be_read(tmp_path: Path) -> None:
    for name in ("real/0.png", "fake/0.png"):
        (tmp_path / "set" / name).parent.mkdir(parents=True)
        Image.new("RGB", (50, 60), "red").save(tmp_path / "set" / name)
    (tmp_path / "set/fake/1.png").write_bytes(b"nothing")
    sources = {"folders/mine": tmp_path / "set"}
    original = open_dataset("folders/mine@filter=box", sources)
    variant = open_dataset("folders/mine@filter=box,greyscale", sources)
    assert variant.unreadable_files.equals(original.unreadable_files)
    assert variant.unreadable("test") == 1
    assert variant.info.dataset == "folders/mine@filter=box,greyscale"
    assert variant.folder.parent == original.folder.parent


@pytest.mark.usefixtures("cache")
def test_embedded_set_has_variants() -> None:
    variant = open_dataset("demo@greyscale")
    assert (variant.pixels[..., 0] == variant.pixels[..., 2]).all()
    assert len(variant.rows("train")) == 4000


def test_number_of_workers_is_irrelevant(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = []
    for number in range(8300):
        pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
        blob = b"P6 32 32 255\n" + pixels.tobytes()
        images.append(
            RawImage(name=str(number), file_name=None, split="train", label=number % 2, blob=blob)
        )
    original = write_pack(tmp_path, "demo", "here", images, trains=True, workers=1)
    name = Name("demo", steps=(Step("resize", "16"), Step("noise", "3")))
    packs = [derive(tmp_path / str(n), original, name, workers=n) for n in (1, 2)]
    assert packs[0].info == packs[1].info
    np.testing.assert_array_equal(packs[0].pixels, packs[1].pixels)


@pytest.mark.usefixtures("cache")
def test_transfer_set_goes_through_the_encoder_of_cifake(
    cifake_images: dict[str, bytes], cifake_folder: Path
) -> None:
    """Lossless pixels at quality 75 are what Pillow's own encoder makes of them."""
    original = opened("cifake", cifake_folder)
    variant = opened("cifake@jpeg=75", cifake_folder)
    for before, after in zip(original.pixels, variant.pixels, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(before).save(buffer, "JPEG", quality=75)
        np.testing.assert_array_equal(after, np.asarray(Image.open(buffer)))
    assert len(cifake_images) == len(variant.pixels)

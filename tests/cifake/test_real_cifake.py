"""What is known of the published images holds for what is read here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from cifake.batches import TrainingData
from cifake.config import Config, DataSettings, ModelOptions
from cifake.data.catalogue import DATASETS
from cifake.data.locate import find_source, open_dataset, parse_sources
from cifake.data.pack import Pack, write_pack
from cifake.data.raw import RawImage
from cifake.data.subsets import split_rows
from cifake.evaluation import predict, scores
from cifake.models.boosting import Boosting
from cifake.training import Epoch, train

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
EACH = {"train": 80, "test": 20}


@pytest.fixture(scope="session")
def cifar100(real_data: Path) -> Pack:
    return open_dataset("cifar100", {"cifar100": real_data / "cifar100-test.parquet"})


def _strata(pack: Pack) -> Counter[tuple[str, int, str]]:
    columns = (pack.images[name].to_pylist() for name in ("split", "label", "content_class"))
    return Counter(zip(*columns, strict=True))


def test_subset_has_every_class_and_label_evenly(subset: Pack) -> None:
    assert len(subset.pixels) == 2000
    assert _strata(subset) == {
        (split, label, name): each
        for split, each in EACH.items()
        for label in (0, 1)
        for name in CLASSES
    }


def test_boosting_learns_real_images(subset: Pack) -> None:
    """A hundred trees on 1,600 images tell 400 others better than colour alone could."""
    train_rows, rows = subset.rows("train"), subset.rows("test")
    model = Boosting(ModelOptions(trees=100, shrinkage=0.1, leaves=15))
    model.fit(subset.pixels, subset.labels, train_rows, 0)
    called = model(torch.from_numpy(subset.pixels[rows])) >= 0
    assert float((called.numpy() == subset.labels[rows]).mean()) > 0.8


def test_network_learns_real_images(subset: Pack) -> None:
    """Six epochs on 1,600 images are better than chance by more than chance allows."""
    split = split_rows(subset, DataSettings(validation=200))
    data = TrainingData(subset.pixels, subset.labels, split.train)
    config = Config.model_validate({"model": "attn", "optimizer": {"lr": 0.02}})
    found: list[float | None] = []

    def evaluate(epoch: Epoch) -> None:
        (member,) = epoch.members
        rows = subset.rows("test")
        probabilities = predict(member.model, subset.pixels, rows)
        found.append(scores(probabilities, subset.labels[rows])["auroc"])

    train(config, [0], data, evaluate, epochs=6)
    assert found[-1] is not None
    assert found[-1] > 0.65


def test_published_set_is_found_whole(cifake: Pack) -> None:
    assert cifake.info.fingerprint == "b2864af29f77a023"
    assert len(cifake.rows("train")) == 100_000
    assert len(cifake.rows("test")) == 20_000
    assert _strata(cifake) == {
        (split, label, name): each
        for split, each in (("train", 5000), ("test", 1000))
        for label in (0, 1)
        for name in CLASSES
    }


def test_published_set_without_file_names_has_the_declared_fingerprint(
    cifake: Pack, tmp_path: Path
) -> None:
    """Mirrors without names are recognised by it."""

    def nameless() -> Iterator[RawImage]:
        splits = cifake.images["split"].to_pylist()
        for row, (split, label) in enumerate(zip(splits, cifake.labels, strict=True)):
            header = b"P6 32 32 255\n"
            yield RawImage(
                name=str(row),
                file_name=None,
                split=split,
                label=int(label),
                blob=header + cifake.pixels[row].tobytes(),
            )

    pack = write_pack(tmp_path, "cifake", "test", nameless(), trains=True)
    assert pack.info.fingerprint == DATASETS["cifake"].published_unnamed


def test_known_duplicates_are_found_and_all_are_fake(cifake: Pack) -> None:
    first = np.asarray(cifake.images["duplicate_of"].to_numpy())
    train_rows, test_rows = cifake.rows("train"), cifake.rows("test")
    is_train = np.zeros(len(first), bool)
    is_train[train_rows] = True
    from_train = ~np.isnan(first)
    from_train[from_train] = is_train[first[from_train].astype(int)]
    within = ~np.isnan(first) & ~from_train
    assert cifake.duplicates(train_rows).sum() == from_train[train_rows].sum() == 920
    repeated = test_rows[from_train[test_rows]]
    assert len(repeated) == 378
    repeated_classes = Counter(cifake.words("content_class", repeated))
    assert repeated_classes == {"bird": 121, "dog": 116, "frog": 141}
    assert within[test_rows].sum() > 0
    assert cifake.duplicates(test_rows).sum() == 378 + within[test_rows].sum()
    copies = np.flatnonzero(~np.isnan(first))
    assert set(cifake.labels[copies].tolist()) == {0}
    np.testing.assert_array_equal(cifake.pixels[copies], cifake.pixels[first[copies].astype(int)])


def test_38_test_fakes_repeat_an_earlier_test_fake(cifake: Pack) -> None:
    """Copies inside the test split, whether or not training has the image too."""
    rows = cifake.rows("test")
    seen: Counter[bytes] = Counter(image.tobytes() for image in cifake.pixels[rows])
    assert sum(count - 1 for count in seen.values()) == 38


def test_cifar100_is_ten_thousand_photographs_of_a_hundred_classes(cifar100: Pack) -> None:
    assert len(cifar100.pixels) == 10_000
    assert len(cifar100.rows("test")) == 10_000
    assert set(cifar100.labels.tolist()) == {1}
    fine = Counter(cifar100.images["content_class"].to_pylist())
    coarse = Counter(cifar100.images["coarse_class"].to_pylist())
    assert len(fine) == 100
    assert set(fine.values()) == {100}
    assert len(coarse) == 20
    assert set(coarse.values()) == {500}


def test_generators_are_ten_models_and_three_thousand_photographs(real_data: Path) -> None:
    pack = open_dataset("generators", {"generators": real_data / "generators.tar.xz"})
    assert pack.info.fingerprint == "dd5774ee32f0634a"
    assert pack.info.images == len(pack.rows("test")) == 5900
    made_by = Counter(zip(pack.labels.tolist(), pack.images["generator"].to_pylist(), strict=True))
    assert made_by == {
        (1, None): 3000,
        (0, "ddpm_kevinlkw_cond"): 880,
        (0, "ddpm_kevinlkw_uncond"): 800,
        (0, "ddpm_w86763777"): 256,
        (0, "diffusion_andreasfloros"): 256,
        (0, "cfg_teacher_lifuwang"): 180,
        (0, "cfg_student_lifuwang"): 160,
        (0, "ddpm_zoubohao_uncond"): 144,
        (0, "ddpm_whyitsy_uncond"): 80,
        (0, "ddpm_zoubohao_cond"): 80,
        (0, "ddpm_supyuxiang"): 64,
    }


def test_real_images_as_a_folder_set_have_the_pixels_of_cifake(
    subset_folder: Path, subset: Pack
) -> None:
    """Images of 32×32 are not touched by the resize filter."""
    folders = open_dataset("folders", {"folders": subset_folder})
    assert Counter(image.tobytes() for image in folders.pixels) == Counter(
        image.tobytes() for image in subset.pixels
    )
    assert len(folders.rows("train")) == len(subset.rows("train"))
    assert len(folders.unreadable_files) == 0


def test_shared_folder_names_its_sets(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {
        "cifake": real_data / "cifake.tar.xz",
        "cifar100": real_data / "cifar100-test.parquet",
        "generators": real_data / "generators.tar.xz",
    }
    assert parse_sources([str(real_data)], "cifake") == expected
    monkeypatch.setenv("CIFAKE_DATA", str(real_data))
    assert {name: find_source(name, {}) for name in expected} == expected

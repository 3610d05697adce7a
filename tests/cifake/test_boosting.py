"""Hand-crafted statistics are what they say, and the boosted trees are scikit-learn's."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.torch
import torch
from PIL import Image
from scipy.signal import convolve2d
from sklearn.ensemble import HistGradientBoostingClassifier

from cifake.config import ModelOptions
from cifake.data.pack import Pack
from cifake.models.boosting import (
    FEATURES_PER_SPLIT,
    L2_PENALTY,
    Boosting,
    copy_trees,
    statistics_of,
)
from cifake.models.handcrafted import COLOUR, HIGH_PASS, SPECTRUM, STATISTICS, statistics

Pixels = npt.NDArray[np.uint8]
Photographs = tuple[Pixels, npt.NDArray[np.int8]]

FIRST = np.array([1.0, -1.0])
SECOND = np.array([1.0, -2.0, 1.0])
THIRD = np.array([1.0, -3.0, 3.0, -1.0])
KERNELS = {
    "mixed": np.outer(FIRST, FIRST),
    "down1": FIRST[:, None],
    "down2": SECOND[:, None],
    "down3": THIRD[:, None],
    "across3": THIRD[None],
    "laplacian": np.array([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]),
}
SMALL = {"trees": 25, "leaves": 9}


@pytest.fixture(scope="session")
def photographs(real_data: Path) -> Photographs:
    """Every sixth photograph and generated image of the generators' archive, and its label."""
    source = real_data / "generators.tar.xz"
    if not source.is_file():
        pytest.skip(f"no real data: {real_data} holds no {source.name}")
    pixels, labels = [], []
    with tarfile.open(source, "r|xz") as archive:
        members = (m for m in archive if m.name.endswith(".jpg"))
        for number, member in enumerate(members):
            stream = archive.extractfile(member) if number % 6 == 0 else None
            if stream is not None:
                with Image.open(io.BytesIO(stream.read())) as image:
                    pixels.append(np.asarray(image.convert("RGB")))
                labels.append(member.name.startswith("real/"))
    return np.stack(pixels), np.array(labels, np.int8)


def edge_cases() -> Pixels:
    """Black, white, grey, a pure colour, one bright pixel, stripes both ways, a checkerboard."""
    rows, columns = np.indices((32, 32))
    images = np.zeros((8, 32, 32, 3), np.uint8)
    images[1], images[2], images[3, ..., 2] = 255, 77, 255
    images[4, 5, 9] = 255
    images[5][rows % 2 == 0] = 255
    images[6][columns % 2 == 0] = 255
    images[7][(rows + columns) % 2 == 0] = 255
    return images


def computed(pixels: Pixels) -> npt.NDArray[np.float32]:
    return statistics(torch.from_numpy(pixels.copy())).numpy()


def reference(image: Pixels) -> dict[str, float]:
    """All statistics of one image, by convolution and by rings cut out of a full spectrum."""
    channels = dict(
        zip(("red", "green", "blue"), np.moveaxis(image.astype(float), 2, 0), strict=True)
    )
    luma = 0.299 * channels["red"] + 0.587 * channels["green"] + 0.114 * channels["blue"]
    planes = {"luma": luma, "red": channels["red"] - luma, "blue": channels["blue"] - luma}
    found = {}
    for name, channel in channels.items():
        found[f"{name}_mean"], found[f"{name}_deviation"] = channel.mean(), channel.std()
    for name in HIGH_PASS:
        plane, kernel, measure = name.split("_")
        residual = convolve2d(planes[plane], KERNELS[kernel], mode="valid")
        found[name] = measured(residual, measure)
    power = np.abs(np.fft.fft2(luma - luma.mean())) ** 2 / 1024
    frequency = np.array([*range(17), *range(-15, 0)])
    radius = np.sqrt(frequency[:, None] ** 2 + frequency[None] ** 2)
    for ring in range(1, 23):
        inside = power[(radius >= ring) & (radius < ring + 1)]
        found[f"spectrum_{ring:02}"] = float(np.mean(np.log(inside + 1 / 12)))
    return found


def measured(residual: npt.NDArray[np.float64], measure: str) -> float:
    root_mean_square = np.sqrt((residual**2).mean())
    if root_mean_square < 1e-6:
        return 0.0
    if measure == "deviation":
        return float(root_mean_square)
    if measure == "tail":
        return float(np.abs(residual).mean() / root_mean_square)
    above, below = residual[:-1].ravel(), residual[1:].ravel()
    return float(above @ below / np.linalg.norm(above) / np.linalg.norm(below))


def grown(features: npt.NDArray[np.float32], labels: npt.NDArray[np.int8], seed: int) -> object:
    grower = HistGradientBoostingClassifier(
        learning_rate=0.2,
        max_iter=SMALL["trees"],
        max_leaf_nodes=SMALL["leaves"],
        max_features=FEATURES_PER_SPLIT,
        l2_regularization=L2_PENALTY,
        early_stopping=False,
        random_state=seed,
    )
    return grower.fit(features, labels)


def small() -> Boosting:
    return Boosting(ModelOptions(shrinkage=0.2, **SMALL))


def small_fit(pack: Pack, seed: int) -> Boosting:
    model = small()
    model.fit(pack.pixels, pack.labels, pack.rows("train")[::3], seed)
    return model


def copied(grower: object) -> Boosting:
    model = small()
    copy_trees(grower, model)
    return model


def same(one: Boosting, other: Boosting) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


def test_there_are_38_statistics_of_different_names() -> None:
    assert (len(COLOUR), len(HIGH_PASS), len(SPECTRUM)) == (6, 10, 22)
    assert len(set(STATISTICS)) == 38


def test_statistics_agree_with_convolutions_and_a_full_fourier_transform(demo: Pack) -> None:
    images = np.concatenate([demo.pixels[::150], edge_cases()])
    expected = [[reference(image)[name] for name in STATISTICS] for image in images]
    np.testing.assert_allclose(computed(images), expected, rtol=2e-6, atol=2e-6)


def test_statistics_of_real_images_agree_with_the_reference(photographs: Photographs) -> None:
    images = photographs[0][::30]
    expected = [[reference(image)[name] for name in STATISTICS] for image in images]
    np.testing.assert_allclose(computed(images), expected, rtol=2e-6, atol=2e-6)


def test_statistics_do_not_depend_on_the_other_images_of_a_batch(demo: Pack) -> None:
    images = demo.pixels[:150]
    whole = computed(images)
    for size in (1, 2, 7, 63, 64, 65):
        parts = [computed(images[start : start + size]) for start in range(0, 150, size)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()
    order = np.random.default_rng(0).permutation(150)
    assert computed(images[order]).tobytes() == whole[order].tobytes()


def test_statistics_do_not_depend_on_the_layout_in_memory(demo: Pack) -> None:
    images = torch.from_numpy(demo.pixels[:20].copy())
    other = images.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
    assert torch.equal(statistics(other), statistics(images))


@pytest.mark.parametrize("axis", [1, 2])
def test_mirroring_changes_no_statistic(demo: Pack, axis: int) -> None:
    images = demo.pixels[::20]
    mirrored = computed(np.flip(images, axis))
    np.testing.assert_allclose(mirrored, computed(images), rtol=1e-6, atol=1e-6)


def test_transposing_changes_neither_colour_nor_spectrum(demo: Pack) -> None:
    images = demo.pixels[::20]
    kept = [STATISTICS.index(name) for name in (*COLOUR, *SPECTRUM)]
    transposed = computed(images.transpose(0, 2, 1, 3))
    np.testing.assert_allclose(transposed[:, kept], computed(images)[:, kept], rtol=1e-6, atol=1e-6)


def test_brightening_changes_only_the_means(demo: Pack) -> None:
    images = np.minimum(demo.pixels[::20], 215)
    difference = np.abs(computed(images + 40) - computed(images)).max(axis=0)
    brightened = {
        name: value for name, value in zip(STATISTICS, difference, strict=True) if value > 1e-5
    }
    assert brightened == pytest.approx({f"{c}_mean": 40 for c in ("red", "green", "blue")})


def test_extreme_images_have_finite_statistics() -> None:
    found = computed(edge_cases())
    assert np.isfinite(found).all()
    floor = np.float32(np.log(1 / 12))
    flat = dict(zip(STATISTICS, found[2].tolist(), strict=True))
    assert all(flat[name] == (77 if name.endswith("mean") else 0) for name in COLOUR)
    assert all(flat[name] == 0 for name in HIGH_PASS)
    assert [flat[name] for name in SPECTRUM] == pytest.approx([floor] * 22)


def test_no_images_have_no_statistics() -> None:
    empty = torch.empty(0, 32, 32, 3, dtype=torch.uint8)
    assert statistics(empty).shape == (0, 38)
    assert small()(empty).shape == (0,)


def test_decisions_are_those_of_scikit_learn(photographs: Photographs) -> None:
    pixels, labels = photographs
    features = statistics_of(pixels, np.arange(len(pixels)))
    grower = grown(features, labels, seed=5)
    model = copied(grower)
    expected = grower.decision_function(features)
    assert np.array_equal(model.decide(torch.from_numpy(features)).numpy(), expected)
    logits = model(torch.from_numpy(pixels))
    assert logits.dtype == torch.float32
    assert np.abs(logits.numpy() - expected).max() < 1e-6
    real = grower.predict_proba(features)[:, 1]
    assert np.abs(torch.sigmoid(logits).numpy() - real).max() < 1e-6


def test_a_statistic_at_a_threshold_goes_where_scikit_learn_sends_it(demo: Pack) -> None:
    """Each threshold, and the float32 numbers beside it, in the column that is compared with it."""
    rows = demo.rows("train")[::3]
    features = statistics_of(demo.pixels, rows)
    grower = grown(features, demo.labels[rows], seed=0)
    nodes = np.concatenate([tree.nodes for (tree,) in grower._predictors])
    nodes = nodes[nodes["is_leaf"] == 0]
    nearest = nodes["num_threshold"].astype(np.float32)
    ties = np.concatenate([np.nextafter(nearest, np.float32(s * np.inf)) for s in (-1, 1)])
    ties = np.concatenate([nearest, ties])
    images = np.random.default_rng(0).choice(features, len(ties))
    images[np.arange(len(ties)), np.tile(nodes["feature_idx"], 3)] = ties
    model = copied(grower)
    decided = model.decide(torch.from_numpy(images)).numpy()
    assert np.array_equal(decided, grower.decision_function(images))


def test_fit_grows_the_trees_of_scikit_learn(demo: Pack) -> None:
    rows = demo.rows("train")[::3]
    grower = grown(statistics_of(demo.pixels, rows), demo.labels[rows], seed=3)
    assert same(small_fit(demo, seed=3), copied(grower))


def test_equal_seeds_give_equal_bits_and_other_seeds_other_trees(demo: Pack) -> None:
    model = small_fit(demo, seed=1)
    assert same(model, small_fit(demo, seed=1))
    assert not same(model, small_fit(demo, seed=2))


def test_fitted_trees_load_into_a_new_module_from_safetensors(demo: Pack) -> None:
    model = small_fit(demo, seed=0)
    stored = safetensors.torch.save(model.state_dict())
    loaded = small()
    loaded.load_state_dict(safetensors.torch.load(stored), strict=True)
    pixels = torch.from_numpy(demo.pixels[demo.rows("test")])
    assert torch.equal(loaded(pixels), model(pixels))
    assert loaded.size == model.size


def test_logits_do_not_depend_on_the_other_images_of_a_batch(demo: Pack) -> None:
    model = small_fit(demo, seed=0)
    pixels = torch.from_numpy(demo.pixels[:50].copy())
    assert torch.equal(torch.cat([model(pixels[i : i + 1]) for i in range(50)]), model(pixels))


def test_size_counts_the_thresholds_and_leaf_values_of_scikit_learn(demo: Pack) -> None:
    rows = demo.rows("train")[::3]
    grower = grown(statistics_of(demo.pixels, rows), demo.labels[rows], seed=3)
    nodes = sum(len(tree.nodes) for (tree,) in grower._predictors)
    model = copied(grower)
    assert model.size == nodes
    assert list(model.parameters()) == []


def test_too_few_images_to_split_give_the_base_rate(demo: Pack) -> None:
    train = demo.rows("train")
    fakes, reals = train[demo.labels[train] == 0], train[demo.labels[train] == 1]
    model = small()
    model.fit(demo.pixels, demo.labels, np.concatenate([fakes[:5], reals[:15]]), 0)
    real = torch.sigmoid(model(torch.from_numpy(demo.pixels[:4].copy())))
    assert real.tolist() == pytest.approx([0.75] * 4)
    assert model.size == SMALL["trees"]


def test_images_of_one_label_are_refused(demo: Pack) -> None:
    fakes = np.flatnonzero(demo.labels == 0)
    with pytest.raises(ValueError, match="both labels"):
        small().fit(demo.pixels, demo.labels, fakes, 0)


def test_trees_in_another_form_are_refused_with_the_release_named() -> None:
    nodes = np.zeros(1, [("value", float)])
    for unknown in (
        SimpleNamespace(),
        SimpleNamespace(_baseline_prediction=[[0.0]], _predictors=[[SimpleNamespace(nodes=nodes)]]),
        SimpleNamespace(_baseline_prediction=[[0.0]], _predictors=[]),
    ):
        with pytest.raises(RuntimeError, match=r"scikit-learn \d.*form unknown"):
            copy_trees(unknown, Boosting(ModelOptions(trees=1, leaves=2)))

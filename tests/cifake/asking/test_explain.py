"""`cifake explain`: Grad-CAM as published, gates as the modules compute them, and the page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as everyone writes it in such scripts
from PIL import Image

from cifake import explain
from cifake.config import Config
from cifake.data.pack import Pack
from cifake.errors import InputError
from cifake.evaluations import Images
from cifake.loading import load
from cifake.models.build import build
from cifake.models.network import Network
from cifake.sheet import overlay

from .conftest import Runs, Said

Command = Callable[..., Said]


@pytest.fixture
def base(runs: Runs) -> Network:
    """The trained network without attention."""
    return explain.as_network(load(str(runs.base.path), runs.store).model)


@pytest.fixture
def srm(runs: Runs) -> Network:
    """The trained network with style recalibration after both poolings."""
    return explain.as_network(load(str(runs.srm.path), runs.store).model)


# Grad-CAM


@pytest.mark.parametrize(("site", "side"), [("after_pool2", 5), ("after_conv2", 10)])
def test_maps_are_those_of_the_published_formula(
    site: str, side: int, base: Network, few_images: torch.Tensor
) -> None:
    """Selvaraju et al. 2017, equations 1 and 2, by hand, one image at a time."""
    maps = explain.grad_cam(base, few_images, site)
    assert maps.shape == (len(few_images), side, side)
    called = torch.sigmoid(base(few_images)) >= 0.5
    assert maps[called].any()
    assert maps[~called].any()
    weights = base.state_dict()
    for image, found in zip(few_images, maps, strict=True):
        x = image[None].permute(0, 3, 1, 2).float() / 127.5 - 1
        x = F.max_pool2d(F.relu(F.conv2d(x, weights["conv1.weight"], weights["conv1.bias"])), 2)
        x = F.relu(F.conv2d(x, weights["conv2.weight"], weights["conv2.bias"]))
        if site == "after_pool2":
            x = F.max_pool2d(x, 2)
        features = x.detach().requires_grad_()
        x = features if site == "after_pool2" else F.max_pool2d(features, 2)
        for layer in ("fc1", "fc2", "fc3"):
            x = F.linear(x.flatten(1), weights[f"{layer}.weight"], weights[f"{layer}.bias"])
            x = x if layer == "fc3" else F.relu(x)
        score = x.squeeze() if x.item() >= 0 else -x.squeeze()
        (gradient,) = torch.autograd.grad(score, features)
        alpha = gradient[0].mean((1, 2))
        expected = torch.relu((alpha[:, None, None] * features[0]).sum(0)).detach()
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_map_of_an_image_does_not_depend_on_its_neighbours(
    srm: Network, few_images: torch.Tensor
) -> None:
    together = explain.grad_cam(srm, few_images, "after_pool2")
    alone = torch.cat([explain.grad_cam(srm, image[None], "after_pool2") for image in few_images])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-4)
    assert together.any()


def test_watching_leaves_the_network_as_it_was(srm: Network, few_images: torch.Tensor) -> None:
    before = srm(few_images)
    names = [*srm.state_dict()]
    with srm.tap("after_conv1"), srm.tap("after_pool2"):
        assert [*srm.state_dict()] == names
        torch.testing.assert_close(srm(few_images), before)
    explain.grad_cam(srm, few_images, "after_pool1")
    assert torch.equal(srm(few_images), before)
    assert all(value.grad is None for value in srm.parameters())


MODELS: Mapping[str, Mapping[str, object]] = {
    "paper": {"model": "paper"},
    "convnet": {"model": "convnet", "attention": "cbam", "placement": "all"},
    "resnet": {"model": "resnet", "model_options": {"depth": 8}},
    "torchvision": {"model": "torchvision", "attention": "se", "placement": "all"},
}


@pytest.mark.parametrize("settings", MODELS.values(), ids=MODELS)
def test_every_network_with_feature_maps_is_explained_at_its_last_site(
    settings: Mapping[str, object], few_images: torch.Tensor
) -> None:
    config = Config.model_validate(settings)
    network = explain.as_network(build(config, 0).eval())
    site = explain.feature_site(config, None)
    maps = explain.grad_cam(network, few_images[:4], site)
    assert maps.shape[0] == 4
    assert maps.min() >= 0
    assert maps.isfinite().all()


def test_model_without_feature_maps_is_refused() -> None:
    with pytest.raises(InputError, match="model linear has none"):
        explain.feature_site(Config(model="linear"), None)


def test_unknown_site_lists_those_there_are() -> None:
    with pytest.raises(InputError, match="after_conv1, after_pool1, after_conv2, after_pool2"):
        explain.feature_site(Config(), "after_pool3")


def test_overlay_colours_where_the_map_is_large_and_nothing_else() -> None:
    pixels = np.full((32, 32, 3), 100, np.uint8)
    map_ = np.zeros((4, 4), np.float32)
    grey = overlay(pixels, map_)
    assert np.unique(grey.reshape(-1, 3), axis=0).shape == (1, 3)
    map_[0, 0] = 3
    coloured = overlay(pixels, map_)
    assert not np.allclose(coloured[:8, :8], grey[:8, :8])
    assert np.allclose(coloured[16:, 16:], grey[16:, 16:])


# Gates


def test_gates_are_those_of_the_module_s_formula(srm: Network, few_images: torch.Tensor) -> None:
    """Lee, Kim and Nam 2019, section 3, by numpy from the stored weights."""
    with explain.recorded_gates(srm) as recorded, torch.no_grad():
        for part in few_images.split(40):
            srm(part)
    weights = {name: value.numpy() for name, value in srm.state_dict().items()}
    x = few_images.permute(0, 3, 1, 2).float() / 127.5 - 1
    conv = F.conv2d(
        x, torch.from_numpy(weights["conv1.weight"]), torch.from_numpy(weights["conv1.bias"])
    )
    pooled = F.max_pool2d(F.relu(conv), 2).numpy().astype(np.float64)
    flat = pooled.reshape(*pooled.shape[:2], -1)
    deviation = np.sqrt(flat.var(2, ddof=1) + 1e-5)
    style = np.stack([flat.mean(2), deviation], 2)
    w = {k.removeprefix("attention.after_pool1."): v for k, v in weights.items() if "pool1" in k}
    z = (style * w["cfc.weight"][:, 0]).sum(2)
    z = (z - w["bn.running_mean"]) / np.sqrt(w["bn.running_var"] + 1e-5)
    expected = 1 / (1 + np.exp(-(z * w["bn.weight"] + w["bn.bias"])))
    assert [*recorded] == ["after_pool1", "after_pool2"]
    np.testing.assert_allclose(torch.cat(recorded["after_pool1"]), expected, atol=1e-5)


def test_gates_are_recorded_only_while_asked(srm: Network, few_images: torch.Tensor) -> None:
    with explain.recorded_gates(srm) as recorded:
        pass
    srm(few_images)
    assert recorded == {"after_pool1": [], "after_pool2": []}


def test_gates_of_each_label_are_described_apart() -> None:
    gates = torch.tensor([[0.1, 0.2], [0.3, 0.8], [0.5, 0.5]])
    found = explain.gate_statistics(gates, np.asarray([1, 1, 0], np.int8))
    np.testing.assert_allclose(found["REAL"].mean, [0.2, 0.5], rtol=1e-6)
    np.testing.assert_allclose(found["REAL"].std, [np.sqrt(0.02), np.sqrt(0.18)], rtol=1e-6)
    np.testing.assert_allclose(found["FAKE"].mean, [0.5, 0.5])
    assert np.isnan(found["FAKE"].std).all()


# Which images


def test_groups_hold_what_they_say_and_all_there_is(srm: Network, runs: Runs, few: Pack) -> None:
    images = Images("cifake", "test", few, few.rows("test"))
    found = explain.explain(srm, runs.srm.run.config(), images, site=None, per_group=1000, seed=0)
    assert sum(found.counts.values()) == len(found.images) == 400
    assert sorted(image.row for image in found.images) == images.rows.tolist()
    for image in found.images:
        label, real = explain.GROUPS[image.group]
        assert few.labels[image.row] == label
        assert (image.probability >= 0.5) == real
        assert np.array_equal(image.pixels, few.pixels[image.row])


def test_draw_is_a_function_of_its_seed() -> None:
    rng = np.random.default_rng(0)
    p, y = rng.random(500, np.float32), rng.integers(0, 2, 500).astype(np.int8)

    def drawn(seed: int, count: int = 6) -> dict[str, list[int]]:
        return {k: v.tolist() for k, v in explain.draw(p, y, count, seed).items()}

    assert drawn(0) == drawn(0) != drawn(1)
    assert all(len(set(places)) == 6 for places in drawn(0).values())
    assert all({*drawn(0, 3)[group]} <= {*drawn(0)[group]} for group in explain.GROUPS)


# The command


def test_page_is_written_and_its_content_said(
    command: Command, runs: Runs, few: Pack, few_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "sheet.png"
    arguments = ("--data", few_folder, "--out", out, "--per-group", "2", "--json")
    ended = command("explain", runs.srm.path, *arguments)
    assert (ended.code, ended.err) == (0, "")
    with Image.open(out) as page:
        assert page.format == "PNG"
        assert min(page.size) > 600
        assert len(page.convert("RGB").getcolors(2**24) or []) > 500
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
    said = json.loads(ended.out)
    assert (said["site"], said["dataset"], said["split"]) == ("after_pool2", "cifake", "test")
    assert sum(said["counts"].values()) == 400
    by_row = dict(zip(few.rows("test").tolist(), runs.srm.probabilities[2], strict=True))
    for image in said["images"]:
        assert image["probability"] == pytest.approx(by_row[image["image_id"]], abs=1e-6)
        assert image["group"].split()[1] == ("REAL" if image["probability"] >= 0.5 else "FAKE")
    widths = {site: len(gates["REAL"]["mean"]) for site, gates in said["gates"].items()}
    assert widths == {"after_pool1": 6, "after_pool2": 16}


def test_page_of_one_class_and_no_attention_is_drawn(
    command: Command, runs: Runs, real_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "sheet.png"
    source = f"cifar100={real_data / 'cifar100-test.parquet'}"
    ended = command("explain", runs.base.path, "--data", source, "--out", out)
    assert (ended.code, ended.out.strip(), ended.err) == (0, str(out), "")
    assert out.is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--out", "sheet.pdf"), "must end in .png"),
        (("--out", "/nowhere/sheet.png"), "its folder does not exist"),
        (("--out", "sheet.png", "--site", "after_pool3"), "model base has after_conv1"),
        (("--out", "sheet.png", "--on", "demo", "--on", "cifake"), "one page is of one data set"),
    ],
)
def test_page_that_cannot_be_drawn_is_refused(
    arguments: tuple[str, ...],
    said: str,
    command: Command,
    runs: Runs,
    few_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = command("explain", runs.base.path, "--data", few_folder, *arguments)
    assert ended.code == 2
    assert said in ended.err
    assert not [*tmp_path.iterdir()]

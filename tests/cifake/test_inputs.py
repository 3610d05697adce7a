"""What the first layer sees is what torchvision, Pillow, SciPy and the papers make of an image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torchvision.transforms import v2

from cifake.batches import TrainingData
from cifake.config import Config
from cifake.data.pack import Pack
from cifake.models.build import build, parameter_count
from cifake.models.inputs import IMAGENET, make_input, steg_filters
from cifake.models.network import Network
from cifake.training import train


def _config(name: str = "rgb", normalization: str = "half", **options: object) -> Config:
    return Config.model_validate(
        {"input": name, "normalization": normalization, "input_options": options}
    )


def _seen(config: Config, images: torch.Tensor) -> torch.Tensor:
    pixels = make_input(config.input, config.input_options, config.normalization)
    return pixels(images).detach()


@pytest.fixture(scope="module")
def images(demo: Pack) -> torch.Tensor:
    return torch.from_numpy(demo.pixels[::500].copy())


@pytest.mark.parametrize(
    ("normalization", "mean", "std"),
    [("half", (0.5,) * 3, (0.5,) * 3), ("imagenet", *IMAGENET)],
)
def test_normalisation_is_torchvisions(
    normalization: str, mean: tuple[float, ...], std: tuple[float, ...], images: torch.Tensor
) -> None:
    transform = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])
    expected = transform(images.permute(0, 3, 1, 2))
    found = _seen(_config(normalization=normalization), images)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


def test_imagenets_statistics_are_torchvisions() -> None:
    import torchvision

    preset = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    assert (tuple(preset.mean), tuple(preset.std)) == IMAGENET


def test_half_lies_between_minus_one_and_one() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).repeat(12).reshape(1, 32, 32, 3)
    found = _seen(_config(), pixels)
    assert found.min() == -1
    assert found.max() == pytest.approx(1, abs=1e-6)


def test_statistics_of_the_data_set_are_those_of_the_training_images(demo: Pack) -> None:
    rows = demo.rows("train")[::3]
    config = _config(normalization="dataset")
    kept = []
    data = TrainingData(demo.pixels, demo.labels, rows)
    train(config, [0], data, lambda e: kept.append(e.members[0].state), epochs=1)
    values = demo.pixels[rows].reshape(-1, 3).astype(np.float64)
    weights = kept[0].weights
    np.testing.assert_allclose(weights["pixels.mean"], values.mean(0), rtol=1e-6)
    np.testing.assert_allclose(weights["pixels.std"], values.std(0), rtol=1e-5)
    model = build(config, 1)
    model.load_state_dict(weights)
    assert isinstance(model, Network)
    seen = model.pixels(torch.from_numpy(demo.pixels[rows]))
    np.testing.assert_allclose(seen.mean((0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(seen.std((0, 2, 3), correction=0), 1, atol=1e-4)


def test_statistics_that_are_no_part_of_the_data_are_no_weights() -> None:
    for normalization in ("half", "imagenet"):
        names = set(build(_config(normalization=normalization), 0).state_dict())
        assert not any(name.startswith("pixels.") for name in names)


def test_greyscale_is_pillows_luma(images: torch.Tensor) -> None:
    seen = (_seen(_config("greyscale"), images) + 1) * 127.5
    for image, found in zip(images.numpy(), seen, strict=True):
        expected = np.asarray(Image.fromarray(image).convert("L"), np.float64)
        for channel in found.numpy():
            assert np.abs(channel - expected).max() <= 0.51  # Pillow rounds


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
def test_low_pass_is_scipys_gaussian(sigma: float, images: torch.Tensor) -> None:
    seen = (_seen(_config("low_pass", sigma=sigma), images) + 1) * 127.5
    radius = int(np.ceil(3 * sigma))
    for image, found in zip(images.numpy(), seen.numpy(), strict=True):
        expected = ndimage.gaussian_filter(
            image.astype(np.float64), (sigma, sigma, 0), mode="mirror", radius=(radius, radius, 0)
        )
        np.testing.assert_allclose(found, expected.transpose(2, 0, 1), atol=1e-3)


@pytest.mark.parametrize("normalization", ["half", "imagenet"])
def test_low_and_high_pass_add_up_to_the_image(normalization: str, images: torch.Tensor) -> None:
    low, high, whole = (
        _seen(_config(name, normalization), images) for name in ("low_pass", "high_pass", "rgb")
    )
    torch.testing.assert_close(low + high, whole, rtol=0, atol=1e-4)
    assert high.mean().abs() < 0.02


@pytest.mark.parametrize("sigma", [0.1, 10.0])
def test_widest_and_narrowest_blur_fit_the_image(sigma: float, images: torch.Tensor) -> None:
    assert _seen(_config("low_pass", sigma=sigma), images).shape == (len(images), 3, 32, 32)


# The rich model's filters


def test_rich_model_has_thirty_filters_of_seven_kinds() -> None:
    """Counts and residual orders of Fridrich and Kodovsky 2012, table 1 of the linear ones."""
    filters = steg_filters(30)[:, 0].double()
    assert filters.shape == (30, 5, 5)
    # A residual of any order vanishes on a constant image.
    torch.testing.assert_close(filters.sum((1, 2)), torch.zeros(30).double(), rtol=0, atol=1e-6)
    assert len({tuple(kernel.flatten().tolist()) for kernel in filters}) == 30
    # Each is divided by its central weight, so that the pixel itself counts once.
    assert set(filters[:, 2, 2].tolist()) == {-1.0}
    supports = [int((kernel != 0).sum()) for kernel in filters]
    assert supports == [2] * 8 + [3] * 4 + [4] * 8 + [6] * 4 + [9] + [15] * 4 + [25]


@pytest.mark.parametrize(("order", "first", "last"), [(1, 0, 8), (2, 8, 12), (3, 12, 20)])
def test_differences_vanish_on_polynomials_below_their_order(
    order: int, first: int, last: int
) -> None:
    y, x = np.mgrid[-2:3, -2:3].astype(np.float64)
    for kernel in steg_filters(30)[first:last, 0].numpy():
        for power in range(order):
            for ramp in (x**power, y**power):
                assert (kernel * ramp).sum() == pytest.approx(0, abs=1e-5)
        assert any(abs((kernel * ramp**order).sum()) > 0.3 for ramp in (x, y))


def test_edges_turn_and_squares_do_not() -> None:
    kernels = steg_filters(30)[:, 0]
    for edges, square in ((kernels[20:24], kernels[24]), (kernels[25:29], kernels[29])):
        turned = [torch.rot90(edges[0], turn) for turn in range(4)]
        assert all(torch.equal(edge, turn) for edge, turn in zip(edges, turned, strict=True))
        assert torch.equal(torch.rot90(square), square)
    kv = [-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2]
    expected = torch.tensor([*kv, kv[1], kv[0]]) / 12
    torch.testing.assert_close(kernels[29], expected)


def test_three_filters_are_the_squares_and_a_second_difference() -> None:
    three, thirty = steg_filters(3)[:, 0], steg_filters(30)[:, 0]
    assert torch.equal(three[0], thirty[24])
    assert torch.equal(three[1], thirty[29])
    assert torch.equal(three[2], thirty[8])


@pytest.mark.parametrize("count", [3, 30])
def test_residuals_are_cut_at_three_grey_levels(count: int, images: torch.Tensor) -> None:
    seen = _seen(_config("steg_srm", filters=count), images).numpy()
    assert seen.shape == (len(images), count, 32, 32)
    for image, found in zip(images.numpy(), seen, strict=True):
        grey = image.astype(np.float64).mean(2)
        for kernel, channel in zip(steg_filters(count)[:, 0].numpy(), found, strict=True):
            residual = ndimage.correlate(grey, kernel.astype(np.float64), mode="mirror")
            np.testing.assert_allclose(channel, np.clip(residual, -3, 3) / 3, atol=1e-4)


def test_frozen_filters_are_no_parameters_and_learned_ones_are(demo: Pack) -> None:
    frozen, learned = (build(_config(name), 0) for name in ("steg_srm", "steg_srm_learned"))
    assert parameter_count(learned) == parameter_count(frozen) + 30 * 25
    data = TrainingData(demo.pixels, demo.labels, demo.rows("train")[::20])
    kept = []
    config = Config.model_validate({"input": "steg_srm_learned", "optimizer": {"lr": 0.1}})
    train(config, [0], data, lambda e: kept.append(e.members[0].state), epochs=1)
    moved = kept[0].weights["pixels.weight"] - steg_filters(30)
    assert moved.abs().max() > 0
    assert torch.equal(learned.get_parameter("pixels.weight"), steg_filters(30))

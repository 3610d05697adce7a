"""Each change of pixels is what its name says, and the same every time."""

from __future__ import annotations

import io
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, JpegImagePlugin

from cifake.data.archives import iter_files
from cifake.data.corruptions import CORRUPTIONS, apply_steps, encode_jpeg

Pixels = npt.NDArray[np.uint8]

batches = arrays(np.uint8, st.tuples(st.integers(1, 3), st.just(32), st.just(32), st.just(3)))
STEPS = [("jpeg", 50.0), ("blur", 1.5), ("resize", 16.0), ("noise", 10.0), ("greyscale", 0.0)]


def pictures(count: int = 4) -> Pixels:
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (count, 32, 32, 3), np.uint8)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step[0])
@settings(deadline=None, max_examples=20)
@given(pixels=batches)
def test_change_depends_on_the_image_alone(step: tuple[str, float], pixels: Pixels) -> None:
    before = pixels.copy()
    together = apply_steps(pixels, (step,))
    alone = np.concatenate([apply_steps(pixels[i : i + 1], (step,)) for i in range(len(pixels))])
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(pixels, before)
    assert (together.shape, together.dtype) == (pixels.shape, np.uint8)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step[0])
def test_mapped_read_only_pixels_are_taken(step: tuple[str, float]) -> None:
    pixels = pictures()
    pixels.flags.writeable = False
    assert apply_steps(pixels, (step,)).flags.writeable


def test_steps_are_applied_in_order() -> None:
    pixels = pictures()
    first = apply_steps(pixels, (("blur", 1.0), ("greyscale", 0)))
    stepwise = CORRUPTIONS["greyscale"].apply(CORRUPTIONS["blur"].apply(pixels, 1), 0)
    np.testing.assert_array_equal(first, stepwise)
    other = apply_steps(pixels, (("resize", 8), ("jpeg", 30)))
    assert (other != apply_steps(pixels, (("jpeg", 30), ("resize", 8)))).any()


@pytest.mark.parametrize("kind", ["jpeg", "blur", "resize", "noise"])
def test_stronger_change_is_farther_from_the_image(kind: str) -> None:
    smooth = np.asarray(
        [
            np.asarray(Image.fromarray(image[:8, :8]).resize((32, 32), Image.Resampling.BICUBIC))
            for image in pictures()
        ]
    )
    values = {"jpeg": (95, 50, 5), "blur": (0.5, 1, 4), "resize": (24, 12, 4), "noise": (1, 8, 40)}
    errors = [
        np.abs(apply_steps(smooth, ((kind, float(value)),)).astype(int) - smooth).mean()
        for value in values[kind]
    ]
    assert errors == sorted(errors)
    assert errors[0] < errors[-1]


# Each alone


def test_jpeg_is_what_a_file_of_that_quality_holds() -> None:
    for image in pictures():
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=30)
        expected = np.asarray(Image.open(buffer))
        np.testing.assert_array_equal(apply_steps(image[None], (("jpeg", 30.0),))[0], expected)


def test_quality_75_is_the_encoder_of_the_published_cifake(real_data: Path) -> None:
    """The same quantisation tables and the same subsampling in every component."""
    own = Image.open(io.BytesIO(encode_jpeg(pictures()[0], 75)))
    assert isinstance(own, JpegImagePlugin.JpegImageFile)
    checked = 0
    for _, blob in islice(iter_files(real_data / "cifake.tar.xz"), 200):
        published = Image.open(io.BytesIO(blob))
        assert isinstance(published, JpegImagePlugin.JpegImageFile)
        assert published.quantization == own.quantization
        assert published.layer == own.layer
        assert JpegImagePlugin.get_sampling(published) == JpegImagePlugin.get_sampling(own) == 2
        checked += 1
    assert checked == 200


def test_blur_is_a_convolution_with_the_gaussian() -> None:
    """Against sums written out, on an image that is mirrored at its edges by hand."""
    sigma, reach = 1.25, 5
    image = pictures(1)[0].astype(float)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="symmetric")
    down = sum(w * padded[i : i + 32] for i, w in enumerate(weights))
    across = sum(w * down[:, i : i + 32] for i, w in enumerate(weights))
    found = apply_steps(image.astype(np.uint8)[None], (("blur", sigma),))[0]
    assert np.abs(found - np.rint(across)).max() <= 1
    assert (found == np.rint(across)).mean() > 0.99


def test_resize_leaves_no_more_detail_than_its_side_holds() -> None:
    """A picture of side² values, enlarged: shrinking and enlarging it twice changes little."""
    once = apply_steps(pictures(), (("resize", 4.0),)).astype(int)
    fine = np.abs(np.diff(once, axis=1)).mean()
    assert fine < 0.2 * np.abs(np.diff(pictures().astype(int), axis=1)).mean()
    expected = Image.fromarray(pictures()[0]).resize((4, 4), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(
        once[0], np.asarray(expected.resize((32, 32), Image.Resampling.BICUBIC))
    )


def test_noise_has_the_asked_for_spread_and_no_bias() -> None:
    grey = np.full((50, 32, 32, 3), 128, np.uint8)
    grey[:, 0, 0, 0] = np.arange(50)
    difference = apply_steps(grey, (("noise", 10.0),)).astype(float) - grey
    assert abs(difference.mean()) < 0.1
    assert abs(difference.std() - 10) < 0.1
    assert len({image.tobytes() for image in difference}) == 50


def test_copies_of_an_image_get_the_same_noise() -> None:
    pair = np.concatenate([pictures(1), pictures(1)])
    first, second = apply_steps(pair, (("noise", 20.0),))
    np.testing.assert_array_equal(first, second)


@settings(deadline=None)
@given(batches)
def test_greyscale_is_pillows_luma_in_every_channel(pixels: Pixels) -> None:
    found = apply_steps(pixels, (("greyscale", 0.0),))
    for image, grey in zip(pixels, found, strict=True):
        expected: Any = np.asarray(Image.fromarray(image).convert("L"))
        weights = np.asarray([0.299, 0.587, 0.114])
        assert np.abs(image @ weights - expected).max() < 0.51
        np.testing.assert_array_equal(grey, np.repeat(expected[..., None], 3, axis=2))

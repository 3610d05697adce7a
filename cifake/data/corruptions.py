"""What a variant does to pixels: pure functions of arrays, the same result every time.

Every function takes and returns pixels of shape (n, 32, 32, 3), uint8.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """One kind of step, and the values that it takes."""

    apply: Callable[[Pixels, float], Pixels]
    description: str
    """One line for `cifake data list`."""

    value: str = ""
    """What its value is called; empty where it takes none."""

    low: float = 0
    high: float = 0
    whole: bool = False
    """Whether the value must be a whole number."""


def encode_jpeg(pixels: Pixels, quality: int) -> bytes:
    """One image of shape (32, 32, 3) as a JPEG file: 4:2:0, the encoder's usual tables."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()


def jpeg(pixels: Pixels, quality: float) -> Pixels:
    """Encode as JPEG and decode again; quality is 1 to 100."""
    return _each(pixels, lambda image: _decoded(encode_jpeg(image, int(quality))))


def blur(pixels: Pixels, sigma: float) -> Pixels:
    """Gaussian blur with a standard deviation in pixels; beyond the edge lies its mirror image."""
    # Loading scipy takes longer than most commands that only name a variant.
    from scipy.ndimage import gaussian_filter

    blurred = gaussian_filter(pixels.astype(np.float64), (0, sigma, sigma, 0), mode="reflect")
    return _rounded(blurred)


def resize(pixels: Pixels, side: float) -> Pixels:
    """Shrink to side×side pixels and enlarge again, both bicubic."""
    small = (int(side), int(side))

    def one(image: Pixels) -> Pixels:
        shrunk = Image.fromarray(image).resize(small, Image.Resampling.BICUBIC)
        return np.asarray(shrunk.resize(image.shape[1::-1], Image.Resampling.BICUBIC))

    return _each(pixels, one)


def noise(pixels: Pixels, sigma: float) -> Pixels:
    """Add Gaussian noise with a standard deviation in units of 0 to 255.

    Drawn from each image's own pixels, so that copies of an image remain copies.
    """

    def one(image: Pixels) -> Pixels:
        digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
        rng = np.random.default_rng(int.from_bytes(digest, "big"))
        return _rounded(image + rng.normal(0, sigma, image.shape))

    return _each(pixels, one)


def greyscale(pixels: Pixels, value: float = 0) -> Pixels:
    """The luma of Rec. 601 in all three channels."""
    del value
    # The weights 0.299, 0.587 and 0.114 in 16-bit fixed point; they sum to one.
    luma = (pixels.astype(np.int64) @ np.asarray([19595, 38470, 7471]) + 2**15) >> 16
    return np.repeat(luma[..., None].astype(np.uint8), 3, axis=-1)


CORRUPTIONS: dict[str, Corruption] = {
    "jpeg": Corruption(
        apply=jpeg, description="re-encode as JPEG, 4:2:0", value="Q", low=1, high=100, whole=True
    ),
    "blur": Corruption(
        apply=blur, description="Gaussian blur, pixels", value="SIGMA", low=0.1, high=16
    ),
    "resize": Corruption(
        apply=resize,
        description="down to this side and up again, bicubic",
        value="SIDE",
        low=1,
        high=31,
        whole=True,
    ),
    "noise": Corruption(
        apply=noise,
        description="Gaussian noise, units of 0 to 255",
        value="SIGMA",
        low=0.1,
        high=128,
    ),
    "greyscale": Corruption(apply=greyscale, description="Rec. 601 luma in all channels"),
}
"""Every step by the name that it has in `NAME@STEP`."""


def apply_steps(pixels: Pixels, steps: tuple[tuple[str, float], ...]) -> Pixels:
    """Apply steps, given as kind and value, one after another."""
    for kind, value in steps:
        pixels = CORRUPTIONS[kind].apply(pixels, value)
    return pixels


def _each(pixels: Pixels, change: Callable[[Pixels], Pixels]) -> Pixels:
    changed = np.empty_like(pixels)
    for target, image in zip(changed, pixels, strict=True):
        target[:] = change(image)
    return changed


def _decoded(blob: bytes) -> Pixels:
    with Image.open(io.BytesIO(blob), formats=("JPEG",)) as image:
        return np.asarray(image)


def _rounded(values: npt.NDArray[np.float64]) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)

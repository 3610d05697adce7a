"""The embedded data set: patches of two photographs, and their blurred reconstructions.

A stand-in that lets every command be tried without a download. REAL are patches of the two
photographs that scikit-learn ships, scaled down to 32×32. FAKE are other such patches, rebuilt by a
lossy generator: shrunk until the fine detail is gone, enlarged again, with paler colours and the
faint checkerboard that transposed convolutions leave. It says nothing about Stable Diffusion. The
ten content classes are five vertical strips of each photograph. Train and test patches come from
different blocks of the photographs.

Only integer operations are used (Pillow resamples in fixed point), so every machine makes the same
pixels.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cifake.data.raw import FAKE, REAL, RawImage
from cifake.errors import refuse

PHOTOGRAPHS = ("china", "flower")
STRIPS = 5
SPLITS = {"train": 4000, "test": 1000}

_BLOCK = 61
_TEST_EVERY = 5
_SEED = 20261123


def read(path: Path | None = None) -> Iterator[RawImage]:
    """Yield 4,000 training and 1,000 test images, half of them FAKE, evenly over the classes."""
    del path
    for number, photograph in enumerate(PHOTOGRAPHS):
        pixels = _load(photograph)
        for strip in range(STRIPS):
            yield from _strip_images(photograph, pixels, strip, number * STRIPS + strip)


def _strip_images(
    photograph: str, pixels: npt.NDArray[np.uint8], strip: int, number: int
) -> Iterator[RawImage]:
    rng = np.random.default_rng([_SEED, number])
    blocks = {split: _blocks(pixels.shape, strip, split) for split in SPLITS}
    for split, total in SPLITS.items():
        for label in (FAKE, REAL):
            for index in range(total // (2 * STRIPS * len(PHOTOGRAPHS))):
                top, left = blocks[split][rng.integers(len(blocks[split]))]
                patch = _patch(pixels[top : top + _BLOCK, left : left + _BLOCK], rng)
                image = _regenerate(patch, rng) if label == FAKE else patch
                buffer = io.BytesIO()
                image.save(buffer, "PPM")
                name = f"{photograph}{strip + 1}-{split}-{label}-{index:03}.ppm"
                yield RawImage(
                    name=name,
                    file_name=name,
                    split=split,
                    label=label,
                    blob=buffer.getvalue(),
                    content_class=f"{photograph}{strip + 1}",
                    generator="shrink" if label == FAKE else None,
                )


def _load(photograph: str) -> npt.NDArray[np.uint8]:
    # Found without importing scikit-learn's data sets, which takes longer than making this one.
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        refuse("data set demo", "needs scikit-learn, which ships its photographs; install it")
    path = Path(package.origin).parent / "datasets" / "images" / f"{photograph}.jpg"
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _blocks(shape: tuple[int, ...], strip: int, split: str) -> list[tuple[int, int]]:
    """Corners of a strip's blocks; every fifth block is kept for the test split."""
    height, width = shape[0], shape[1] // STRIPS
    corners = [
        (top, strip * width + left)
        for top in range(0, height - _BLOCK + 1, _BLOCK)
        for left in range(0, width - _BLOCK + 1, _BLOCK)
    ]
    return [
        corner
        for index, corner in enumerate(corners)
        if ((index + strip) % _TEST_EVERY == 0) == (split == "test")
    ]


def _patch(block: npt.NDArray[np.uint8], rng: np.random.Generator) -> Image.Image:
    """A random square of the block, scaled down to 32×32, mirrored half of the time."""
    side = int(rng.integers(36, _BLOCK + 1))
    top, left = rng.integers(0, _BLOCK - side + 1, size=2)
    image = Image.fromarray(block[top : top + side, left : left + side])
    image = image.resize((32, 32), Image.Resampling.BILINEAR)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.integers(2) else image


def _regenerate(patch: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Drop the fine detail and some colour, and leave a checkerboard of a random strength."""
    small = patch.resize((12, 12), Image.Resampling.BOX)
    smooth = np.asarray(small.resize((32, 32), Image.Resampling.BICUBIC), np.int16)
    colour = int(rng.integers(4, 9))
    grey = smooth.sum(axis=2, keepdims=True) // 3
    faded = (smooth * colour + grey * (8 - colour)) // 8
    board = np.indices((32, 32)).sum(axis=0)[:, :, None] % 2 * 2 - 1
    strength = int(rng.integers(2, 25))
    return Image.fromarray(np.clip(faded + board * strength, 0, 255).astype(np.uint8))

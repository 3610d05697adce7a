"""Encoded images to 32×32 RGB pixels, on every core.

Worker processes import this module alone, so it must stay free of torch.
"""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import joblib
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

SIDE = 32
PIXELS_SHAPE = (SIDE, SIDE, 3)
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "WEBP", "GIF", "TIFF")
"""What is decoded; Pillow's other readers start programs or are seldom looked after."""

_CHUNK = 512
_CHUNKS_WORTH_A_POOL = 16


Advance = Callable[[int], None]
"""Called with the number of images decoded since the last call."""


def unwatched(images: int) -> None:
    """Progress that nobody watches."""
    del images


@dataclass(frozen=True)
class Decoded:
    """A chunk of images, decoded."""

    pixels: npt.NDArray[np.uint8]
    """Shape (n, 32, 32, 3), uint8; zeros where there is a problem."""

    digests: list[bytes]
    """BLAKE2b of each image's pixels, 16 bytes."""

    problems: list[str | None]
    """Why an image could not be used, or null."""


def decode(blobs: list[bytes]) -> Decoded:
    """Decode a chunk in this process."""
    pixels = np.zeros((len(blobs), *PIXELS_SHAPE), np.uint8)
    problems = [_decode_one(blob, pixels[i]) for i, blob in enumerate(blobs)]
    digests = [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in pixels]
    return Decoded(pixels, digests, problems)


def decode_all(
    blobs: Iterable[bytes], advance: Advance = unwatched, workers: int | None = None
) -> Iterator[Decoded]:
    """Decode chunks in worker processes and yield them in order.

    Args:
        blobs: encoded images; read only as fast as they are decoded.
        advance: called with the number of images decoded since the last call.
        workers: processes; by default one a core. One decodes in this process, and so is a set
            too small to be worth the start of others.
    """
    chunks = _chunks(iter(blobs))
    first = list(itertools.islice(chunks, _CHUNKS_WORTH_A_POOL))
    workers = workers or joblib.cpu_count()
    if len(first) < _CHUNKS_WORTH_A_POOL:
        workers = 1
    pool = joblib.Parallel(workers, return_as="generator", pre_dispatch="4*n_jobs")
    for decoded in pool(joblib.delayed(decode)(chunk) for chunk in itertools.chain(first, chunks)):
        advance(len(decoded.problems))
        yield decoded


def _chunks(blobs: Iterator[bytes]) -> Iterator[list[bytes]]:
    while chunk := list(itertools.islice(blobs, _CHUNK)):
        yield chunk


def _decode_one(blob: bytes, target: npt.NDArray[np.uint8]) -> str | None:
    try:
        with Image.open(io.BytesIO(blob), formats=FORMATS) as image:
            if image.size != (SIDE, SIDE):
                return f"is {image.width}×{image.height} pixels, must be {SIDE}×{SIDE}"
            target[:] = np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError) as error:
        return f"cannot be read as an image ({type(error).__name__})"
    except Image.DecompressionBombError:
        return "claims a size beyond any that is decoded"
    return None

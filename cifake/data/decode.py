"""Encoded images to 32×32 RGB pixels, on every core.

Worker processes import this module and `fit` alone, so both must stay free of torch.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import joblib
import numpy as np
import numpy.typing as npt
from PIL import Image

from cifake.data.fit import fit

SIDE = 32
PIXELS_SHAPE = (SIDE, SIDE, 3)
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "WEBP", "GIF", "TIFF")
"""What is decoded; Pillow's other readers start programs or are seldom looked after."""

MAX_PIXELS = 100_000_000
"""An image that claims more is refused before its pixels are decoded."""

# What Pillow finds odd in a file that it can read is no news; what it cannot read is said here.
warnings.filterwarnings("ignore", module=r"PIL\.")

_CHUNK = 512
_CHUNK_BYTES = 4 * 2**20
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
    """As `digests_of` gives them."""

    problems: list[str | None]
    """Why an image could not be used, or null."""


def decode(blobs: list[bytes], resample: str | None = None) -> Decoded:
    """Decode a chunk in this process.

    Args:
        blobs: encoded images.
        resample: filter by which images of any size become 32×32; null wants that size exactly.
    """
    sheet = Image.new("RGB", (SIDE, SIDE * len(blobs)))  # black where an image is not to be had
    problems = [_decode_one(blob, sheet, i, resample) for i, blob in enumerate(blobs)]
    pixels = np.asarray(sheet).reshape(len(blobs), *PIXELS_SHAPE)
    return Decoded(pixels, digests_of(pixels), problems)


def digests_of(pixels: npt.NDArray[np.uint8]) -> list[bytes]:
    """BLAKE2b of each image's pixels, 16 bytes.

    Args:
        pixels: shape (n, 32, 32, 3), uint8.
    """
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in pixels]


def decode_all(
    blobs: Iterable[bytes],
    advance: Advance = unwatched,
    workers: int | None = None,
    resample: str | None = None,
) -> Iterator[Decoded]:
    """Decode chunks in worker processes and yield them in order.

    Args:
        blobs: encoded images; read only as fast as they are decoded.
        advance: called with the number of images decoded since the last call.
        workers: processes; by default one a core. One decodes in this process, and so is a set
            too small to be worth the start of others.
        resample: as `decode` takes it.
    """
    chunks = _chunks(iter(blobs))
    first = list(itertools.islice(chunks, _CHUNKS_WORTH_A_POOL))
    workers = workers or joblib.cpu_count()
    if len(first) < _CHUNKS_WORTH_A_POOL:
        workers = 1
    pool = joblib.Parallel(workers, return_as="generator", pre_dispatch="4*n_jobs")
    whole = itertools.chain(first, chunks)
    for decoded in pool(joblib.delayed(decode)(chunk, resample) for chunk in whole):
        advance(len(decoded.problems))
        yield decoded


def _chunks(blobs: Iterator[bytes]) -> Iterator[list[bytes]]:
    """Lists bounded in number and, since photographs can be large, in bytes."""
    chunk: list[bytes] = []
    size = 0
    for blob in blobs:
        chunk.append(blob)
        size += len(blob)
        if len(chunk) == _CHUNK or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _decode_one(blob: bytes, sheet: Image.Image, place: int, resample: str | None) -> str | None:
    """Put an image on a sheet of them, or say why not.

    To take the pixels out of Pillow once for all images saves a third of the time.
    """
    try:
        with Image.open(io.BytesIO(blob), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                size = f"{image.width}×{image.height}"
                return f"claims a size of {size} pixels; at most {MAX_PIXELS:,} are decoded"
            if resample is not None:
                found = fit(image, SIDE, resample)
            elif image.size == (SIDE, SIDE):
                found = image if image.mode == "RGB" else image.convert("RGB")
            else:
                return f"is {image.width}×{image.height} pixels, must be {SIDE}×{SIDE}"
            sheet.paste(found, (0, SIDE * place))
    except Image.DecompressionBombError:
        return f"claims a size of more than the {MAX_PIXELS:,} pixels that are decoded"
    except Exception as error:  # noqa: BLE001 - decoders raise whatever broken data lead them to
        reason = type(error).__name__ if resample is None else f"{type(error).__name__}: {error}"
        return f"cannot be read as an image ({_one_line(reason)})"
    return None


def _one_line(text: str, limit: int = 160) -> str:
    """Without line breaks and addresses of objects, so that equal files get equal words."""
    plain = " ".join(re.sub(r"<[^>]* object at 0x[0-9a-f]+>", "it", text).split())
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"

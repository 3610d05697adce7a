"""One image file of any size and kind to the pixels of a pack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from cifake.data.archives import MAX_FILE_BYTES
from cifake.data.decode import decode


def read_image(path: Path, filter_name: str) -> npt.NDArray[np.uint8]:
    """Pixels of shape (32, 32, 3), uint8, as a set of folders has them.

    Raises:
        ValueError: no image, a damaged or truncated one, or one of a size that none has.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"is larger than an image has at most, {MAX_FILE_BYTES:,} bytes")
        blob = path.read_bytes()
    except FileNotFoundError:
        raise ValueError("no such file") from None
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    decoded = decode([blob], filter_name)
    if decoded.problems[0] is not None:
        raise ValueError(decoded.problems[0])
    pixels: npt.NDArray[np.uint8] = decoded.pixels[0]
    return pixels

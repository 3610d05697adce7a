"""One image file of any size and kind to the pixels of a pack."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from cifake.data.decode import FORMATS, SIDE
from cifake.data.fit import fit

MAX_PIXELS = 100_000_000
"""An image that claims more is refused before its pixels are decoded."""


def read_image(path: Path, filter_name: str) -> npt.NDArray[np.uint8]:
    """Pixels of shape (32, 32, 3), uint8, made by `fit`.

    Raises:
        ValueError: no image, a damaged or truncated one, or one of a size that none has.
    """
    with warnings.catch_warnings():
        # MAX_PIXELS decides instead, and the refusal says so.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height <= MAX_PIXELS:
                    return np.asarray(fit(image, SIDE, filter_name))
                size = f"{image.width}×{image.height} pixels"
        except FileNotFoundError:
            raise ValueError("no such file") from None
        except UnidentifiedImageError:
            raise ValueError(f"is no image of a kind that is read: {', '.join(FORMATS)}") from None
        except Image.DecompressionBombError:
            size = "far more pixels"
        except Exception as error:  # decoders raise whatever broken data lead them to
            raise ValueError(f"cannot be read as an image ({_one_line(error)})") from error
    raise ValueError(f"claims {size}; at most {MAX_PIXELS:,} are decoded")


def _one_line(error: Exception, limit: int = 120) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= limit else text[: limit - 1] + "…"

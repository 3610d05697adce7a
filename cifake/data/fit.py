"""Any image to a small square of RGB: upright, opaque, eight bits a channel, resized.

Imported by decoding processes, so it must stay free of torch.
"""

from __future__ import annotations

import struct

import numpy as np
from PIL import ExifTags, Image

FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
"""Resize filters by name. All but `nearest` look at every pixel when an image shrinks."""

DEFAULT_FILTER = "bilinear"
"""The filter by which the CIFAKE authors scaled theirs."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each orientation of the EXIF standard."""

_WHITE_16 = 65535


def fit(image: Image.Image, side: int, filter_name: str) -> Image.Image:
    """An opened image as `side`×`side` RGB, squashed where it is not square.

    Transparency is laid onto white, 16 bits are scaled to 8, the EXIF orientation is applied, and
    of several frames the first is taken.

    Raises:
        ValueError: samples without a known range of brightness.
    """
    image.load()
    orientation = _orientation(image)
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    opaque = _opaque(_eight_bits(image))
    upright = opaque if method is None else opaque.transpose(method)
    return upright.resize((side, side), FILTERS[filter_name])


def _orientation(image: Image.Image) -> object:
    """What EXIF says of which way is up; damaged EXIF says nothing, and the pixels are whole."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except (SyntaxError, ValueError, LookupError, TypeError, OSError, EOFError, struct.error):
        return None


def _eight_bits(image: Image.Image) -> Image.Image:
    """Pillow clips wide samples when it converts them; here 65535 becomes 255."""
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format in _WIDE_GREY)
    if not sixteen:
        if image.mode in {"I", "F"}:
            raise ValueError(f"samples of mode {image.mode} have no known range")
        return image
    samples = np.asarray(image).astype(np.int64)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        samples[samples == transparent] = _WHITE_16
    return Image.fromarray(((samples * 255 + _WHITE_16 // 2) // _WHITE_16).astype(np.uint8))


_WIDE_GREY = {"PNG", "PPM"}
"""Formats of which Pillow gives 16-bit grey as 32-bit integers up to 65535."""


def _opaque(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")

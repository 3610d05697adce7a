"""Any image becomes 32×32 RGB: every mode keeps its colours, every size is squashed."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from cifake.data.decode import MAX_PIXELS, decode
from cifake.data.fit import FILTERS, fit

# Pillow warns of oddities, which commands keep to themselves.
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")

SIDE = 32
Pixels = npt.NDArray[np.uint8]


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def fitted(blob: bytes, filter_name: str = "bilinear") -> Pixels:
    decoded = decode([blob], filter_name)
    assert decoded.problems == [None]
    return decoded.pixels[0]


def problem(blob: bytes) -> str:
    decoded = decode([blob], "bilinear")
    assert not decoded.pixels.any()
    (text,) = decoded.problems
    assert text is not None
    return text


def random_pixels(channels: int, seed: int = 0, dtype: Any = np.uint8) -> npt.NDArray[Any]:
    top = np.iinfo(dtype).max + 1
    return np.random.default_rng(seed).integers(0, top, (SIDE, SIDE, channels), dtype)


def png(pixels: npt.NDArray[np.uint16], colour_type: int) -> bytes:
    """A 16-bit PNG of shape (height, width, channels), written by hand."""
    height, width, _ = pixels.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    return png_file(width, height, 16, colour_type, lines)


def png_file(width: int, height: int, depth: int, colour_type: int, lines: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")):
        check = struct.pack(">I", zlib.crc32(name + data))
        content += struct.pack(">I", len(data)) + name + data + check
    return content


# Modes


def test_image_of_the_right_size_keeps_its_pixels() -> None:
    pixels = random_pixels(3)
    for name in FILTERS:
        np.testing.assert_array_equal(fitted(encoded(Image.fromarray(pixels)), name), pixels)


def test_transparent_pixels_let_white_shine_through() -> None:
    pixels = random_pixels(4)
    colour, alpha = pixels[..., :3].astype(float), pixels[..., 3:] / 255
    expected = alpha * colour + (1 - alpha) * 255
    assert abs(fitted(encoded(Image.fromarray(pixels))) - expected).max() <= 1


def test_grey_with_transparency_is_laid_onto_white() -> None:
    pixels = random_pixels(2)
    grey, alpha = pixels[..., :1].astype(float), pixels[..., 1:] / 255
    found = fitted(encoded(Image.fromarray(pixels, "LA")))
    assert abs(found - (alpha * grey + (1 - alpha) * 255)).max() <= 1


def test_transparent_colour_of_a_palette_becomes_white() -> None:
    image = Image.new("P", (SIDE, SIDE), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(0, (0, 0, SIDE, 8))
    for kind in ("PNG", "GIF"):
        found = fitted(encoded(image, kind, transparency=1))
        assert (found[:8] == (10, 20, 30)).all()
        assert (found[8:] == 255).all()
        opaque = fitted(encoded(image, kind))
        assert (opaque[8:] == (200, 100, 50)).all()


def test_transparent_colour_of_an_opaque_image_becomes_white() -> None:
    image = Image.new("RGB", (SIDE, SIDE), (9, 8, 7))
    image.paste((1, 2, 3), (0, 0, 5, SIDE))
    found = fitted(encoded(image, transparency=(9, 8, 7)))
    assert (found[:, 5:] == 255).all()
    assert (found[:, :5] == (1, 2, 3)).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(kind: str) -> None:
    samples = random_pixels(1, dtype=np.uint16)[..., 0]
    samples[0, :3] = (0, 65535, 300)
    blob = (
        f"P5 {SIDE} {SIDE} 65535\n".encode() + samples.astype(">u2").tobytes()
        if kind == "PPM"
        else encoded(Image.fromarray(samples), kind)
    )
    expected = np.rint(samples / 257.0)
    np.testing.assert_array_equal(fitted(blob), np.repeat(expected[..., None], 3, axis=2))


def test_transparent_sample_of_sixteen_bits_becomes_white() -> None:
    samples = np.full((SIDE, SIDE), 1000, np.uint16)
    samples[0] = 30000
    blob = encoded(Image.fromarray(samples))
    mark = blob.index(b"IDAT") - 4
    chunk = b"tRNS" + struct.pack(">H", 1000)
    blob = (
        blob[:mark]
        + struct.pack(">I", 2)
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + blob[mark:]
    )
    found = fitted(blob)
    assert (found[1:] == 255).all()
    assert (found[0] == 117).all()


@pytest.mark.parametrize(("channels", "colour_type"), [(3, 2), (4, 6), (2, 4)])
def test_sixteen_bit_colours_are_scaled_within_a_step(channels: int, colour_type: int) -> None:
    samples = random_pixels(channels, dtype=np.uint16)
    if channels != 3:
        samples[..., -1] = 65535
    colours = samples[..., :3] if channels > 2 else samples[..., :1]
    assert abs(fitted(png(samples, colour_type)) - colours / 257.0).max() < 1


def test_inks_are_turned_into_light() -> None:
    pixels = random_pixels(4)
    cyan_to_yellow, black = pixels[..., :3].astype(float), pixels[..., 3:].astype(float)
    expected = (255 - cyan_to_yellow) * (255 - black) / 255
    found = fitted(encoded(Image.fromarray(pixels, "CMYK"), "TIFF"))
    assert abs(found - expected).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_is_the_same_in_every_channel(mode: str) -> None:
    grey = random_pixels(1)[..., 0]
    image = Image.fromarray(grey).convert(mode)
    expected = np.asarray(image.convert("L"))
    found = fitted(encoded(image))
    assert all((found[..., channel] == expected).all() for channel in range(3))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_samples_without_a_known_range_are_a_problem(mode: str) -> None:
    text = problem(encoded(Image.new(mode, (SIDE, SIDE), 5), "TIFF"))
    assert f"samples of mode {mode} have no known range" in text


def test_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (SIDE, SIDE), colour) for colour in ("red", "blue", "lime")]
    for kind in ("GIF", "PNG", "TIFF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        blob = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert (fitted(blob) == (255, 0, 0)).all(), kind


ORIENTATIONS: dict[int, Any] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_photograph_is_turned_as_its_camera_was_held(orientation: int) -> None:
    pixels = random_pixels(3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = fitted(encoded(Image.fromarray(pixels), exif=exif.tobytes()))
    np.testing.assert_array_equal(found, ORIENTATIONS[orientation](pixels))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_unknown_orientation_turns_nothing(orientation: int) -> None:
    pixels = random_pixels(3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(
        fitted(encoded(Image.fromarray(pixels), exif=exif.tobytes())), pixels
    )


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=60))
def test_damaged_exif_does_not_cost_the_image(damage: bytes) -> None:
    pixels = random_pixels(3)
    blob = encoded(Image.fromarray(pixels), exif=b"Exif\0\0MM\0*\0\0\0\x08" + damage)
    found = sorted(fitted(blob).ravel())
    assert found == sorted(pixels.ravel())


# Sizes


@settings(deadline=None, max_examples=80)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"]),
    filter_name=st.sampled_from(sorted(FILTERS)),
    colour=st.integers(0, 255),
)
@example(width=1, height=90, mode="RGB", filter_name="lanczos", colour=3)
def test_one_colour_of_any_size_and_mode_stays_one_colour(
    width: int, height: int, mode: str, filter_name: str, colour: int
) -> None:
    image = Image.new("L", (width, height), colour).convert(mode)
    expected = np.asarray(image.convert("RGB"))[0, 0]
    if mode == "1":
        image = Image.new("1", (width, height), colour > 127)
        expected = np.full(3, 255 * (colour > 127))
    kind = "TIFF" if mode == "CMYK" else "PNG"
    assert (fitted(encoded(image, kind), filter_name) == expected).all()


def test_box_filter_gives_the_means_of_blocks() -> None:
    large = np.random.default_rng(3).integers(0, 256, (96, 64, 3), np.uint8)
    means = large.reshape(32, 3, 32, 2, 3).mean((1, 3))
    assert abs(fitted(encoded(Image.fromarray(large)), "box") - means).max() <= 1


def test_wide_image_is_squashed_and_nothing_cropped() -> None:
    wide = np.zeros((32, 128, 3), np.uint8)
    wide[:, 64:] = 255
    found = fitted(encoded(Image.fromarray(wide)), "box")
    assert (found[:, :16] == 0).all()
    assert (found[:, 16:] == 255).all()


@pytest.mark.parametrize("name", FILTERS)
def test_filter_is_pillows_of_that_name(name: str) -> None:
    image = Image.fromarray(np.random.default_rng(5).integers(0, 256, (50, 70, 3), np.uint8))
    expected = image.resize((SIDE, SIDE), Image.Resampling[name.upper()])
    np.testing.assert_array_equal(np.asarray(fit(image, SIDE, name)), np.asarray(expected))


# What cannot be read


@pytest.mark.parametrize(
    ("width", "height"), [(60_000, 60_000), (10_001, 10_000), (2**31 - 1, 1), (1, MAX_PIXELS + 1)]
)
def test_image_bomb_is_a_problem_before_its_pixels_are_decoded(width: int, height: int) -> None:
    text = problem(png_file(width, height, 8, 2, b"\0"))
    assert "claims a size" in text
    assert f"{MAX_PIXELS:,}" in text


KINDS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")


def _picture(kind: str) -> bytes:
    rng = np.random.default_rng(8)
    return encoded(Image.fromarray(rng.integers(0, 256, (23, 41, 3), np.uint8)), kind)


WHOLE = {kind: _picture(kind) for kind in KINDS}


@settings(deadline=None, max_examples=150)
@given(kind=st.sampled_from(KINDS), share=st.floats(0, 0.98))
def test_cut_file_is_a_problem_and_never_an_error(kind: str, share: float) -> None:
    blob = WHOLE[kind][: int(len(WHOLE[kind]) * share)]
    (text,) = decode([blob], "bilinear").problems
    # The end of a TIFF or GIF file may hold nothing that its first frame needs.
    assert text is not None or (kind in {"GIF", "TIFF"} and share > 0.5)


@settings(deadline=None, max_examples=200)
@given(
    kind=st.sampled_from(KINDS),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1),
)
def test_damaged_file_is_decoded_or_a_problem_and_never_an_error(
    kind: str, changes: list[tuple[float, int]]
) -> None:
    blob = bytearray(WHOLE[kind])
    for place, value in changes:
        blob[int(place * len(blob))] = value
    decoded = decode([bytes(blob)], "bilinear")
    if decoded.problems[0] is not None:
        assert not decoded.pixels.any()
        assert "\n" not in decoded.problems[0]
        assert " at 0x" not in decoded.problems[0]
        assert len(decoded.problems[0]) < 250


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=200))
def test_bytes_that_are_no_image_are_a_problem(blob: bytes) -> None:
    assert "cannot be read" in problem(blob)


def test_exactly_32_pixels_are_wanted_without_a_filter() -> None:
    blobs = [encoded(Image.new("RGB", (31, 32))), encoded(Image.new("RGB", (32, 32), "red"))]
    decoded = decode(blobs)
    assert decoded.problems == ["is 31×32 pixels, must be 32×32", None]
    assert (decoded.pixels[1] == (255, 0, 0)).all()

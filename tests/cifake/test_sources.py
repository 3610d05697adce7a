"""Every form of a source gives the same images, and a wrong source is refused by name."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import os
import socket
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cifake.data.archives import MAX_FILE_BYTES, iter_files
from cifake.data.locate import open_dataset
from cifake.data.pack import Pack
from cifake.errors import InputError

Images = Mapping[str, bytes]
Write = Callable[[Path, Images], Path]
Open = Callable[..., Pack]
Refuse = Callable[..., str]

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tar.gz": gzip.compress,
    "tgz": gzip.compress,
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
}
ZIPS = {
    "stored.zip": zipfile.ZIP_STORED,
    "deflated.zip": zipfile.ZIP_DEFLATED,
    "bzip2.zip": zipfile.ZIP_BZIP2,
    "lzma.zip": zipfile.ZIP_LZMA,
}


def _folder(root: Path, images: Images) -> Path:
    source = root / "cifake"
    source.mkdir(parents=True)
    for name, blob in images.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(blob)
    return source


def _tar_bytes(images: Images, *extra: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:") as archive:
        for name, blob in images.items():
            member = tarfile.TarInfo(name)
            member.size = len(blob)
            archive.addfile(member, io.BytesIO(blob))
        for member in extra:
            archive.addfile(member)
    return buffer.getvalue()


def _zip_bytes(images: Images, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, blob in images.items():
            archive.writestr(name, blob)
    return buffer.getvalue()


def _archive_bytes(form: str, images: Images) -> bytes:
    if form in ZIPS:
        return _zip_bytes(images, ZIPS[form])
    return COMPRESS[form](_tar_bytes(images))


def _archive(form: str) -> Write:
    def write(root: Path, images: Images) -> Path:
        path = root / f"cifake.{form}"
        path.write_bytes(_archive_bytes(form, images))
        return path

    return write


def _class_label(names: list[str]) -> dict[str, object]:
    return {"names": names, "_type": "ClassLabel"}


def _parquet_file(
    path: Path, columns: dict[str, list[object]], features: dict[str, object] | None
) -> None:
    """A parquet file as the Hugging Face hub holds it."""
    table = pa.table(columns)
    if features is not None:
        content = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": content})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def _parquet(root: Path, images: Images) -> Path:
    """CIFAKE as Hugging Face parquet, the training split in two files."""
    source = root / "hf" / "data"
    for split in ("train", "test"):
        names = [name for name in images if name.startswith(split)]
        parts = [names[::2], names[1::2]] if split == "train" else [names]
        for part, inside in enumerate(parts):
            cells = [{"bytes": images[name], "path": name.rpartition("/")[2]} for name in inside]
            labels = [int("REAL" in name) for name in inside]
            _parquet_file(
                source / f"{split}-{part:05}-of-{len(parts):05}.parquet",
                {"image": list(cells), "label": list(labels)},
                {"image": {"_type": "Image"}, "label": _class_label(["FAKE", "REAL"])},
            )
    return source.parent


FORMS: dict[str, Write] = {
    "folder": _folder,
    "folder-in-folder": lambda root, images: _folder(
        root, {f"DATASET/{name}": blob for name, blob in images.items()}
    ),
    "lower-case-folder": lambda root, images: _folder(
        root, {name.replace("REAL", "real"): blob for name, blob in images.items()}
    ),
    "tar-of-dot": lambda root, images: _archive("tar")(
        root, {f"./{name}": blob for name, blob in images.items()}
    ),
    "parquet": _parquet,
    **{form: _archive(form) for form in (*COMPRESS, *ZIPS)},
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test alone."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("CIFAKE_CACHE", str(folder))
    return folder


@pytest.fixture
def open_source(cache: Path) -> Open:
    """Pack a source in the cache of this test."""
    del cache

    def open_(path: Path, name: str = "cifake") -> Pack:
        return open_dataset(name, {name: path}, workers=1)

    return open_


@pytest.fixture
def refusal(open_source: Open, cache: Path) -> Refuse:
    """What is said of a source that is refused; nothing may be left in the cache."""

    def refuse(path: Path, name: str = "cifake") -> str:
        with pytest.raises(InputError) as caught:
            open_source(path, name)
        assert [left for left in cache.rglob("*") if left.is_file()] == []
        assert list(cache.glob("packs/*")) == []
        text = str(caught.value)
        assert str(path) in text
        return text

    return refuse


@pytest.fixture(scope="session")
def reference(cifake_folder: Path) -> Pack:
    """The small CIFAKE, packed from its folder."""
    return open_dataset("cifake", {"cifake": cifake_folder}, workers=1)


def _decoded(blob: bytes) -> bytes:
    with Image.open(io.BytesIO(blob)) as image:
        return np.asarray(image.convert("RGB")).tobytes()


def test_pack_holds_exactly_the_images_of_the_folder(
    reference: Pack, cifake_images: dict[str, bytes]
) -> None:
    """Each image as Pillow reads it, under its own name, split and label."""
    expected = Counter(
        (name.split("/")[0], int("REAL" in name), name.rpartition("/")[2], _decoded(blob))
        for name, blob in cifake_images.items()
    )
    found = Counter(
        (row["split"], row["label"], row["file_name"], reference.pixels[i].tobytes())
        for i, row in enumerate(reference.images.to_pylist())
    )
    assert found == expected


def test_content_class_is_read_from_the_file_name(reference: Pack) -> None:
    suffixes = {"airplane": "", "automobile": " (2)", "bird": " (3)", "truck": " (10)"}
    for row in reference.images.to_pylist():
        stem = row["file_name"].removesuffix(".jpg")
        assert stem == stem[:4] + suffixes[row["content_class"]]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_fingerprint_pixels_and_table(
    form: str,
    open_source: Open,
    reference: Pack,
    cifake_images: dict[str, bytes],
    tmp_path: Path,
) -> None:
    pack = open_source(FORMS[form](tmp_path, cifake_images))
    assert pack.info.fingerprint == reference.info.fingerprint
    np.testing.assert_array_equal(pack.pixels, reference.pixels)
    assert pack.images.equals(reference.images)


@pytest.mark.parametrize("form", ["folder", "stored.zip", "tar", "tar.xz"])
def test_hidden_files_and_other_files_are_ignored(
    form: str,
    open_source: Open,
    reference: Pack,
    cifake_images: dict[str, bytes],
    tmp_path: Path,
) -> None:
    more = {
        "train/REAL/._0000.jpg": b"AppleDouble",
        "__MACOSX/train/REAL/0000.jpg": b"AppleDouble",
        ".git/train/REAL/0000.jpg": b"not an image",
        "train/REAL/.DS_Store": b"\0",
        "train/REAL/Thumbs.db": b"\0",
        "README.md": b"# CIFAKE",
    }
    pack = open_source(FORMS[form](tmp_path, {**cifake_images, **more}))
    assert pack.info.fingerprint == reference.info.fingerprint


def test_hidden_parquet_files_are_ignored(
    open_source: Open, reference: Pack, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    source = _parquet(tmp_path, cifake_images)
    (source / "data" / "._train-00000-of-00002.parquet").write_bytes(b"AppleDouble")
    (source / ".cache").mkdir()
    (source / ".cache" / "train-00000-of-00002.parquet").write_bytes(b"half a download")
    assert open_source(source).info.fingerprint == reference.info.fingerprint


def test_another_pixel_gives_another_fingerprint(
    open_source: Open, reference: Pack, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    name = "test/REAL/0000.jpg"
    other = {**cifake_images, name: cifake_images["test/REAL/0001.jpg"]}
    assert open_source(_folder(tmp_path, other)).info.fingerprint != reference.info.fingerprint


def test_another_class_gives_another_fingerprint(
    open_source: Open, reference: Pack, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    other = dict(cifake_images)
    other["test/REAL/0009 (4).jpg"] = other.pop("test/REAL/0001 (3).jpg")
    assert open_source(_folder(tmp_path, other)).info.fingerprint != reference.info.fingerprint


def test_parquet_without_file_names_has_no_content_class(
    open_source: Open, reference: Pack, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    for split in ("train", "test"):
        names = [name for name in cifake_images if name.startswith(split)]
        _parquet_file(
            tmp_path / "hf" / f"{split}.parquet",
            {
                "image": [{"bytes": cifake_images[name], "path": None} for name in names],
                "label": [int("REAL" in name) for name in names],
            },
            None,
        )
    pack = open_source(tmp_path / "hf")
    assert pack.images["content_class"].null_count == len(cifake_images)
    assert Counter(image.tobytes() for image in pack.pixels) == Counter(
        image.tobytes() for image in reference.pixels
    )


def test_label_names_of_the_file_decide_not_their_order(
    open_source: Open, reference: Pack, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    for split in ("train", "test"):
        names = [name for name in cifake_images if name.startswith(split)]
        cells = [{"bytes": cifake_images[name], "path": name.split("/")[2]} for name in names]
        _parquet_file(
            tmp_path / "hf" / f"{split}.parquet",
            {"image": list(cells), "label": [int("FAKE" in name) for name in names]},
            {"label": _class_label(["real", "fake"])},
        )
    assert open_source(tmp_path / "hf").info.fingerprint == reference.info.fingerprint


# Wrong content


@pytest.mark.parametrize(
    "name",
    ["0000.jpg", "train/0000.jpg", "REAL/0000.jpg", "REAL/train/FAKE/0000.jpg", "dev/REAL/1.jpg"],
)
@pytest.mark.parametrize("form", ["folder", "stored.zip", "tar.gz"])
def test_image_outside_the_layout_is_refused_with_its_name(
    name: str,
    form: str,
    refusal: Refuse,
    cifake_images: dict[str, bytes],
    tmp_path: Path,
) -> None:
    misplaced = {**cifake_images, name: cifake_images["train/REAL/0000.jpg"]}
    text = refusal(FORMS[form](tmp_path, misplaced))
    assert name in text
    assert "train/REAL" in text


@pytest.mark.parametrize("form", ["folder", "stored.zip", "tar", "tar.xz"])
def test_empty_source_is_refused(form: str, refusal: Refuse, tmp_path: Path) -> None:
    assert "no images" in refusal(FORMS[form](tmp_path, {}))


@pytest.mark.parametrize("missing", ["REAL", "FAKE"])
def test_one_label_only_is_refused_with_the_label_that_is_missing(
    missing: str, refusal: Refuse, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    one = {name: blob for name, blob in cifake_images.items() if missing not in name}
    assert f"labelled {missing}" in refusal(_folder(tmp_path, one))


def test_test_images_alone_are_refused(
    refusal: Refuse, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    test = {name: blob for name, blob in cifake_images.items() if name.startswith("test")}
    assert "no training images" in refusal(_folder(tmp_path, test))


def _encoded(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, "PNG")
    return buffer.getvalue()


def _bomb() -> bytes:
    """A PNG of a hundred bytes that claims 60,000 by 60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = b""
    for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")):
        check = struct.pack(">I", zlib.crc32(kind + content))
        chunks += struct.pack(">I", len(content)) + kind + content + check
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(
    ("blob", "expected"),
    [
        pytest.param(_encoded((64, 32)), "64×32", id="wrong-size"),
        pytest.param(_encoded((31, 31)), "31×31", id="one-pixel-short"),
        pytest.param(b"", "cannot be read", id="empty"),
        pytest.param(b"<html>404</html>", "cannot be read", id="web-page"),
        pytest.param(_encoded((32, 32))[:50], "cannot be read", id="cut"),
        pytest.param(_bomb(), "size", id="bomb"),
    ],
)
@pytest.mark.parametrize("form", ["folder", "deflated.zip", "tar.xz"])
def test_unusable_image_is_refused_with_its_name_and_reason(
    blob: bytes,
    expected: str,
    form: str,
    refusal: Refuse,
    cifake_images: dict[str, bytes],
    tmp_path: Path,
) -> None:
    name = "test/FAKE/0042 (7).jpg"
    text = refusal(FORMS[form](tmp_path, {**cifake_images, name: blob}))
    assert name in text
    assert expected in text


def test_all_unusable_images_are_counted_and_the_first_ten_named(
    refusal: Refuse, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    bad = {f"train/REAL/{number:04} (4).jpg": b"nothing" for number in range(1000, 1025)}
    text = refusal(_folder(tmp_path, {**cifake_images, **bad}))
    assert sum(name in text for name in bad) == 10
    assert f"25 of {len(cifake_images) + 25} images" in text


def test_unusable_image_in_parquet_is_named_by_file_and_row(
    refusal: Refuse, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    names = list(cifake_images)
    broken = {**cifake_images, names[2]: b"nothing"}
    assert "train-00000-of-00002.parquet, row 1" in refusal(_parquet(tmp_path, broken))


@pytest.mark.parametrize("form", ["folder", "deflated.zip", "tar.gz"])
def test_oversized_file_is_refused_before_it_is_read(
    form: str, refusal: Refuse, tmp_path: Path
) -> None:
    name = "train/REAL/0000.jpg"
    if form == "folder":
        source = _folder(tmp_path, {name: b""})
        with (source / name).open("wb") as file:
            file.truncate(MAX_FILE_BYTES + 1)
    else:
        source = FORMS[form](tmp_path, {name: bytes(MAX_FILE_BYTES + 1)})
    text = refusal(source)
    assert name in text
    assert f"{MAX_FILE_BYTES + 1:,} bytes" in text


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs Linux's /proc")
def test_file_of_another_length_than_the_system_says_is_refused(
    refusal: Refuse, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    """As one is that grows while it is read; those of /proc are said to be empty."""
    source = _folder(tmp_path, cifake_images)
    (source / "train" / "REAL" / "0077.jpg").symlink_to("/proc/version")
    text = refusal(source)
    assert "train/REAL/0077.jpg" in text
    assert "changed while it was read" in text


# Members that point elsewhere


def _link_member(kind: bytes, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo("train/REAL/0077.jpg")
    member.type = kind
    member.linkname = target
    return member


@pytest.mark.parametrize("form", ["stored.zip", "tar", "tar.xz"])
def test_member_that_leaves_the_archive_is_refused_with_its_name(
    form: str, refusal: Refuse, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    name = "../outside/train/REAL/0000.jpg"
    escaping = {**cifake_images, name: cifake_images["train/REAL/0000.jpg"]}
    inner = tmp_path / "inner"
    inner.mkdir()
    assert name in refusal(FORMS[form](inner, escaping))
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        pytest.param(tarfile.SYMTYPE, "0000.jpg", id="symlink"),
        pytest.param(tarfile.SYMTYPE, "/etc/passwd", id="symlink-outside"),
        pytest.param(tarfile.LNKTYPE, "train/REAL/0000.jpg", id="hard-link"),
    ],
)
def test_link_in_a_tar_is_refused_with_its_name(
    kind: bytes, target: str, refusal: Refuse, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "cifake.tar"
    path.write_bytes(_tar_bytes(cifake_images, _link_member(kind, target)))
    assert "train/REAL/0077.jpg" in refusal(path)


def test_symlink_in_a_zip_is_refused_with_its_name(
    refusal: Refuse, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "cifake.zip"
    path.write_bytes(_zip_bytes(cifake_images))
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("train/REAL/0077.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "0000.jpg")
    assert "train/REAL/0077.jpg" in refusal(path)


def test_folder_behind_a_symlink_is_read_like_any_other(
    open_source: Open, cifake_images: dict[str, bytes], reference: Pack, tmp_path: Path
) -> None:
    source = _folder(tmp_path, cifake_images)
    (source / "test").rename(tmp_path / "elsewhere")
    (source / "test").symlink_to(tmp_path / "elsewhere")
    assert open_source(source).info.fingerprint == reference.info.fingerprint


def test_folder_that_links_to_itself_is_read_once(
    open_source: Open, cifake_images: dict[str, bytes], reference: Pack, tmp_path: Path
) -> None:
    source = _folder(tmp_path, cifake_images)
    (source / "train" / "again").symlink_to(source)
    assert open_source(source).info.fingerprint == reference.info.fingerprint


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes and sockets with names")
def test_pipe_and_socket_with_names_of_images_are_passed_over(
    open_source: Open, cifake_images: dict[str, bytes], reference: Pack, tmp_path: Path
) -> None:
    """Without a wait for somebody to write into the pipe."""
    source = _folder(tmp_path, cifake_images)
    os.mkfifo(source / "train" / "REAL" / "0077.jpg")
    with socket.socket(socket.AF_UNIX) as listening:
        # The path of a socket has at most a hundred characters or so.
        with contextlib.chdir(source / "train" / "REAL"):
            listening.bind("0078.jpg")
        assert open_source(source).info.fingerprint == reference.info.fingerprint


@pytest.mark.parametrize("target", ["/etc/passwd", "nowhere.jpg"])
def test_link_to_no_image_is_refused_with_its_name(
    target: str, refusal: Refuse, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    source = _folder(tmp_path, cifake_images)
    (source / "train" / "REAL" / "0077.jpg").symlink_to(target)
    assert "train/REAL/0077.jpg" in refusal(source)


def test_source_that_is_itself_a_symlink_is_read(
    open_source: Open, reference: Pack, cifake_folder: Path, tmp_path: Path
) -> None:
    link = tmp_path / "cifake"
    link.symlink_to(cifake_folder)
    assert open_source(link).info.fingerprint == reference.info.fingerprint


# Damage


def _few(images: Images) -> dict[str, bytes]:
    """A dozen images with both labels and splits."""
    names = [name for name in images if name.endswith(("0000.jpg", "0001.jpg", "0001 (2).jpg"))]
    return {name: images[name] for name in names}


def _files_or_refusal(path: Path) -> Images | str:
    """What an archive holds, or that it is refused by name."""
    try:
        return dict(iter_files(path))
    except InputError as error:
        return "refused" if str(path) in str(error) else str(error)


@pytest.mark.parametrize("form", [*COMPRESS, *ZIPS])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.5, 0.8, 0.97])
def test_truncated_archive_is_refused_with_its_name(
    form: str, share: float, refusal: Refuse, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    content = _archive_bytes(form, cifake_images)
    if form == "tar":  # without the zeros that end it
        content = content.rstrip(b"\0")
    path = tmp_path / f"cifake.{form}"
    path.write_bytes(content[: int(len(content) * share)])
    text = refusal(path)
    assert "damaged" in text
    assert "fetch it again" in text


@pytest.mark.parametrize("form", [*COMPRESS, *ZIPS])
def test_archive_cut_at_any_byte_is_refused_or_still_whole(
    form: str, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    images = _few(cifake_images)
    content = _archive_bytes(form, images)
    path = tmp_path / f"cifake.{form}"
    step = 512 if form == "tar" else 7
    short = []
    for size in [*range(0, len(content), step), *range(len(content) - 16, len(content))]:
        path.write_bytes(content[:size])
        if _files_or_refusal(path) not in (images, "refused"):
            short.append(size)
    assert short == []


@pytest.mark.parametrize("form", ["tar.gz", "tar.bz2", "tar.xz", *ZIPS])
def test_flipped_bit_never_changes_an_image_in_silence(
    form: str, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    images = _few(cifake_images)
    content = _archive_bytes(form, images)
    # The directory at the end of a zip file has no check sum of its own.
    end = content.index(b"PK\1\2") if form in ZIPS else len(content)
    path = tmp_path / f"cifake.{form}"
    changed = []
    for number, position in enumerate(range(0, end, max(1, end // 150))):
        damaged = bytearray(content)
        damaged[position] ^= 1 << number % 8
        path.write_bytes(damaged)
        if _files_or_refusal(path) not in (images, "refused"):
            changed.append(position)
    assert changed == []


def test_damaged_header_in_a_tar_does_not_pass_for_its_end(
    refusal: Refuse, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    content = bytearray(_tar_bytes(cifake_images))
    header = content.index(b"test/REAL/0001.jpg")
    content[header + 150] ^= 1
    path = tmp_path / "cifake.tar"
    path.write_bytes(content)
    assert "damaged" in refusal(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_member_of_any_zip_method_is_refused(
    compression: int, refusal: Refuse, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    content = bytearray(_zip_bytes(cifake_images, compression))
    start = content.index(b"train/FAKE/0000.jpg") + 100
    content[start : start + 40] = bytes(40)
    path = tmp_path / "cifake.zip"
    path.write_bytes(content)
    assert "damaged" in refusal(path)


def test_encrypted_zip_is_refused(
    refusal: Refuse, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    content = bytearray(_zip_bytes(cifake_images))
    position = 0
    while (position := content.find(b"PK\1\2", position)) >= 0:
        content[position + 8] |= 1
        position += 4
    path = tmp_path / "cifake.zip"
    path.write_bytes(content)
    assert "encrypted" in refusal(path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.6, 0.9, 0.9999])
def test_truncated_parquet_is_refused_with_its_name(
    share: float, refusal: Refuse, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    source = _parquet(tmp_path, cifake_images)
    file = source / "data" / "train-00001-of-00002.parquet"
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    text = refusal(source)
    assert str(file) in text
    assert "fetch it again" in text


def test_parquet_with_damaged_pages_is_refused(
    refusal: Refuse, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    source = _parquet(tmp_path, cifake_images)
    file = source / "data" / "test-00000-of-00001.parquet"
    content = bytearray(file.read_bytes())
    content[4:400] = bytes(396)
    file.write_bytes(content)
    assert str(file) in refusal(source)


@pytest.mark.parametrize("label", [2, -1, None])
def test_label_that_is_neither_real_nor_fake_is_refused(
    label: int | None, refusal: Refuse, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    cells = [{"bytes": blob, "path": "0000.jpg"} for blob in list(cifake_images.values())[:3]]
    file = tmp_path / "hf" / "train.parquet"
    features = {"label": _class_label(["FAKE", "REAL"])}
    _parquet_file(file, {"image": list(cells), "label": [0, 1, label]}, features)
    text = refusal(tmp_path / "hf")
    assert f"{file}: label" in text


@pytest.mark.parametrize("missing", ["image", "label"])
def test_parquet_without_a_column_is_refused_with_its_name(
    missing: str, refusal: Refuse, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    file = tmp_path / "hf" / "train.parquet"
    cells = [{"bytes": blob, "path": None} for blob in list(cifake_images.values())[:2]]
    columns: dict[str, list[object]] = {"image": list(cells), "label": [0, 1]}
    columns["other"] = columns.pop(missing)
    _parquet_file(file, columns, None)
    assert f"{file}: {missing}: no such column" in refusal(tmp_path / "hf")


def test_parquet_cell_without_bytes_is_refused_with_its_row(
    refusal: Refuse, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    file = tmp_path / "hf" / "train.parquet"
    cells = [
        {"bytes": cifake_images["train/REAL/0000.jpg"], "path": None},
        {"bytes": None, "path": "elsewhere.jpg"},
    ]
    _parquet_file(file, {"image": list(cells), "label": [0, 1]}, None)
    assert f"{file}: row 1 holds no image bytes" in refusal(tmp_path / "hf")


def test_parquet_file_of_an_unknown_split_is_refused(
    refusal: Refuse, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    source = _parquet(tmp_path, cifake_images)
    (source / "data" / "test-00000-of-00001.parquet").rename(source / "data" / "dev.parquet")
    text = refusal(source)
    assert str(source / "data" / "dev.parquet") in text


# CIFAR-100


def _cifar100(path: Path, images: Images, fine: list[int | None]) -> Path:
    cells = [{"bytes": blob, "path": None} for blob in list(images.values())[: len(fine)]]
    _parquet_file(
        path,
        {"img": list(cells), "fine_label": list(fine), "coarse_label": [0] * len(fine)},
        {"fine_label": _class_label(["apple", "bed"]), "coarse_label": _class_label(["things"])},
    )
    return path


def test_cifar100_is_all_real_test_images_with_both_classes(
    open_source: Open, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    source = _cifar100(tmp_path / "test.parquet", cifake_images, [0, 1, 1])
    pack = open_source(source, "cifar100")
    rows = pack.images.to_pylist()
    assert [row["content_class"] for row in rows] == ["apple", "bed", "bed"]
    assert {(row["split"], row["label"], row["coarse_class"]) for row in rows} == {
        ("test", 1, "things")
    }


@pytest.mark.parametrize("label", [2, -1, None])
def test_cifar100_class_without_a_name_is_refused(
    label: int | None, refusal: Refuse, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    source = _cifar100(tmp_path / "test.parquet", cifake_images, [0, 1, label])
    assert "fine_label" in refusal(source, "cifar100")


def test_cifar100_without_class_names_is_refused(
    refusal: Refuse, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    cells = [{"bytes": blob, "path": None} for blob in list(cifake_images.values())[:2]]
    file = tmp_path / "test.parquet"
    _parquet_file(file, {"img": list(cells), "fine_label": [0, 1], "coarse_label": [0, 0]}, None)
    assert "fine_label" in refusal(file, "cifar100")


def test_cifar100_from_another_file_type_is_refused(refusal: Refuse, cifake_folder: Path) -> None:
    assert "parquet" in refusal(cifake_folder, "cifar100")


def test_file_that_is_no_kind_of_source_is_refused_with_the_kinds(
    refusal: Refuse, tmp_path: Path
) -> None:
    path = tmp_path / "cifake.rar"
    path.write_bytes(b"Rar!")
    assert ".tar.xz" in refusal(path)

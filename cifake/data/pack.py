"""The packed form of a data set: one uint8 array, one table of what is known of each image.

A pack is a folder of three files: `pixels.npy` of shape (n, 32, 32, 3), `images.parquet`, and
`pack.json` with the fingerprint. Images are in canonical order, by split, label, classes and
pixels, so that a folder, an archive and parquet files of the same content give the same pack.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cifake import tables
from cifake.data import decode
from cifake.data.raw import LABELS, SPLITS, RawImage
from cifake.errors import InputError, Mistake, refuse

FORMAT = 1
_NAMED_PROBLEMS = 10


@dataclass(frozen=True)
class PackInfo:
    """The contents of `pack.json`."""

    format: int
    dataset: str
    fingerprint: str
    images: int
    source: str


@dataclass(frozen=True)
class Pack:
    """An opened pack. Pixels are mapped from the file, so processes of a node share them."""

    folder: Path
    info: PackInfo
    pixels: npt.NDArray[np.uint8]
    """Shape (n, 32, 32, 3), uint8, read-only."""

    images: pa.Table
    """Table `images`, one row an image."""

    def __reduce__(self) -> tuple[Callable[[Path], Pack], tuple[Path]]:
        """A pack travels to other processes as its folder: the pixels are never copied."""
        return open_pack, (self.folder,)

    @cached_property
    def labels(self) -> npt.NDArray[np.int8]:
        """Shape (n,), int8: 0 FAKE, 1 REAL."""
        return np.asarray(self.images["label"], np.int8)

    def rows(self, split: str) -> npt.NDArray[np.int64]:
        """Rows of a published split, ascending."""
        return np.flatnonzero(self._words("split") == split)

    def words(self, column: str, rows: npt.NDArray[np.int64]) -> list[str | None]:
        """A text column at some rows."""
        return list(self._words(column)[rows])

    def duplicates(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Whether each of some rows has the pixels of an earlier image."""
        column = self.images["duplicate_of"].combine_chunks()
        valid = np.asarray(column.is_valid(), np.bool_)
        return np.asarray(valid[rows], np.bool_)

    def _words(self, column: str) -> npt.NDArray[np.object_]:
        return self._word_columns[column]

    @cached_property
    def _word_columns(self) -> dict[str, npt.NDArray[np.object_]]:
        names = ("split", "content_class", "coarse_class", "generator")
        return {
            name: np.asarray(self.images[name].cast(pa.string()).to_pylist(), object)
            for name in names
        }


def open_pack(folder: Path) -> Pack:
    """Open a pack; the pixels are mapped, not read.

    Raises:
        InputError: the folder holds no whole pack of this format.
    """
    try:
        content = json.loads((folder / "pack.json").read_text())
        if content.get("format") != FORMAT:
            refuse(
                folder,
                f"pack format {content.get('format')}, this release reads {FORMAT}; delete it",
            )
        info = PackInfo(**content)
        pixels = np.load(folder / "pixels.npy", mmap_mode="r")
        images = tables.decode("images", (folder / "images.parquet").read_bytes())
    except (OSError, EOFError, ValueError, TypeError, AttributeError) as error:
        refuse(folder, f"not a whole pack ({error}); delete it and pack again")
    if not len(pixels) == len(images) == info.images:
        refuse(folder, "pixels and images differ in number; delete it and pack again")
    return Pack(folder, info, pixels, images)


def write_pack(
    packs: Path,
    dataset: str,
    source: str,
    raw_images: Iterable[RawImage],
    *,
    trains: bool,
    advance: decode.Advance = decode.unwatched,
    workers: int | None = None,
) -> Pack:
    """Decode a source and write it below `packs`, or open the pack of equal content found there.

    The folder appears whole or not at all.

    Args:
        packs: folder that holds packs, each named by data set and fingerprint.
        dataset: name of the data set.
        source: where the images come from, for messages and `pack.json`.
        raw_images: the encoded images.
        trains: whether the set must hold training images of both labels.
        advance: called with the number of images decoded since the last call.
        workers: decoding processes; by default one a core.

    Raises:
        InputError: images that cannot be used, no image, or one label only.
    """
    described: list[RawImage] = []

    def blobs() -> Iterator[bytes]:
        for image in raw_images:
            described.append(replace(image, blob=b""))
            yield image.blob

    chunks = list(decode.decode_all(blobs(), advance, workers))
    _refuse_problems(source, described, [p for chunk in chunks for p in chunk.problems])
    _refuse_content(source, described, trains=trains)
    digests = [digest for chunk in chunks for digest in chunk.digests]
    order = sorted(range(len(described)), key=lambda i: _sort_key(described[i], digests[i]))
    pixels = np.concatenate([chunk.pixels for chunk in chunks])[order]
    described = [described[i] for i in order]
    digests = [digests[i] for i in order]
    info = PackInfo(FORMAT, dataset, _fingerprint(described, digests), len(described), source)
    images = _images_table(described, digests)
    folder = packs / f"{dataset}-{info.fingerprint}"
    _write_folder(folder, info, pixels, images)
    return open_pack(folder)


def _write_folder(
    folder: Path, info: PackInfo, pixels: npt.NDArray[np.uint8], images: pa.Table
) -> None:
    if folder.exists():
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".packing-", dir=folder.parent))
    except OSError as error:
        refuse(folder.parent, f"cannot be written ({error.strerror}); set CIFAKE_CACHE")
    try:
        np.save(aside / "pixels.npy", pixels)
        (aside / "images.parquet").write_bytes(tables.encode("images", images))
        (aside / "pack.json").write_text(json.dumps(asdict(info), indent=2) + "\n")
        aside.rename(folder)
    except OSError as error:
        if not folder.exists():
            refuse(folder, f"cannot be written ({error.strerror}); free space or set CIFAKE_CACHE")
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _sort_key(image: RawImage, digest: bytes) -> tuple[object, ...]:
    return (*_identity(image, digest), image.file_name or "", image.name)


def _identity(image: RawImage, digest: bytes) -> tuple[object, ...]:
    classes = (image.content_class or "", image.coarse_class or "", image.generator or "")
    return (SPLITS.index(image.split), image.label, *classes, digest)


def _fingerprint(images: list[RawImage], digests: list[bytes]) -> str:
    """Sixteen hexadecimal digits over what every image shows and says, in canonical order."""
    whole = hashlib.sha256()
    for image, digest in zip(images, digests, strict=True):
        split, label, content, coarse, generator, _ = _identity(image, digest)
        whole.update(f"{split}|{label}|{content}|{coarse}|{generator}|".encode())
        whole.update(digest)
    return whole.hexdigest()[:16]


def _images_table(images: list[RawImage], digests: list[bytes]) -> pa.Table:
    first: dict[bytes, int] = {}
    for row, digest in enumerate(digests):
        first.setdefault(digest, row)
    rows = (
        {
            "image_id": row,
            "split": image.split,
            "label": image.label,
            "content_class": image.content_class,
            "coarse_class": image.coarse_class,
            "generator": image.generator,
            "file_name": image.file_name,
            "duplicate_of": None if first[digest] == row else first[digest],
        }
        for row, (image, digest) in enumerate(zip(images, digests, strict=True))
    )
    return tables.TABLES["images"].from_rows(rows)


def _refuse_problems(source: str, images: list[RawImage], problems: list[str | None]) -> None:
    bad = [(image.name, text) for image, text in zip(images, problems, strict=True) if text]
    if not bad:
        return
    mistakes = [Mistake(where=source, field=name, problem=text) for name, text in bad]
    shown = mistakes[:_NAMED_PROBLEMS]
    total = f"{len(bad):,} of {len(images):,} images cannot be used; mend or remove them"
    if len(bad) > len(shown):
        total += f" (the first {len(shown)} are named)"
    raise InputError([*shown, Mistake(where=source, problem=total)])


def _refuse_content(source: str, images: list[RawImage], *, trains: bool) -> None:
    if not images:
        refuse(source, "holds no images; expected JPEG or PNG files, or Hugging Face parquet")
    if not trains:
        return
    found = {image.label for image in images if image.split == "train"}
    missing = [name for name, label in LABELS.items() if label not in found]
    if missing:
        refuse(source, f"no training images labelled {' or '.join(missing)}; both are needed")

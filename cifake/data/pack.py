"""The packed form of a data set: one uint8 array, one table of what is known of each image.

A pack is a folder of four files: `pixels.npy` of shape (n, 32, 32, 3), `images.parquet`,
`unreadable.parquet` and `pack.json` with the fingerprint and what the other files hold. Images are
in canonical order, by split, label, classes and pixels, so that a folder, an archive and parquet
files of the same content give the same pack.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cifake import tables
from cifake.data import decode
from cifake.data.raw import LABELS, SPLITS, RawImage
from cifake.errors import InputError, Mistake, refuse

FORMAT = 3
"""Raised when the files of a pack change; part of its folder's name, so that a pack of another
release is neither read nor in the way."""

INFO = "pack.json"
PIXELS = "pixels.npy"
TABLE_FILES = {"images": "images.parquet", "unreadable": "unreadable.parquet"}

_NAMED_PROBLEMS = 10
_BLOCK = 1024


@dataclass(frozen=True)
class PackInfo:
    """The contents of `pack.json`."""

    format: int
    dataset: str
    fingerprint: str
    images: int
    source: str
    files: Mapping[str, str] = field(default_factory=dict)
    """Digest of each of the other files."""


@dataclass(frozen=True)
class Pack:
    """An opened pack. Pixels are mapped from the file, so processes of a node share them."""

    folder: Path
    info: PackInfo
    pixels: npt.NDArray[np.uint8]
    """Shape (n, 32, 32, 3), uint8, read-only."""

    images: pa.Table
    """Table `images`, one row an image."""

    unreadable_files: pa.Table = field(default_factory=tables.TABLES["unreadable"].empty)
    """Table `unreadable`, one row a file that was left out."""

    def __reduce__(self) -> tuple[Callable[[Path], Pack], tuple[Path]]:
        """A pack travels to other processes as its folder: the pixels are never copied."""
        return open_pack, (self.folder,)

    @cached_property
    def labels(self) -> npt.NDArray[np.int8]:
        """Shape (n,), int8: 0 FAKE, 1 REAL."""
        return np.asarray(_numbers(self.images["label"]), np.int8)

    def rows(self, split: str) -> npt.NDArray[np.int64]:
        """Rows of a published split, ascending."""
        codes, names = self._words("split")
        return np.flatnonzero((names == split)[codes])

    def words(self, column: str, rows: npt.NDArray[np.int64]) -> list[str | None]:
        """A text column at some rows."""
        codes, names = self._words(column)
        return list(names[codes[rows]])

    def ranks(self, column: str) -> npt.NDArray[np.int64]:
        """A text column as places in its sorted words, shape (n,); 0 where it says nothing."""
        codes, names = self._words(column)
        known = names[:-1].astype(str)
        places = np.append(np.searchsorted(np.sort(known), known) + 1, 0)
        return np.asarray(places[codes], np.int64)

    def duplicates(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Whether each of some rows has the pixels of an earlier image."""
        earlier = _numbers(self.images["duplicate_of"])
        return np.asarray(earlier[rows] >= 0, np.bool_)

    def unreadable(self, split: str) -> int:
        """Images of a published split that could not be read."""
        splits: list[str] = self.unreadable_files["split"].to_pylist()
        return splits.count(split)

    def _words(self, column: str) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.object_]]:
        """A text column as places in a list of words, the last of which is null."""
        encoded = self.images[column].unify_dictionaries().combine_chunks()
        names = np.asarray([*encoded.dictionary.to_pylist(), None], object)
        return np.asarray(_numbers(encoded.indices), np.int32), names


def open_pack(folder: Path) -> Pack:
    """Open a pack; the pixels are mapped, not read.

    Raises:
        InputError: the folder holds no whole pack of this format.
    """
    try:
        content = json.loads((folder / INFO).read_text())
        if content.get("format") != FORMAT:
            refuse(
                folder,
                f"pack format {content.get('format')}, this release reads {FORMAT}; delete it",
            )
        info = PackInfo(**content)
        pixels = np.load(folder / PIXELS, mmap_mode="r")
        images, left_out = (
            tables.decode(name, (folder / file).read_bytes()) for name, file in TABLE_FILES.items()
        )
    except (OSError, EOFError, ValueError, TypeError, AttributeError) as error:
        refuse(folder, f"not a whole pack ({error}); delete it and pack again")
    if not len(pixels) == len(images) == info.images:
        refuse(folder, "pixels and images differ in number; delete it and pack again")
    return Pack(folder, info, pixels, images, left_out)


def _numbers(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[Any]:
    """A column of whole numbers, −1 where one is missing; Arrow's way to numpy imports pandas."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not len(whole):
        return np.empty(0, str(whole.type))
    valid, content = whole.buffers()
    start, stop = whole.offset, whole.offset + len(whole)
    values = np.frombuffer(content, str(whole.type))[start:stop]
    if not whole.null_count:
        return values
    bits = np.unpackbits(np.frombuffer(valid, np.uint8), bitorder="little")[start:stop]
    return np.where(bits == 1, values, -1)


def write_pack(
    packs: Path,
    dataset: str,
    source: str,
    raw_images: Iterable[RawImage],
    *,
    trains: bool,
    advance: decode.Advance = decode.unwatched,
    workers: int | None = None,
    resample: str | None = None,
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
        resample: filter by which images of any size become 32×32, those that cannot be read being
            listed; null wants 32×32 exactly and refuses images that cannot be used.

    Raises:
        InputError: images that cannot be used, no image, or one label only.
    """
    described: list[RawImage] = []

    def blobs() -> Iterator[bytes]:
        for image in raw_images:
            described.append(image._replace(blob=b""))
            yield image.blob

    chunks = list(decode.decode_all(blobs(), advance, workers, resample))
    problems = [problem for chunk in chunks for problem in chunk.problems]
    readable = [i for i, problem in enumerate(problems) if problem is None]
    if resample is None or not readable:
        _refuse_problems(source, described, problems)
    _refuse_content(source, [described[i] for i in readable], trains=trains)
    digests = [digest for chunk in chunks for digest in chunk.digests]
    order = sorted(readable, key=lambda i: _sort_key(described[i], digests[i]))
    blocks = _blocks([chunk.pixels for chunk in chunks], order)
    left_out = _unreadable_table(described, problems)
    images = _images_table([described[i] for i in order], [digests[i] for i in order])
    fingerprint = fingerprint_of(images, [digests[i] for i in order])
    info = PackInfo(FORMAT, dataset, fingerprint, len(images), source)
    return store_pack(packs, info, blocks, images, left_out)


def store_pack(
    packs: Path,
    info: PackInfo,
    blocks: Iterable[bytes | memoryview],
    images: pa.Table,
    unreadable_files: pa.Table,
) -> Pack:
    """Write a pack below `packs`, whole or not at all, or open the equal one found there.

    Args:
        packs: folder that holds packs.
        info: what `pack.json` says.
        blocks: the pixels of all images, one stretch after another.
        images: table `images`, one row an image.
        unreadable_files: table `unreadable`.

    Raises:
        InputError: the folder cannot be written.
    """
    folder = packs / folder_name(info, unreadable_files)
    if not folder.exists():
        _write_folder(folder, info, blocks, {"images": images, "unreadable": unreadable_files})
    return open_pack(folder)


def file_stem(dataset: str) -> str:
    """A data set's name as part of a file's; names hold no dot before their steps."""
    return dataset.replace("/", ".")


def folder_name(info: PackInfo, unreadable_files: pa.Table) -> str:
    """Sets that differ in what could not be read alone are packs apart."""
    name = f"{file_stem(info.dataset)}-{info.fingerprint}-v{FORMAT}"
    if not len(unreadable_files):
        return name
    rows = json.dumps(unreadable_files.to_pylist(), sort_keys=True)
    return f"{name}-{hashlib.sha256(rows.encode()).hexdigest()[:8]}"


def _write_folder(
    folder: Path,
    info: PackInfo,
    blocks: Iterable[bytes | memoryview],
    contents: Mapping[str, pa.Table],
) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".packing-", dir=folder.parent))
    except OSError as error:
        refuse(folder.parent, f"cannot be written ({error.strerror}); set CIFAKE_CACHE")
    try:
        files = {PIXELS: _write_pixels(aside / PIXELS, info.images, blocks)}
        for name, table in contents.items():
            content = tables.encode(name, table)
            (aside / TABLE_FILES[name]).write_bytes(content)
            files[TABLE_FILES[name]] = digest([content])
        whole = replace(info, files=files)
        (aside / INFO).write_text(json.dumps(asdict(whole), indent=2) + "\n")
        aside.rename(folder)
    except OSError as error:
        if not folder.exists():
            refuse(folder, f"cannot be written ({error.strerror}); free space or set CIFAKE_CACHE")
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write_pixels(path: Path, images: int, blocks: Iterable[bytes | memoryview]) -> str:
    """Write numpy's file of an array that is never whole in memory, and return its digest."""
    shape = (images, *decode.PIXELS_SHAPE)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    written = 0
    with path.open("wb") as file:

        def kept() -> Iterator[bytes | memoryview]:
            nonlocal written
            file.write(header.getvalue())
            yield header.getvalue()
            for block in blocks:
                written += file.write(block)
                yield block

        found = digest(kept())
    if written != math.prod(shape):
        raise ValueError(f"{written:,} bytes of pixels, not {math.prod(shape):,}")
    return found


def _blocks(chunks: Iterable[npt.NDArray[np.uint8]], order: list[int]) -> Iterator[bytes]:
    """The pixels of the images at some places of all chunks, in stretches.

    A second array of all pixels would cost more than all the copies: the system hands out its
    memory page by page.
    """
    size = math.prod(decode.PIXELS_SHAPE)
    images = [
        whole[start : start + size]
        for chunk in chunks
        for whole in [chunk.data.cast("B")]
        for start in range(0, len(whole), size)
    ]
    for start in range(0, len(order), _BLOCK):
        yield b"".join([images[place] for place in order[start : start + _BLOCK]])


def _sort_key(image: RawImage, shown: bytes) -> tuple[object, ...]:
    classes = (image.content_class or "", image.coarse_class or "", image.generator or "")
    whence = (image.file_name or "", image.name)
    return (SPLITS.index(image.split), image.label, *classes, shown, *whence)


def fingerprint_of(images: pa.Table, digests: Iterable[bytes]) -> str:
    """Sixteen hexadecimal digits over what every image shows and says, in their order.

    Args:
        images: table `images`.
        digests: of the pixels of each, as `decode.digests_of` gives them.
    """
    whole = hashlib.sha256()
    columns = ("split", "label", "content_class", "coarse_class", "generator")
    told = zip(*(images[name].to_pylist() for name in columns), strict=True)
    for (split, label, content, coarse, generator), shown in zip(told, digests, strict=True):
        words = f"{content or ''}|{coarse or ''}|{generator or ''}"
        whole.update(f"{SPLITS.index(split)}|{label}|{words}|".encode())
        whole.update(shown)
    return whole.hexdigest()[:16]


def digest(parts: Iterable[bytes | memoryview]) -> str:
    """What tells a file of a pack from any other: BLAKE2b, 16 bytes.

    Args:
        parts: its content.
    """
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        found.update(part)
    return found.hexdigest()


def _images_table(images: list[RawImage], digests: list[bytes]) -> pa.Table:
    first: dict[bytes, int] = {}
    for row, digest in enumerate(digests):
        first.setdefault(digest, row)
    rows = range(len(images))
    columns = {
        "image_id": rows,
        "duplicate_of": [
            None if first[digest] == row else first[digest]
            for row, digest in zip(rows, digests, strict=True)
        ],
    }
    told = ("split", "label", "content_class", "coarse_class", "generator", "file_name")
    for name in told:
        columns[name] = [getattr(image, name) for image in images]
    return tables.TABLES["images"].from_columns(columns)


def _unreadable_table(images: list[RawImage], problems: list[str | None]) -> pa.Table:
    """In the order of names, so that a folder and an archive give the same table."""
    rows = [
        {"file": image.name, "split": image.split, "label": image.label, "problem": problem}
        for image, problem in zip(images, problems, strict=True)
        if problem is not None
    ]
    return tables.TABLES["unreadable"].from_rows(sorted(rows, key=lambda row: str(row["file"])))


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
        refuse(source, "holds no images; expected image files, or Hugging Face parquet")
    if not trains:
        return
    found = {image.label for image in images if image.split == "train"}
    missing = [name for name, label in LABELS.items() if label not in found]
    if missing:
        refuse(source, f"no training images labelled {' or '.join(missing)}; both are needed")

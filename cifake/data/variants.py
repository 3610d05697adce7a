"""A pack with changed pixels, made from another: `cifake@jpeg=50` from `cifake`.

What is known of each image, its copies and the files that could not be read are those of the
original, row by row.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import joblib
import numpy as np
import numpy.typing as npt

from cifake.data import corruptions
from cifake.data.decode import Advance, digests_of, unwatched
from cifake.data.names import Name
from cifake.data.pack import FORMAT, Pack, PackInfo, fingerprint_of, store_pack

_CHUNK = 1024
_CHUNKS_WORTH_A_POOL = 8


def derive(
    packs: Path,
    original: Pack,
    name: Name,
    advance: Advance = unwatched,
    workers: int | None = None,
) -> Pack:
    """Apply the steps of a name to every image of a pack and write the result below `packs`.

    Args:
        packs: folder that holds packs.
        original: the pack of `name.packed`.
        name: of the variant; has steps.
        advance: called with the number of images changed since the last call.
        workers: processes; by default one a core.

    Raises:
        InputError: the folder cannot be written.
    """
    pixels = np.empty_like(original.pixels, subok=False)
    start = 0
    for chunk in _changed(original.pixels, name.changes, workers):
        pixels[start : start + len(chunk)] = chunk
        start += len(chunk)
        advance(len(chunk))
    fingerprint = fingerprint_of(original.images, digests_of(pixels))
    info = PackInfo(FORMAT, str(name), fingerprint, len(pixels), original.info.source)
    return store_pack(packs, info, [pixels.data], original.images, original.unreadable_files)


def _changed(
    pixels: npt.NDArray[np.uint8], steps: tuple[tuple[str, float], ...], workers: int | None
) -> Iterator[npt.NDArray[np.uint8]]:
    starts = range(0, len(pixels), _CHUNK)
    workers = workers or joblib.cpu_count()
    if len(starts) < _CHUNKS_WORTH_A_POOL:
        workers = 1
    pool = joblib.Parallel(workers, return_as="generator", pre_dispatch="4*n_jobs")
    yield from pool(
        joblib.delayed(corruptions.apply_steps)(np.asarray(pixels[s : s + _CHUNK]), steps)
        for s in starts
    )

"""Which data sets there are, and how each is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cifake.data import cifake, cifar100, demo
from cifake.data.raw import RawImage


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set as the specification names it."""

    description: str
    """One sentence for `cifake data list`."""

    licence: str
    """Terms of use, and whom to cite."""

    read: Callable[[Path], Iterator[RawImage]]
    """Yields the images of a source."""

    embedded: bool = False
    """Made by this package: needs no source."""

    trains: bool = True
    """Has training images of both labels; otherwise it can only be evaluated."""

    file_names: tuple[str, ...] = ()
    """Names by which a source is found inside a folder of data sets."""

    published: str
    """Content fingerprint of the set as published."""

    published_unnamed: str | None = None
    """Content fingerprint of the published images where no file names state their classes."""


DATASETS: dict[str, Dataset] = {
    "cifake": Dataset(
        description="60,000 CIFAR-10 photographs and 60,000 Stable Diffusion images, 32×32",
        licence="MIT; cite Krizhevsky & Hinton 2009 and Bird & Lotfi 2024",
        read=cifake.read,
        published="b2864af29f77a023",
        published_unnamed="89057031956b3c16",
        file_names=("cifake", "cifake.tar.xz", "cifake.tar.gz", "cifake.tar", "cifake.zip"),
    ),
    "cifar100": Dataset(
        description="the 10,000 CIFAR-100 test photographs, all REAL, for transfer",
        licence="cite Krizhevsky 2009",
        read=cifar100.read,
        published="77e4ed22ff5fe5d0",
        trains=False,
        file_names=("cifar100", "cifar100-test.parquet"),
    ),
    "demo": Dataset(
        description="5,000 patches of two photographs, real and rebuilt: a stand-in for trying out",
        licence="photographs by danielbuechele and vultilion, CC BY 2.0, from scikit-learn",
        read=demo.read,
        published="96646edd3ebcff2d",
        embedded=True,
    ),
}

"""Which data sets there are, how each is read, and what a name of one stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cifake.data import cifake, cifar100, demo, folders
from cifake.data.archives import usual_names
from cifake.data.names import Name, parse_name
from cifake.data.raw import RawImage
from cifake.errors import refuse


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
    """Can be trained on; otherwise it can only be evaluated."""

    any_size: bool = False
    """One of any number of sets of images of any size: it may lack training images, and what
    cannot be read is listed. Otherwise images must be 32×32, and one that cannot be read refuses
    the set."""

    file_names: tuple[str, ...] = ()
    """Names by which a source is found inside a folder of data sets."""

    published: str | None
    """Content fingerprint of the set as published; null where none is."""

    published_unnamed: str | None = None
    """Content fingerprint of the published images where no file names state their classes."""


DATASETS: dict[str, Dataset] = {
    "cifake": Dataset(
        description="60,000 CIFAR-10 photographs and 60,000 Stable Diffusion images, 32×32",
        licence="MIT; cite Krizhevsky & Hinton 2009 and Bird & Lotfi 2024",
        read=cifake.read,
        published="b2864af29f77a023",
        published_unnamed="89057031956b3c16",
        file_names=usual_names("cifake"),
    ),
    "cifar100": Dataset(
        description="the 10,000 CIFAR-100 test photographs, all REAL, for transfer",
        licence="cite Krizhevsky 2009",
        read=cifar100.read,
        published="77e4ed22ff5fe5d0",
        trains=False,
        file_names=(
            "cifar100",
            "cifar100-test.parquet",
            "cifar-100-python",
            "cifar-100-python.tar.gz",
        ),
    ),
    "generators": Dataset(
        description="fakes of ten diffusion models and CIFAR-10 photographs, one encoder, 32×32",
        licence="MIT or WTFPL, by source; photographs: cite Krizhevsky 2009",
        read=folders.read,
        published="dd5774ee32f0634a",
        trains=False,
        file_names=usual_names("generators"),
    ),
    "folders": Dataset(
        description="any images in folders real and fake, resized; several sets as folders/WORD",
        licence="that of your images",
        read=folders.read,
        published=None,
        any_size=True,
        file_names=usual_names("folders"),
    ),
    "demo": Dataset(
        description="5,000 patches of two photographs, real and rebuilt: a stand-in for trying out",
        licence="photographs by danielbuechele and vultilion, CC BY 2.0, from scikit-learn",
        read=demo.read,
        published="96646edd3ebcff2d",
        embedded=True,
    ),
}


_ANY_SIZE = tuple(family for family, dataset in DATASETS.items() if dataset.any_size)


def parse(name: str) -> Name:
    """Take the name of a data set or of a variant of one apart.

    Raises:
        ValueError: no such data set or step, with what would be right.
    """
    return parse_name(name, DATASETS, _ANY_SIZE)


def look_up(where: str, name: str) -> Name:
    """As `parse`, for input named by `where`.

    Raises:
        InputError: no such data set or step, with what would be right.
    """
    try:
        return parse(name)
    except ValueError as error:
        return refuse(where, str(error), value=name)


def dataset(name: str | Name) -> Dataset:
    """What a name stands for: `cifake`, `folders/kaggle`, `cifake@jpeg=50`.

    Raises:
        ValueError: no such data set or step, with what would be right.
    """
    name = parse(name) if isinstance(name, str) else name
    found = DATASETS[name.family]
    if name.word is not None:
        found = replace(found, file_names=usual_names(name.word))
    return found if str(name) == name.family else replace(found, published=None)

"""Which images a command is about: the data sets that its options name, and a split of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cifake.config import DataSettings
from cifake.data.catalogue import look_up, parse
from cifake.data.locate import parse_sources
from cifake.data.pack import Pack
from cifake.data.subsets import split_rows
from cifake.errors import refuse

SPLITS = ("validation", "train", "test")


@dataclass(frozen=True)
class Selection:
    """Data sets to look at, and where those that were given lie."""

    names: tuple[str, ...]
    sources: Mapping[str, Path]


def select(data: Sequence[str], on: Sequence[str], default: str) -> Selection:
    """Read the options `--data` and `--on`.

    `--data` says where data lie: `NAME=PATH`, or a bare path that holds the default set or a folder
    of sets. It may also be a set's name alone, which is then looked for as if nothing were said of
    where it lies; a folder of that name is given as `./NAME`. Without `--on` the sets that `--data`
    names are chosen; if it names none, the default.

    Args:
        data: every `--data`, in order.
        on: every `--on`, in order.
        default: the set that is meant where none is named.

    Raises:
        InputError: an unknown name, a path that does not exist, or a set given twice.
    """
    located, named = [], []
    for option in data:
        name = option.partition("=")[0]
        if _is_name(option):
            named.append(option)
        else:
            located.append(option)
            named += [name] if _is_name(name) else []
    names = [str(look_up("--on", name)) for name in on] or named or [default]
    canonical = (str(parse(name)) for name in names)
    return Selection(tuple(dict.fromkeys(canonical)), parse_sources(located, default))


def _is_name(text: str) -> bool:
    """Whether a data set, or a variant of one, is called so."""
    try:
        parse(text)
    except ValueError:
        return False
    return True


def rows_of(
    pack: Pack, name: str, split: str, trained_on: DataSettings | None
) -> npt.NDArray[np.int64]:
    """The rows of a split, ascending.

    `validation` is what training set aside, and `train` what it learned from. Of other data sets,
    and for weights that do not say what they were trained on, `train` is the published split.

    Args:
        pack: the opened data set.
        name: its name.
        split: `validation`, `train` or `test`.
        trained_on: what the model was trained on, where that is known.

    Raises:
        InputError: an unknown split, one without images, or other training images than the run's.
    """
    if split not in SPLITS:
        refuse("--split", f"must be one of {', '.join(SPLITS)}", value=split)
    if trained_on is not None and trained_on.train == name and split != "test":
        return _as_trained(pack, split, trained_on)
    rows = pack.rows(split)
    if not len(rows):
        known = " and ".join(other for other in SPLITS if len(pack.rows(other)))
        refuse("--split", f"{name} has no such images of its own; it has {known}", value=split)
    return rows


def _as_trained(pack: Pack, split: str, trained_on: DataSettings) -> npt.NDArray[np.int64]:
    if trained_on.fingerprint not in ("", pack.info.fingerprint):
        refuse(
            f"data set {trained_on.train}",
            f"is not the one of the training, {trained_on.fingerprint}; its {split} images cannot "
            "be told",
            field="fingerprint",
            value=pack.info.fingerprint,
        )
    parts = split_rows(pack, trained_on, where="training")
    rows = parts.validation if split == "validation" else parts.train
    if not len(rows):
        refuse("--split", "training set no validation images aside", value=split)
    return rows

"""Whether a pack holds what a sweep wants of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cifake.data.pack import Pack
from cifake.data.raw import LABELS
from cifake.errors import InputError, Mistake


def check_uses(train: Pack, evaluated: Sequence[Pack], where: str) -> None:
    """The training set holds training images of both labels, and every other set test images.

    Args:
        train: the training set.
        evaluated: sets whose test split is evaluated.
        where: the specification, for messages.

    Raises:
        InputError: every set that lacks what is wanted of it.
    """
    rows = train.rows("train")
    mistakes = []
    missing = [name for name, label in LABELS.items() if not np.any(train.labels[rows] == label)]
    if missing:
        problem = f"holds no training images labelled {' or '.join(missing)}; both are needed"
        mistakes.append(_mistake(where, "data.train", train, problem))
    for pack in evaluated:
        if not len(pack.rows("test")):
            problem = "holds no test images; evaluate sets that do, or none with []"
            mistakes.append(_mistake(where, "data.evaluate", pack, problem))
    if mistakes:
        raise InputError(mistakes)


def _mistake(where: str, field: str, pack: Pack, problem: str) -> Mistake:
    text = f"{problem} (read from {pack.info.source})"
    return Mistake(where=where, field=field, value=pack.info.dataset, problem=text)

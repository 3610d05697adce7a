"""Which configs are compared with which, and over how many comparisons p-values are corrected."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from sweeps.spec import Compare

ALPHA = 0.05
"""Level of significance, of a whole family."""

EVERY_PAIR_UP_TO = 20
"""Configs up to which every pair of them is compared, where there is no baseline."""

EVERY_PAIR = "every pair of"
"""How the wording of a family without a reference begins."""

Label = Mapping[str, Any]


@dataclass(frozen=True)
class Family:
    """The comparisons of some configs on one metric at one length."""

    pairs: Sequence[tuple[int, int]]
    """Places of a and b; where there is a reference, it is b."""

    size: int
    """Comparisons that p-values are corrected for, at least as many as there are pairs."""

    wording: str


def family(labels: Sequence[Label], compare: Compare, best: int = 0) -> Family:
    """Which of some configs are compared.

    Where every pair would be too many and there is no baseline, each is compared with the best
    alone. The best was chosen among all by runs of the same seeds, even where other images chose
    it, so that p-values are corrected for every pair all the same.

    Args:
        labels: of the configs, scientific parameters by path.
        compare: the specification's.
        best: place of the best on validation; not looked at where every pair is compared.
    """
    references = [place for place, label in enumerate(labels) if compare.is_baseline(label)]
    if references and len(references) < len(labels):
        pairs = list(_with_nearest(labels, references))
        values = ", ".join(f"{path} = {_text(v)}" for path, v in compare.baseline.items())
        others = len(labels) - len(references)
        configs = "1 config" if others == 1 else f"each of {others} configs"
        return Family(pairs, len(pairs), f"{configs} with the baseline, {values}")
    every = len(labels) * (len(labels) - 1) // 2
    if len(labels) <= EVERY_PAIR_UP_TO:
        pairs = list(combinations(range(len(labels)), 2))
        return Family(pairs, every, f"{EVERY_PAIR} {len(labels)} configs")
    pairs = [(place, best) for place in range(len(labels)) if place != best]
    wording = (
        f"each of {len(pairs)} configs with the best on validation, corrected for every pair, "
        "since all of them were candidates"
    )
    return Family(pairs, every, wording)


def _with_nearest(labels: Sequence[Label], references: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Each other config with the references that it has most values in common with."""
    for place, label in enumerate(labels):
        if place in references:
            continue
        common = {each: _common(label, labels[each]) for each in references}
        nearest = max(common.values())
        yield from ((place, each) for each in references if common[each] == nearest)


def _common(label: Label, other: Label) -> int:
    return sum(_text(value) == _text(other.get(path)) for path, value in label.items())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)

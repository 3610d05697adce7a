"""What so many seeds can tell apart at all, said before anything is trained."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sweeps.families import ALPHA, Family, family
from sweeps.spec import Compare, Variant
from sweeps.statistics import EXACT_UP_TO, seeds_to_reach, smallest_p
from sweeps.words import counted


def notes(cells: Iterable[tuple[Variant, int]], compare: Compare) -> Iterator[str]:
    """A note where no difference could be significant, each config at its longest length.

    Args:
        cells: variants and seeds.
        compare: what is to be compared with what.
    """
    lengths: dict[str, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    labels: dict[str, Mapping[str, Any]] = {}
    for variant, seed in cells:
        lengths[variant.label_json][variant.epochs].add(seed)
        labels[variant.label_json] = variant.label
    seeds = {label: found[max(found)] for label, found in lengths.items()}
    if len(seeds) > 1:
        compared = family([labels[label] for label in seeds], compare)
        yield from limit(compared, min(map(len, seeds.values())), len(seeds))


def fit_seeds(seeds: int, least: int) -> str:
    """How many seeds can show what so many cannot.

    Args:
        seeds: that there are.
        least: as `seeds_to_reach` gives it: more than there are, unless flips are drawn of so many
            seeds, whose least p is larger than that of fewer.
    """
    return str(least) if least > seeds else f"{least} to {EXACT_UP_TO}"


def unnamed_notes(configs: int, seeds: int) -> Iterator[str]:
    """The same of so many configs that are not known yet, of which every pair is compared."""
    if configs > 1:
        compared = family([{"config": number} for number in range(configs)], Compare())
        yield from limit(compared, seeds, configs)


def limit(compared: Family, pairs: int, configs: int) -> Iterator[str]:
    """A note if a family of comparisons is too large for so many pairs of runs.

    Args:
        compared: the family.
        pairs: that each comparison has.
        configs: that are compared.
    """
    reached = compared.size * smallest_p(pairs)
    if reached < ALPHA:
        return
    needed = seeds_to_reach(ALPHA, compared.size)
    seeds = counted(pairs, "seed")
    over = way = ""
    if compared.size > 1:
        over = f" after Holm's correction over {compared.size:,} comparisons ({compared.wording})"
        fewest = seeds_to_reach(ALPHA, configs - 1)
        if fewest < needed:
            way = f", or {fewest} where each config is compared with a compare.baseline alone"
    yield (
        f"{seeds}: no difference can be significant, as the least p is {min(1.0, reached):.2g}"
        f"{over}; {fit_seeds(pairs, needed)} seeds can show one{way}"
    )

"""The grammar of data-set names: `SET[/WORD][@STEP[,STEP…]]`, each with one canonical spelling.

A step is `KIND` or `KIND=VALUE`. Names stand in tables and inside keys `epoch:dataset:split`, so
none holds a colon.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal

from cifake.data.corruptions import CORRUPTIONS, Corruption
from cifake.data.fit import DEFAULT_FILTER, FILTERS
from cifake.errors import suggest

MAX_STEPS = 8
"""A chain of more steps is a slip, and the name of its pack would grow too long."""

FILTER = "filter"
"""The step that is taken when images are packed."""

_WORD = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_NUMBER = re.compile(r"\d{1,6}(?:\.\d{1,4})?")


@dataclass(frozen=True)
class Step:
    """One change of the pixels."""

    kind: str
    value: str = ""
    """The number as it is spelt in names; empty where the kind takes none."""

    def __str__(self) -> str:
        return f"{self.kind}={self.value}" if self.value else self.kind


@dataclass(frozen=True)
class Name:
    """A data-set name, taken apart. Its text is the canonical spelling."""

    family: str
    """Name in the catalogue."""

    word: str | None = None
    """Which of several sets of a family."""

    resample: str = DEFAULT_FILTER
    """Filter by which images of any size are packed."""

    steps: tuple[Step, ...] = ()
    """Changes of the packed pixels, in order."""

    @property
    def source(self) -> str:
        """The name under which its source is given."""
        return self.family if self.word is None else f"{self.family}/{self.word}"

    @property
    def packed(self) -> str:
        """The name of the pack whose pixels are changed."""
        usual = self.resample == DEFAULT_FILTER
        return self.source if usual else f"{self.source}@{FILTER}={self.resample}"

    @property
    def changes(self) -> tuple[tuple[str, float], ...]:
        """The steps as kind and value."""
        return tuple((step.kind, float(step.value or 0)) for step in self.steps)

    def __str__(self) -> str:
        separator = "," if "@" in self.packed else "@"
        steps = ",".join(map(str, self.steps))
        return f"{self.packed}{separator}{steps}" if steps else self.packed


def parse_name(text: str, families: Collection[str], open_families: Collection[str]) -> Name:
    """Take a name apart.

    Args:
        text: the name as written.
        families: names of the catalogue.
        open_families: those of them that stand for any number of sets, as `folders/WORD`, with
            images of any size.

    Raises:
        ValueError: every problem of the name, with what would be right.
    """
    source, at, chain = text.partition("@")
    family, slash, word = source.partition("/")
    problems = []
    if family not in families or (slash and family not in open_families):
        valid = [*families, *(f"{name}/WORD" for name in open_families)]
        hint = _quoting_hint(text) or suggest(source, valid)
        problems.append(f"unknown data set {source!r}; {hint}")
    elif slash and not _WORD.fullmatch(word):
        problems.append(f"{word!r} after / must be of lower-case letters, digits, - and _")
    texts = chain.split(",") if at else []
    if len(texts) > MAX_STEPS:
        problems.append(f"{len(texts)} steps; at most {MAX_STEPS} are taken")
    resample, steps = DEFAULT_FILTER, []
    for index, each in enumerate(texts):
        try:
            if each.partition("=")[0] == FILTER:
                resample = _filter(each, index, can_filter=family in open_families)
            else:
                steps.append(_step(each))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("; ".join(problems))
    return Name(family, word if slash else None, resample, tuple(steps))


def grammar() -> list[tuple[str, str]]:
    """Every step as it is written, with what it does."""
    steps = [
        (_form(kind, corruption), corruption.description + _range(corruption))
        for kind, corruption in CORRUPTIONS.items()
    ]
    filters = f"how folder sets become 32×32: {', '.join(FILTERS)}"
    return [*steps, (f"{FILTER}=NAME", filters)]


def _step(text: str) -> Step:
    kind, equals, value = text.partition("=")
    if kind not in CORRUPTIONS:
        raise ValueError(f"unknown step {text!r}; {suggest(kind, [*CORRUPTIONS, FILTER])}")
    corruption = CORRUPTIONS[kind]
    if not corruption.value:
        if equals:
            raise ValueError(f"step {text!r} takes no value; write {kind}")
        return Step(kind)
    if not _NUMBER.fullmatch(value):
        form = "a whole number" if corruption.whole else "a number of at most 4 decimals"
        raise ValueError(f"step {text!r} must be {_form(kind, corruption)} with {form}")
    number = Decimal(value)
    if not corruption.low <= number <= corruption.high or (corruption.whole and number % 1):
        whole = "a whole number " if corruption.whole else ""
        raise ValueError(
            f"step {text!r}: {corruption.value} must be {whole}from {corruption.low:g} to "
            f"{corruption.high:g}"
        )
    return Step(kind, f"{number.normalize():f}")


def _filter(text: str, index: int, *, can_filter: bool) -> str:
    name = text.partition("=")[2]
    if not can_filter:
        raise ValueError(f"step {text!r} is for folder sets; this set is 32×32 already")
    if name not in FILTERS:
        raise ValueError(f"step {text!r}: unknown filter; {suggest(name, FILTERS)}")
    if index:
        raise ValueError(f"step {text!r} is taken when images are packed, so it must come first")
    return name


def _quoting_hint(text: str) -> str | None:
    """YAML splits an unquoted name at the comma of its steps, and what is left is a step."""
    if text.partition("=")[0] not in {*CORRUPTIONS, FILTER}:
        return None
    return 'it is a step; in a YAML list write a name with commas in quotes: "NAME@STEP,STEP"'


def _form(kind: str, corruption: Corruption) -> str:
    return f"{kind}={corruption.value}" if corruption.value else kind


def _range(corruption: Corruption) -> str:
    return f", {corruption.low:g} to {corruption.high:g}" if corruption.value else ""

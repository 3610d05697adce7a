"""The YAML specification as validated types, and the cells that it asks for."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from cifake.config import Config, Settings
from cifake.data.choice import DataChoice
from cifake.models import catalogue
from cifake.parameters import EPOCHS, make_config
from cifake.tables import SCORES

SEED = "seed"


class Resources(Settings):
    """What one stack needs."""

    cpus: float = Field(1, gt=0, le=1024)
    """Processor cores."""

    gpus: float = Field(0, ge=0, le=64)
    """Graphics processors, or a share of one."""


class Scheduler(Settings):
    """Which trials of a search are stopped early."""

    name: Literal["asha"] = "asha"
    """Asynchronous successive halving (Li et al. 2020)."""

    grace_epochs: int = Field(1, ge=1)
    """Epochs that every trial is given."""


class Dimension(Settings):
    """One hyperparameter of a search: exactly one kind of range."""

    uniform: list[float] | None = Field(None, min_length=2, max_length=2)
    """Low and high."""

    log_uniform: list[float] | None = Field(None, min_length=2, max_length=2)
    """Low and high, drawn evenly on a log scale."""

    int_uniform: list[int] | None = Field(None, min_length=2, max_length=2)
    """Low and high, whole numbers, both included."""

    choice: list[Any] | None = Field(None, min_length=1)
    """Values to choose from."""

    when: dict[str, Any] = {}
    """The dimension exists only where these parameters have these values."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.kinds) != 1:
            raise ValueError("give exactly one of uniform, log_uniform, int_uniform, choice")
        bounds = self.uniform or self.log_uniform or self.int_uniform
        if bounds is not None and bounds[0] >= bounds[1]:
            raise ValueError("the low end must be below the high end")
        if self.log_uniform is not None and self.log_uniform[0] <= 0:
            raise ValueError("a log scale needs a low end above 0")
        return self

    @property
    def kinds(self) -> list[str]:
        """The kinds of range that are given."""
        names = ("uniform", "log_uniform", "int_uniform", "choice")
        return [name for name in names if getattr(self, name) is not None]

    @property
    def values(self) -> list[Any]:
        """The ends of the range, or every choice."""
        return list(getattr(self, self.kinds[0]))


class Search(Settings):
    """A search over hyperparameters with Optuna."""

    sampler: Literal["tpe", "random"] = "tpe"
    """What proposes the next values."""

    trials: int = Field(ge=1, le=1_000_000)
    """Proposals, each trained with every seed."""

    metric: str = "validation.auroc"
    """What is optimised: the mean over seeds of a validation score."""

    mode: Literal["max", "min"] = "max"
    """Which way is better."""

    seed: int = Field(0, ge=0)
    """Seed of the sampler."""

    scheduler: Scheduler | None = None
    """Early stopping."""

    space: dict[str, Dimension] = Field(min_length=1)
    """Ranges by parameter."""

    @field_validator("metric")
    @classmethod
    def _check_metric(cls, metric: str) -> str:
        split, _, score = metric.partition(".")
        if split != "validation" or score not in SCORES:
            raise ValueError(
                "must be validation.<score>, since the test split chooses nothing; "
                f"scores: {', '.join(SCORES)}"
            )
        return metric


class Shape(Settings):
    """The sections of a specification, before parameters are looked at."""

    name: str
    """Name of the sweep: lower-case letters, digits, - and _."""

    question: str = ""
    """What the sweep is to answer."""

    data: DataChoice = DataChoice()
    """Data to train on and to evaluate."""

    scientific: dict[str, Any] = {}
    """Parameters that are compared: every combination is trained."""

    nuisance: dict[str, Any] = {}
    """Parameters that are averaged over, the seed among them."""

    fixed: dict[str, Any] = {}
    """Parameters with one value."""

    resources: Resources = Resources()
    """What one stack needs."""

    search: Search | None = None
    """A search on top of, or instead of, the grid."""

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", name):
            raise ValueError("must be of lower-case letters, digits, - and _, 64 at most")
        return name


@dataclass(frozen=True)
class Variant:
    """One combination of scientific and nuisance values at one length, without the seed."""

    label: Mapping[str, Any]
    """Scientific parameters as the reader knows them."""

    nuisance: Mapping[str, Any]
    config: Config
    epochs: int

    @property
    def label_json(self) -> str:
        """The label as it stands in tables."""
        return json.dumps(dict(self.label), sort_keys=True)

    @property
    def nuisance_json(self) -> str:
        """The nuisance values as they stand in tables."""
        return json.dumps(dict(self.nuisance), sort_keys=True)


@dataclass(frozen=True)
class Spec:
    """A validated specification."""

    source: str
    """The file, for messages."""

    written: str
    """What was asked for, overrides included, as YAML."""

    name: str
    question: str
    data: DataChoice
    scientific: Mapping[str, list[Any]]
    nuisance: Mapping[str, list[Any]]
    fixed: Mapping[str, Any]
    seeds: list[int]
    resources: Resources
    search: Search | None

    @property
    def evaluate(self) -> list[str]:
        """Data sets whose test split is evaluated. A search looks at validation alone."""
        if self.search is not None:
            return []
        return [self.data.train] if self.data.evaluate is None else self.data.evaluate

    @property
    def datasets(self) -> list[str]:
        """Every data set that is needed."""
        return list(dict.fromkeys([self.data.train, *self.evaluate]))

    def variants(
        self, fingerprint: str, suggested: Mapping[str, Any] | None = None
    ) -> list[Variant]:
        """Every combination asked for, those that mean the same left out.

        Args:
            fingerprint: of the training data.
            suggested: values of a search that join the label.
        """
        suggested = suggested or {}
        unique: dict[tuple[str, str, int], Variant] = {}
        for scientific, nuisance in self._combinations():
            values = {**self.fixed, **scientific, **nuisance, **suggested}
            variant = self._variant(fingerprint, values, [*scientific, *suggested], [*nuisance])
            unique.setdefault((variant.label_json, variant.nuisance_json, variant.epochs), variant)
        return list(unique.values())

    def _variant(
        self, fingerprint: str, values: dict[str, Any], scientific: list[str], nuisance: list[str]
    ) -> Variant:
        epochs = catalogue.epochs_allowed(str(values.get("model", "base")), values[EPOCHS])
        config = make_config(self.data, {**values, EPOCHS: epochs}, fingerprint)
        resolved = config.flat() | {"model": values.get("model", config.model)}
        label = {path: resolved[path] for path in scientific if path != EPOCHS}
        return Variant(label, {path: resolved[path] for path in nuisance}, config, epochs)

    def _combinations(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        for first in product(self.scientific):
            for second in product(self.nuisance):
                yield first, second


def ordered_space(search: Search) -> list[tuple[str, Dimension]]:
    """The dimensions, each after those that its condition looks at.

    Raises:
        ValueError: conditions that depend on each other in a circle.
    """
    ordered: dict[str, Dimension] = {}
    left = dict(search.space)
    while left:
        ready = [path for path in left if not set(left[path].when) & set(left)]
        if not ready:
            raise ValueError(f"conditions of {', '.join(left)} depend on each other in a circle")
        for path in ready:
            ordered[path] = left.pop(path)
    return list(ordered.items())


def product(grid: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """Every combination of a grid's values."""
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))

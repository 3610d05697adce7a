"""The YAML specification as validated types, and the cells that it asks for."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from cifake.config import Config, Settings
from cifake.data.choice import DataChoice
from cifake.errors import suggest
from cifake.models import catalogue
from cifake.parameters import EPOCHS, HORIZON, make_config
from cifake.tables import COMPARABLE, SCORES, higher_is_better

SEED = "seed"


COSTS = ("train_seconds", "parameters")
"""What a search can optimise beside validation scores: training time and size of a run."""

METRICS = (*(f"validation.{score}" for score in SCORES), *COSTS)
"""All that a search can optimise."""


GPU_SHARES = 10_000
"""Parts of a GPU in which Ray counts shares of one."""


class Resources(Settings):
    """What one stack needs."""

    cpus: float = Field(1, gt=0, le=1024)
    """Processor cores."""

    gpus: float | None = Field(None, ge=0, le=64)
    """Graphics processors, or a share of one; null for none where the cluster has none, else for a
    share of one that holds the stack, by measurement. Ray counts shares in ten-thousandths, and
    more than one only whole."""

    width: int | None = Field(None, ge=1, le=10_000)
    """Seeds that are trained as one network, the last ones of a config with fewer. Null: as many as
    are fastest by measurement, so that the last bits of the numbers depend on the machine."""

    @field_validator("gpus")
    @classmethod
    def _countable(cls, gpus: float | None) -> float | None:
        if gpus is not None and (not gpus.is_integer() if gpus > 1 else 0 < gpus < 1 / GPU_SHARES):
            least = f"{1 / GPU_SHARES:g}"
            raise ValueError(f"Ray counts GPUs: give a whole number, or a share from {least} to 1")
        return gpus


class Scheduler(Settings):
    """Which trials of a search are stopped early, by the mean of its metric over seeds."""

    name: Literal["asha", "median", "hyperband"] = "asha"
    """Asynchronous successive halving (Li et al. 2020), the median of other trials at the same
    epoch (Golovin et al. 2017), or brackets of halving (Li et al. 2018)."""

    grace_epochs: int = Field(1, ge=1)
    """Epochs that every trial is given."""

    reduction_factor: int = Field(3, ge=2)
    """Of so many trials one goes on at each halving."""


class Confirm(Settings):
    """The last stage of a search: the best are trained with fresh seeds and evaluated on test."""

    top: int = Field(3, ge=1, le=1000)
    """How many of each study's proposals, by validation."""

    seeds: int | list[int] = 10
    """A number of seeds that the search did not use, or a list of such."""


class Reach(Settings):
    """A score that a search is to reach in the least training time."""

    metric: str = "validation.accuracy"
    """`validation.<score>`, the mean over seeds."""

    value: float
    """What it must be: at least so much, or at most where less is better."""

    @field_validator("metric")
    @classmethod
    def _check_metric(cls, metric: str) -> str:
        if metric not in METRICS or metric in COSTS:
            raise ValueError(
                "must be validation.<score>, since the test split chooses nothing; scores: "
                + ", ".join(SCORES)
            )
        return metric

    @property
    def mode(self) -> str:
        """Which way is better, `max` or `min`."""
        return "max" if higher_is_better(self.metric.partition(".")[2]) else "min"

    def short(self, score: float) -> float:
        """By how much a score falls short of it; 0 or less where it does not."""
        return self.value - score if self.mode == "max" else score - self.value


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

    def exists(self, values: Mapping[str, Any]) -> bool:
        """Whether its condition holds under the values of other parameters."""
        return all(values.get(path) == value for path, value in self.when.items())

    def holds(self, value: Any) -> bool:
        """Whether a value could have been drawn from it."""
        if self.choice is not None:
            kind = isinstance(value, bool)
            return any(value == each and isinstance(each, bool) == kind for each in self.choice)
        whole = self.int_uniform is None or isinstance(value, int)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and whole and bool(self.values[0] <= value <= self.values[1])

    @property
    def points(self) -> Sequence[Any] | None:
        """Every value that it can take; null for a range of real numbers."""
        if self.int_uniform is not None:
            return range(self.int_uniform[0], self.int_uniform[1] + 1)
        return self.choice

    @property
    def size(self) -> int | None:
        """How many values it can take; null for a range of real numbers."""
        if self.int_uniform is not None:
            return self.int_uniform[1] - self.int_uniform[0] + 1
        return None if self.choice is None else len(self.choice)

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

    sampler: Literal["tpe", "random", "cma_es", "gp", "nsga2", "grid"] = "tpe"
    """What proposes the next values."""

    trials: int | None = Field(None, ge=1, le=1_000_000)
    """Budget of each study: proposals, each trained with every seed."""

    hours: float | None = Field(None, gt=0)
    """Budget of each study: hours that it is worked on."""

    core_hours: float | None = Field(None, gt=0)
    """Budget of each study: hours times processor cores."""

    gpu_hours: float | None = Field(None, gt=0)
    """Budget of each study: hours times GPUs."""

    metric: list[str] = ["validation.auroc"]
    """What is optimised: means over seeds. One, or several for a front of the best trade-offs."""

    mode: list[Literal["max", "min"]] = ["max"]
    """Which way is better, for each metric."""

    seed: int = Field(0, ge=0)
    """Seed of the sampler."""

    reach: Reach | None = None
    """A score to be reached; what is optimised then is the training time that it takes."""

    scheduler: Scheduler | None = None
    """Early stopping."""

    confirm: Confirm | None = None
    """Train the best again with fresh seeds, since the best of many is so by luck in part."""

    space: dict[str, Dimension] = Field(min_length=1)
    """Ranges by parameter."""

    @field_validator("metric", "mode", mode="before")
    @classmethod
    def _several(cls, given: Any) -> Any:
        return [given] if isinstance(given, str) else given

    @field_validator("metric")
    @classmethod
    def _check_metric(cls, metrics: list[str]) -> list[str]:
        if not metrics or any(metric not in METRICS for metric in metrics):
            raise ValueError(
                "must be validation.<score>, since the test split chooses nothing, or a cost; "
                f"scores: {', '.join(SCORES)}; costs: {', '.join(COSTS)}"
            )
        if len(set(metrics)) < len(metrics):
            raise ValueError("names a metric twice; remove one")
        return metrics

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.metric) != len(self.mode):
            raise ValueError(
                f"{len(self.metric)} metric{'s' * (len(self.metric) > 1)} and {len(self.mode)} "
                "mode: give one mode, max or min, for each"
            )
        if self.reach is not None:
            self._check_reach()
        if len(self.metric) > 1 and self.scheduler is not None:
            raise ValueError("a scheduler compares by one metric; drop it, or the other metrics")
        if len(self.metric) > 1 and self.sampler == "cma_es":
            raise ValueError("cma_es optimises one metric; take nsga2, tpe or gp for several")
        if self.sampler != "grid" and not self.budget:
            raise ValueError("needs a budget: trials, hours, core_hours or gpu_hours")
        return self

    def _check_reach(self) -> None:
        given = {"metric", "mode"} & self.model_fields_set
        if given and (self.metric, self.mode) != (["train_seconds"], ["min"]):
            raise ValueError("reach is for the least train_seconds; remove metric and mode")
        if self.scheduler is not None:
            raise ValueError(
                "with reach, what takes longer than the best is stopped; drop scheduler"
            )
        if self.sampler == "cma_es":
            raise ValueError("cma_es knows nothing of a score to reach; take tpe or gp")
        object.__setattr__(self, "metric", ["train_seconds"])
        object.__setattr__(self, "mode", ["min"])

    @property
    def read(self) -> list[str]:
        """Every metric that is looked at."""
        return [*self.metric, *([] if self.reach is None else [self.reach.metric])]

    @property
    def watched(self) -> tuple[str, str]:
        """The metric that tells how far a trial is, with its mode."""
        return self.objectives[0] if self.reach is None else (self.reach.metric, self.reach.mode)

    @property
    def budget(self) -> dict[str, float]:
        """What may be spent on a study, by kind; the kinds that are not bounded are left out."""
        kinds = ("trials", "hours", "core_hours", "gpu_hours")
        return {kind: getattr(self, kind) for kind in kinds if getattr(self, kind) is not None}

    @property
    def objectives(self) -> list[tuple[str, str]]:
        """Every metric with its mode, the most important first."""
        return list(zip(self.metric, self.mode, strict=True))


class Compare(Settings):
    """What is compared, and with what."""

    metrics: list[str] = Field(["accuracy", "auroc"], min_length=1)
    """Scores of the `evaluations` table, the foremost first; each is a family of its own."""

    baseline: dict[str, Any] = {}
    """Each config is compared with the nearest of those that have these values of scientific
    parameters; empty: every pair is compared."""

    @field_validator("metrics", mode="before")
    @classmethod
    def _several(cls, given: Any) -> Any:
        return [given] if isinstance(given, str) else given

    @field_validator("metrics")
    @classmethod
    def _check_metrics(cls, metrics: list[str]) -> list[str]:
        problems = [
            f"{metric!r} is no metric; {suggest(metric, COMPARABLE)}"
            for metric in metrics
            if metric not in COMPARABLE
        ]
        if len(set(metrics)) < len(metrics):
            problems.append("names a metric twice; remove one")
        if problems:
            raise ValueError("; ".join(problems))
        return metrics

    @field_validator("baseline")
    @classmethod
    def _flat(cls, baseline: dict[str, Any]) -> dict[str, Any]:
        return flatten(baseline)

    def is_baseline(self, label: Mapping[str, Any]) -> bool:
        """Whether a config is one that others are compared with."""
        return bool(self.baseline) and all(
            label.get(path) == value for path, value in self.baseline.items()
        )


def name_problem(name: str) -> str | None:
    """What is wrong with the name of a sweep or a report, or null."""
    if re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", name):
        return None
    return "must be of lower-case letters, digits, - and _, 64 at most"


class Resolve(Settings):
    """Where `--until-resolved` adds seeds, and when it stops."""

    max_seeds: int = Field(30, ge=2, le=500)
    """The budget: seeds of a config, those of the first round included. Declared beforehand, since
    the chance of a false winner is spread over so many."""

    round: int | None = Field(None, ge=1, le=500)
    """Seeds that a round adds to each config that is undecided; null for as many as the first."""

    delta: float | None = Field(None, gt=0)
    """Smallest difference that matters, in units of the metric: configs that differ by less for
    sure are a tie, and resolved. Null: a tie ends with the budget."""


class Shape(Settings):
    """The sections of a specification, before parameters are looked at."""

    name: str
    """Name of the sweep: lower-case letters, digits, - and _."""

    question: str = ""
    """What the sweep is to answer."""

    data: DataChoice = DataChoice()
    """Data to train on and to evaluate."""

    scientific: list[dict[str, Any]] = Field([{}], min_length=1)
    """Parameters that are compared: every combination of a grid is trained. One grid, or a list of
    them where what is compared is no full product."""

    nuisance: dict[str, Any] = {}
    """Parameters that are averaged over, the seed among them."""

    fixed: dict[str, Any] = {}
    """Parameters with one value."""

    resources: Resources = Resources()
    """What one stack needs."""

    search: Search | None = None
    """A search on top of, or instead of, the grid."""

    compare: Compare = Compare()
    """What is compared, and with what."""

    resolve: Resolve | None = None
    """Where `--until-resolved` adds seeds, and when it stops."""

    @field_validator("scientific", mode="before")
    @classmethod
    def _grids(cls, given: Any) -> Any:
        if isinstance(given, dict):
            return [given]
        if isinstance(given, list) and given and all(isinstance(each, dict) for each in given):
            return given
        raise ValueError("must be a mapping, or a list of mappings")

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        problem = name_problem(name)
        if problem is not None:
            raise ValueError(problem)
        return name


@dataclass(frozen=True)
class Variant:
    """One combination of scientific and nuisance values at one length, without the seed."""

    label: Mapping[str, Any]
    """Scientific parameters as the reader knows them."""

    nuisance: Mapping[str, Any]
    config: Config
    epochs: int

    @cached_property
    def label_json(self) -> str:
        """The label as it stands in tables."""
        return json.dumps(dict(self.label), sort_keys=True)

    @cached_property
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
    grids: Sequence[Mapping[str, list[Any]]]
    """Values of scientific parameters; every combination within a grid is asked for."""

    nuisance: Mapping[str, list[Any]]
    fixed: Mapping[str, Any]
    seeds: list[int]
    resources: Resources
    search: Search | None
    compare: Compare
    resolve: Resolve | None

    @property
    def scientific(self) -> dict[str, list[Any]]:
        """Every value of each scientific parameter, over all grids."""
        found: dict[str, list[Any]] = {}
        for grid in self.grids:
            for path, values in grid.items():
                known = found.setdefault(path, [])
                known += [value for value in values if not _is_among(value, known)]
        return found

    @property
    def held(self) -> list[str]:
        """Scientific parameters, of which each combination of values has a study of its own."""
        return [path for path in self.scientific if path != EPOCHS]

    @property
    def evaluate(self) -> list[str]:
        """Data sets whose test split is evaluated. A search looks at validation alone."""
        if self.search is not None:
            return []
        return [self.data.train] if self.data.evaluate is None else self.data.evaluate

    @property
    def searches_horizon(self) -> bool:
        """Whether a search proposes how long a schedule is, where a trial then ends."""
        return self.search is not None and HORIZON in self.search.space

    @property
    def datasets(self) -> list[str]:
        """Every data set that is needed."""
        confirmed = [] if self.confirming is None else self.confirming.evaluate
        return list(dict.fromkeys([self.data.train, *self.evaluate, *confirmed]))

    @property
    def confirming(self) -> Spec | None:
        """The last stage of its search as a specification: fresh seeds, and test sets."""
        if self.search is None or self.search.confirm is None:
            return None
        return replace(self, search=None, seeds=fresh_seeds(self.search.confirm, self.seeds))

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
        named = [*self.scientific, *suggested]
        for scientific, nuisance in self.combinations():
            values = {**self.fixed, **scientific, **nuisance, **suggested}
            variant = self._variant(fingerprint, values, named, [*nuisance])
            unique.setdefault((variant.label_json, variant.nuisance_json, variant.epochs), variant)
        return list(unique.values())

    def _variant(
        self, fingerprint: str, values: dict[str, Any], scientific: list[str], nuisance: list[str]
    ) -> Variant:
        epochs = catalogue.epochs_allowed(str(values.get("model", "base")), values[EPOCHS])
        config = make_config(self.data, {**values, EPOCHS: epochs}, fingerprint)
        if self.searches_horizon:
            epochs = min(epochs, config.schedule.horizon or epochs)
        resolved = config.flat() | {"model": values.get("model", config.model)}
        label = {path: resolved[path] for path in scientific if path != EPOCHS}
        return Variant(label, {path: resolved[path] for path in nuisance}, config, epochs)

    def combinations(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Every combination of scientific values with every one of nuisance values."""
        for grid in self.grids:
            for first in product(grid):
                for second in product(self.nuisance):
                    yield first, second


def fresh_seeds(confirm: Confirm, used: Sequence[int]) -> list[int]:
    """The seeds of the last stage of a search that used some."""
    if isinstance(confirm.seeds, list):
        return confirm.seeds
    return list(range(max(used) + 1, max(used) + 1 + confirm.seeds))


def points(
    search: Search, context: Mapping[str, Any], *, corners: bool = False
) -> Iterator[dict[str, Any]]:
    """Every point of a space without ranges of real numbers.

    Args:
        search: whose space.
        context: parameters with one value; conditions may look at them.
        corners: whether the low end of a range of numbers is to stand for all of it.

    Raises:
        ValueError: a dimension has no end of values.
    """

    def extended(given: dict[str, Any], left: list[tuple[str, Dimension]]) -> Iterator[Any]:
        if not left:
            yield given
            return
        (path, dimension), *rest = left
        if not dimension.exists({**context, **given}):
            yield from extended(given, rest)
            return
        values = dimension.points
        if corners and dimension.choice is None:
            values = dimension.values[:1]
        if values is None:
            raise ValueError(f"{path} is a range of real numbers")
        for value in values:
            yield from extended({**given, path: value}, rest)

    yield from extended({}, ordered_space(search))


def point_of(
    search: Search, context: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The point of a space that a config lies at; null if it lies outside.

    Args:
        search: whose space.
        context: parameters with one value; conditions may look at them.
        config: parameters by path.
    """
    found: dict[str, Any] = {}
    for path, dimension in ordered_space(search):
        if dimension.exists({**context, **found}):
            if not dimension.holds(config.get(path)):
                return None
            found[path] = config[path]
    return found


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


def flatten(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A section's values by dotted path, however they are nested."""
    flat: dict[str, Any] = {}
    for name, value in section.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + str(name)] = value
    return flat


def _is_among(value: Any, values: Sequence[Any]) -> bool:
    """Whether a value is there: 1, 1.0 and true are three."""
    return any(value == each and type(value) is type(each) for each in values)


def product(grid: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """Every combination of a grid's values."""
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))

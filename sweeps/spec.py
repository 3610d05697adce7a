"""The YAML specification as validated types. All mistakes of a file are named at once."""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from cifake.config import Config, DataSettings, Settings, leaves, nest
from cifake.data.catalogue import DATASETS
from cifake.errors import InputError, Mistake, suggest
from cifake.models import catalogue
from cifake.tables import SCORES
from sweeps.specfile import SpecFile

EPOCHS = "epochs"
SEED = "seed"

_STRICT = Settings.model_config
_FILLED_IN = {"data.train", "data.fingerprint"}


def _adapter(info: Any) -> TypeAdapter[Any]:
    annotated: Any = Annotated[(info.annotation, Field(), *info.metadata)]
    return TypeAdapter(annotated, config=_STRICT)


PARAMETERS: dict[str, TypeAdapter[Any]] = {
    path: _adapter(info) for path, info in leaves(Config) if path not in _FILLED_IN
} | {EPOCHS: TypeAdapter(Annotated[int, Field(ge=1, le=100_000)], config=_STRICT)}
"""Every parameter that a specification can set, with what validates a value of it."""


class SpecData(DataSettings):
    """Data to train on and to evaluate."""

    evaluate: list[str] | None = None
    """Data sets whose test split is evaluated; by default the training set's."""

    @field_validator("train")
    @classmethod
    def _check_train(cls, name: str) -> str:
        if name not in DATASETS:
            raise ValueError(f"unknown data set; {suggest(name, DATASETS)}")
        if not DATASETS[name].trains:
            raise ValueError("can only be evaluated; train on one that holds both labels")
        return name

    @field_validator("fingerprint")
    @classmethod
    def _check_fingerprint(cls, fingerprint: str) -> str:
        if fingerprint:
            raise ValueError("is filled in when the data is opened; remove it")
        return fingerprint

    @field_validator("evaluate")
    @classmethod
    def _check_evaluate(cls, names: list[str] | None) -> list[str] | None:
        for name in names or []:
            if name not in DATASETS:
                raise ValueError(f"unknown data set {name!r}; {suggest(name, DATASETS)}")
        if len(set(names or [])) != len(names or []):
            raise ValueError("names a data set twice; remove one")
        return names


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

    data: SpecData = SpecData()
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

    name: str
    question: str
    data: SpecData
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
        config = make_config(self.data, values, fingerprint)
        resolved = config.flat() | {"model": values.get("model", config.model)}
        label = {path: resolved[path] for path in scientific if path != EPOCHS}
        return Variant(label, {path: resolved[path] for path in nuisance}, config, epochs)

    def _combinations(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        for first in _product(self.scientific):
            for second in _product(self.nuisance):
                yield first, second


def make_config(data: DataSettings, values: Mapping[str, Any], fingerprint: str) -> Config:
    """The configuration of some parameter values.

    Raises:
        ValidationError: values that do not go together.
    """
    base = {f"data.{name}": getattr(data, name) for name in DataSettings.model_fields}
    given = {path: value for path, value in values.items() if path != EPOCHS}
    return Config.model_validate(nest({**base, **given, "data.fingerprint": fingerprint}))


def parse(file: SpecFile) -> Spec:
    """Validate a specification.

    Raises:
        InputError: every mistake of the file.
    """
    mistakes: list[Mistake] = []
    shape = _shape(file, mistakes)
    sections = {
        "scientific": _flatten(shape.scientific),
        "nuisance": {k: v for k, v in _flatten(shape.nuisance).items() if k != SEED},
        "fixed": _flatten(shape.fixed),
    }
    _check_names(file, sections, mistakes)
    grids = {
        name: {path: value if isinstance(value, list) else [value] for path, value in given.items()}
        for name, given in sections.items()
    }
    for name, grid in grids.items():
        for path, values in grid.items():
            _check_values(file, f"{name}.{path}", path, values, mistakes)
    for path, value in sections["fixed"].items():
        if isinstance(value, list):
            problem = "must be one value; several belong into scientific or nuisance"
            mistakes.append(file.mistake(f"fixed.{path}", problem, value))
    seeds = _seeds(file, shape.nuisance.get(SEED, 1), mistakes)
    if shape.search is not None:
        _check_search(file, shape, shape.search, sections, mistakes)
    if mistakes:
        raise InputError(mistakes)
    spec = Spec(
        source=file.name,
        name=shape.name,
        question=shape.question,
        data=shape.data,
        scientific=grids["scientific"],
        nuisance=grids["nuisance"],
        fixed=sections["fixed"],
        seeds=seeds,
        resources=shape.resources,
        search=shape.search,
    )
    _check_combinations(file, spec, mistakes)
    if mistakes:
        raise InputError(mistakes)
    return spec


def _shape(file: SpecFile, mistakes: list[Mistake]) -> Shape:
    """The sections of a file. What is wrong is reported and left out.

    So everything beside it is looked at all the same, and all mistakes are named at once.
    """
    content = copy.deepcopy(file.content)
    try:
        return Shape.model_validate(content)
    except ValidationError as error:
        mistakes += [_translate(file, details) for details in error.errors()]
        for details in error.errors():
            _prune(content, details["loc"])
    content.setdefault("name", "unnamed")
    try:
        return Shape.model_validate(content)
    except ValidationError as error:
        # Pruning left a section without something it needs: that section goes altogether.
        sections = {details["loc"][0] for details in error.errors()}
        return Shape.model_validate({k: v for k, v in content.items() if k not in sections})


def _prune(content: Any, loc: tuple[int | str, ...]) -> None:
    *groups, last = loc
    for group in groups:
        if not isinstance(content, dict) or group not in content:
            return
        content = content[group]
    if isinstance(content, dict):
        content.pop(last, None)


def _translate(file: SpecFile, details: Any) -> Mistake:
    path = ".".join(str(part) for part in details["loc"])
    if details["type"] == "extra_forbidden":
        *groups, name = details["loc"]
        if not groups and (name in PARAMETERS or name == SEED):
            section = "nuisance" if name == SEED else "scientific or fixed"
            return file.mistake(path, f"belongs into {section}", None)
        owner = _class_at(details["loc"][:-1])
        hint = suggest(str(name), owner.model_fields) if owner else "remove it"
        return file.mistake(path, f"unknown key; {hint}", None)
    if details["type"] == "missing":
        return file.mistake(path, "is missing and needed", None)
    return file.mistake(path, _explain(details), details["input"])


def _explain(details: Any) -> str:
    """Pydantic's message in the words of ours."""
    message = str(details["msg"]).removeprefix("Value error, ")
    message = re.sub(r"^(Input|String|List|Dictionary)? ?should ", "must ", message)
    return message.replace("valid dictionary", "mapping").replace(" after validation", "")


def _class_at(loc: tuple[int | str, ...]) -> type[Settings] | None:
    """The settings class whose keys stand at a place of the file."""
    places: dict[tuple[int | str, ...], type[Settings]] = {
        (): Shape,
        ("data",): SpecData,
        ("resources",): Resources,
        ("search",): Search,
        ("search", "scheduler"): Scheduler,
    }
    if loc[:2] == ("search", "space"):
        return Dimension
    return places.get(loc)


def _flatten(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in section.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + str(name)] = value
    return flat


def _check_names(
    file: SpecFile, sections: dict[str, dict[str, Any]], mistakes: list[Mistake]
) -> None:
    owners: dict[str, str] = {}
    for section, given in sections.items():
        for path in given:
            if path == SEED:
                mistakes.append(file.mistake(f"{section}.seed", "belongs into nuisance", None))
            elif path not in PARAMETERS:
                hint = suggest(path, [*PARAMETERS, SEED])
                mistakes.append(file.mistake(f"{section}.{path}", f"unknown key; {hint}", None))
            elif path in owners:
                problem = f"is also given in {owners[path]}; keep one of the two"
                mistakes.append(file.mistake(f"{section}.{path}", problem, None))
            owners.setdefault(path, section)
    if EPOCHS not in owners:
        problem = "is missing and needed, in scientific or fixed, as in epochs: [1, 5]"
        mistakes.append(file.mistake(EPOCHS, problem, None))
    elif owners[EPOCHS] == "nuisance":
        mistakes.append(file.mistake("nuisance.epochs", "belongs into scientific or fixed", None))


def _check_values(
    file: SpecFile, place: str, path: str, values: list[Any], mistakes: list[Mistake]
) -> None:
    if not values:
        mistakes.append(file.mistake(place, "must name at least one value", values))
    seen: list[Any] = []
    for index, value in enumerate(values):
        here = place if len(values) == 1 else f"{place}[{index}]"
        if any(value == other and type(value) is type(other) for other in seen):
            mistakes.append(file.mistake(here, "is there twice; remove one", value))
        seen.append(value)
        problem = value_problem(path, value)
        if problem is not None:
            mistakes.append(file.mistake(here, problem, value))


def value_problem(path: str, value: Any) -> str | None:
    """What is wrong with one value of a parameter, or null."""
    adapter = PARAMETERS.get(path)
    if adapter is None:
        return None
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        return _explain(error.errors()[0])
    if path == "model" and value not in catalogue.model_names():
        return "unknown model; " + suggest(str(value), catalogue.model_names())
    if path == "placement" and not catalogue.placement_exists(value):
        return "unknown placement; " + suggest(str(value), catalogue.all_placement_names())
    return None


def _seeds(file: SpecFile, given: Any, mistakes: list[Mistake]) -> list[int]:
    place = "nuisance.seed"
    whole = isinstance(given, int) and not isinstance(given, bool)
    if whole and given >= 1:
        return list(range(given))
    valid = isinstance(given, list) and all(
        isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in given
    )
    if not valid or not given:
        problem = "must be a number of seeds of at least 1, or a list of seeds of at least 0"
        mistakes.append(file.mistake(place, problem, given))
        return []
    if len(set(given)) != len(given):
        mistakes.append(file.mistake(place, "names a seed twice; remove one", given))
    return list(given)


def _check_search(
    file: SpecFile,
    shape: Shape,
    search: Search,
    sections: dict[str, dict[str, Any]],
    mistakes: list[Mistake],
) -> None:
    if shape.data.validation == 0:
        problem = "a search needs a validation split of at least 1 image"
        mistakes.append(file.mistake("data.validation", problem, 0))
    owners = {path: name for name, given in sections.items() for path in given}
    for path, dimension in search.space.items():
        place = f"search.space.{path}"
        if path not in PARAMETERS or path == EPOCHS:
            hint = suggest(path, [name for name in PARAMETERS if name != EPOCHS])
            mistakes.append(file.mistake(place, f"unknown key; {hint}", None))
            continue
        if path in owners:
            problem = f"is also given in {owners[path]}; keep one of the two"
            mistakes.append(file.mistake(place, problem, None))
        _check_values(file, f"{place}.{dimension.kinds[0]}", path, dimension.values, mistakes)
        for condition, value in dimension.when.items():
            here = f"{place}.when.{condition}"
            if condition not in PARAMETERS:
                hint = suggest(condition, PARAMETERS)
                mistakes.append(file.mistake(here, f"unknown key; {hint}", None))
            elif (problem_ := value_problem(condition, value)) is not None:
                mistakes.append(file.mistake(here, problem_, value))
            elif condition not in search.space and condition not in owners:
                problem = "has no value in this sweep; give one, or drop the condition"
                mistakes.append(file.mistake(here, problem, value))
    try:
        ordered_space(search)
    except ValueError as error:
        mistakes.append(file.mistake("search.space", str(error), None))


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


def _check_combinations(file: SpecFile, spec: Spec, mistakes: list[Mistake]) -> None:
    seen: set[str] = set()
    # A search's values are checked one by one; a combination takes its first of each.
    suggested = {} if spec.search is None else _first_values(spec, spec.search)
    for scientific in _product(spec.scientific):
        for nuisance in _product(spec.nuisance):
            try:
                values = {**spec.fixed, **suggested, **scientific, **nuisance}
                make_config(spec.data, values, "")
            except ValidationError as error:
                for details in error.errors():
                    problem = _explain(details)
                    if problem not in seen:
                        seen.add(problem)
                        mistakes.append(_combination_mistake(file, spec, values, problem))


def _combination_mistake(
    file: SpecFile, spec: Spec, values: Mapping[str, Any], problem: str
) -> Mistake:
    path, _, rest = problem.partition(": ")
    section = next(
        (name for name in ("scientific", "nuisance", "fixed") if path in getattr(spec, name)), None
    )
    place = f"{section}.{path}" if section else path
    return file.mistake(place, rest or problem, values.get(path))


def _first_values(spec: Spec, search: Search) -> dict[str, Any]:
    values: dict[str, Any] = {}
    known = {path: choices[0] for path, choices in {**spec.scientific, **spec.nuisance}.items()}
    for path, dimension in ordered_space(search):
        context = {**spec.fixed, **known, **values}
        if all(context.get(name) == value for name, value in dimension.when.items()):
            values[path] = dimension.values[0]
    return values


def _product(grid: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))

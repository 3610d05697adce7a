"""What `cifake train` is asked for: options as typed, validated, all mistakes named at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from cifake.config import Config
from cifake.data.choice import DataChoice
from cifake.errors import InputError, Mistake, suggest
from cifake.models import catalogue
from cifake.parameters import (
    EPOCHS,
    PARAMETERS,
    combination_problems,
    explain,
    make_config,
    value_problem,
)
from cifake.safe_yaml import load_yaml

DEVICES = ("cpu", "cuda")
COMMAND = "cifake train"
_TRAIN = "data.train"
_VALIDATION = "data.validation"
_MAX_SEED = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line, unchecked."""

    model: str | None = None
    epochs: int = 1
    seeds: Sequence[str] = ()
    """Whole numbers, several joined by commas."""

    settings: Sequence[str] = ()
    """`KEY=VALUE`, the value as YAML."""

    dataset: str | None = None
    evaluate: Sequence[str] = ()
    validation: int | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Request:
    """One configuration with its seeds, before its data is opened."""

    data: DataChoice
    values: Mapping[str, Any]
    """Parameters by dotted path; what is left out has its default."""

    epochs: int
    seeds: tuple[int, ...]
    device: str

    @property
    def evaluate(self) -> tuple[str, ...]:
        """Data sets whose test split is evaluated; by default the training set's."""
        named = self.data.evaluate
        return (self.data.train,) if named is None else tuple(named)

    @property
    def datasets(self) -> list[str]:
        """Every data set that is needed, the training set first."""
        return list(dict.fromkeys([self.data.train, *self.evaluate]))

    def config(self, fingerprint: str) -> Config:
        """The configuration, on training data of that fingerprint."""
        return make_config(self.data, {**self.values, EPOCHS: self.epochs}, fingerprint)


def read_request(options: Options) -> Request:
    """Validate a command line.

    Raises:
        InputError: every mistake of it.
    """
    mistakes: list[Mistake] = []
    values = _values(options, mistakes)
    seeds = _seeds(options.seeds or ("0",), mistakes)
    if problem := value_problem(EPOCHS, options.epochs):
        mistakes.append(Mistake(where="--epochs", problem=problem, value=options.epochs))
    data = _data(values.pop(_TRAIN, "cifake"), options.evaluate, mistakes)
    _check_device(options.device, mistakes)
    if not mistakes:
        asked = {**values, EPOCHS: options.epochs}
        for problem in combination_problems(data, asked):
            path, _, rest = problem.partition(": ")
            mistakes.append(
                Mistake(where=COMMAND, field=path, value=values.get(path), problem=rest or problem)
            )
    if mistakes:
        raise InputError(mistakes)
    model = str(values.get("model", Config.model_fields["model"].default))
    epochs = catalogue.epochs_allowed(model, options.epochs)
    return Request(data, values, epochs, seeds, options.device)


def _values(options: Options, mistakes: list[Mistake]) -> dict[str, Any]:
    """Valid values by dotted path, from the options of their own and from `--set`."""
    own = {
        "model": ("--model", options.model),
        _TRAIN: ("--dataset", options.dataset),
        _VALIDATION: ("--validation", options.validation),
    }
    given = [(option, path, value) for path, (option, value) in own.items() if value is not None]
    for setting in options.settings:
        path, separator, text = setting.partition("=")
        if not separator or not path.strip():
            problem = "must be KEY=VALUE, as in --set optimizer.lr=0.01"
            mistakes.append(Mistake(where="--set", problem=problem, value=setting))
            continue
        try:
            given.append(("--set", path.strip(), load_yaml(text)))
        except yaml.YAMLError:
            problem = "must be YAML, as in 0.01 or true"
            mistakes.append(Mistake(where="--set", field=path, value=text, problem=problem))
    values: dict[str, Any] = {}
    for where, path, value in given:
        found = "is given twice; keep one of the two" if path in values else _problem(path, value)
        if found is None:
            values[path] = value
        else:
            field = path if where == "--set" else None
            mistakes.append(Mistake(where=where, field=field, value=value, problem=found))
    return values


def _problem(path: str, value: Any) -> str | None:
    if path == _TRAIN:
        return None if isinstance(value, str) else "must name a data set"
    if path in (EPOCHS, "seed"):
        return f"has an option of its own; give --{path}"
    if path not in PARAMETERS:
        settable = [name for name in PARAMETERS if name != EPOCHS]
        return f"unknown key; {suggest(path, [*settable, _TRAIN])}"
    return value_problem(path, value)


def _seeds(texts: Sequence[str], mistakes: list[Mistake]) -> tuple[int, ...]:
    seeds: list[int] = []
    for part in ",".join(texts).split(","):
        text = part.strip()
        if not (text.isascii() and text.isdigit()) or int(text) > _MAX_SEED:
            problem = "must be whole numbers from 0, as in --seed 0,1,2"
        elif int(text) in seeds:
            problem = "is there twice; remove one"
        else:
            seeds.append(int(text))
            continue
        mistakes.append(Mistake(where="--seed", problem=problem, value=text))
    return tuple(seeds)


def _data(train: str, evaluate: Sequence[str], mistakes: list[Mistake]) -> DataChoice:
    """The data sets; those of the demo where the ones named cannot be used."""
    try:
        return DataChoice(train=train, evaluate=list(evaluate) or None)
    except ValidationError as error:
        options = {"train": "--dataset", "evaluate": "--evaluate"}
        mistakes += [
            Mistake(
                where=options[str(details["loc"][0])],
                problem=explain(details),
                value=details["input"],
            )
            for details in error.errors()
        ]
        return DataChoice()


def _check_device(device: str, mistakes: list[Mistake]) -> None:
    if device not in DEVICES:
        problem = f"must be one of {', '.join(DEVICES)}"
    elif device == "cuda" and not _has_gpu():
        problem = "torch finds no GPU here; give --device cpu"
    else:
        return
    mistakes.append(Mistake(where="--device", problem=problem, value=device))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()

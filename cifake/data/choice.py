"""Which data sets are trained on and evaluated, by name."""

from __future__ import annotations

from pydantic import field_validator

from cifake.config import DataSettings
from cifake.data.catalogue import dataset, parse


class DataChoice(DataSettings):
    """Data to train on and to evaluate."""

    evaluate: list[str] | None = None
    """Data sets whose test split is evaluated; by default the training set's."""

    @field_validator("train")
    @classmethod
    def _check_train(cls, name: str) -> str:
        known = parse(name)
        if not dataset(known).trains:
            raise ValueError("can only be evaluated; train on one that holds both labels")
        return str(known)

    @field_validator("fingerprint")
    @classmethod
    def _check_fingerprint(cls, fingerprint: str) -> str:
        if fingerprint:
            raise ValueError("is filled in when the data is opened; remove it")
        return fingerprint

    @field_validator("evaluate")
    @classmethod
    def _check_evaluate(cls, names: list[str] | None) -> list[str] | None:
        if names is None:
            return None
        known, problems = [], []
        for name in names:
            try:
                known.append(str(parse(name)))
            except ValueError as error:
                problems.append(f"{name!r}: {error}")
        if len(set(known)) != len(known):
            problems.append("names a data set twice; remove one")
        if problems:
            raise ValueError("; ".join(problems))
        return known

"""Which data sets are trained on and evaluated, by name."""

from __future__ import annotations

from pydantic import field_validator

from cifake.config import DataSettings
from cifake.data.catalogue import DATASETS
from cifake.errors import suggest


class DataChoice(DataSettings):
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

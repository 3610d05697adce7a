"""Every setting that a person can name by dotted path, and what makes a configuration of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from cifake.config import Config, DataSettings, Settings, leaves, nest
from cifake.errors import suggest
from cifake.models import catalogue

EPOCHS = "epochs"
HORIZON = "schedule.horizon"

_STRICT = Settings.model_config
_FILLED_IN = {"data.train", "data.fingerprint"}


def _adapter(info: Any) -> TypeAdapter[Any]:
    annotated: Any = Annotated[(info.annotation, Field(), *info.metadata)]
    return TypeAdapter(annotated, config=_STRICT)


PARAMETERS: dict[str, TypeAdapter[Any]] = {
    path: _adapter(info) for path, info in leaves(Config) if path not in _FILLED_IN
} | {EPOCHS: TypeAdapter(Annotated[int, Field(ge=1, le=9_999)], config=_STRICT)}
"""Every parameter that a specification can set, with what validates a value of it."""


def value_problem(path: str, value: Any) -> str | None:
    """What is wrong with one value of a parameter, or null."""
    adapter = PARAMETERS.get(path)
    if adapter is None:
        return None
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        return explain(error.errors()[0])
    if path == "model" and value not in catalogue.model_names():
        return "unknown model; " + suggest(str(value), catalogue.model_names())
    if path == "attention" and value not in catalogue.ATTENTION:
        return "unknown attention module; " + suggest(str(value), catalogue.ATTENTION)
    if path == "placement" and not catalogue.placement_written_right(value):
        return (
            "unknown placement; must be none, both, all, or sites as `sweeps list` names them, "
            "joined by '+'"
        )
    return None


def make_config(data: DataSettings, values: Mapping[str, Any], fingerprint: str) -> Config:
    """The configuration of some parameter values.

    A schedule that needs a horizon and is given none spans the epochs asked for.

    Raises:
        ValidationError: values that do not go together.
    """
    base = {f"data.{name}": getattr(data, name) for name in DataSettings.model_fields}
    given = {path: value for path, value in values.items() if path != EPOCHS}
    if values.get(HORIZON) is None and EPOCHS in values:
        given[HORIZON] = values[EPOCHS]
    return Config.model_validate(nest({**base, **given, "data.fingerprint": fingerprint}))


def combination_problems(data: DataSettings, values: Mapping[str, Any]) -> Iterator[str]:
    """What does not go together among parameter values, each as `path: problem`.

    Args:
        data: the data settings, where no value says otherwise.
        values: by dotted path, each of them valid by itself, `epochs` among them.
    """
    try:
        config = make_config(data, values, "")
    except ValidationError as error:
        for details in error.errors():
            yield from explain(details).split("\n")
        return
    horizon = config.schedule.horizon
    if horizon is not None and values[EPOCHS] > horizon:
        yield f"{HORIZON}: must be at least the {values[EPOCHS]} epochs asked for"


def explain(details: Any) -> str:
    """Pydantic's message in the words of ours."""
    message = str(details["msg"]).removeprefix("Value error, ")
    message = re.sub(r"^(Input|String|List|Dictionary)? ?should ", "must ", message)
    message = re.sub(r" or instance of \w+", "", message)
    return message.replace("valid dictionary", "mapping").replace(" after validation", "")

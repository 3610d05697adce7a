"""YAML read without running anything that it says."""

from __future__ import annotations

import re
from typing import Any

import yaml


class Loader(yaml.SafeLoader):
    """YAML 1.1's safe loader, with numbers such as 1e-4 read as numbers."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)


def load_yaml(text: str) -> Any:
    """What a YAML text says, by the safe loader.

    Raises:
        YAMLError: not YAML, or a value that is not what it looks like.
    """
    try:
        return yaml.load(text, Loader=Loader)  # noqa: S506 - a subclass of SafeLoader
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        # The constructors of dates and of explicit tags raise what Python does.
        raise yaml.YAMLError(f"a value cannot be read: {error}") from None
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None

"""Names as clusters' systems have them."""

from __future__ import annotations

import hashlib
import re

_MARK = 8


def dns_name(text: str, longest: int) -> str:
    """Small letters, digits and dashes: what is of other letters or too long gets a hash.

    Args:
        text: to make a name of; of two that differ, the names differ.
        longest: characters at most.
    """
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if name == text and len(name) <= longest:
        return name
    mark = hashlib.sha256(text.encode()).hexdigest()[:_MARK]
    return f"{name[: longest - _MARK - 1].strip('-')}-{mark}"

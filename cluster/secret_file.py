"""Files of lines KEY=VALUE whose values are shown nowhere."""

from __future__ import annotations

import re
from pathlib import Path

from cifake.errors import InputError, Mistake, refuse

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)


def read_secrets(path: Path) -> dict[str, str]:
    """Read such a file; blank lines and those that begin with # are passed over.

    A value may stand in quotes. Nothing in it is expanded.

    Raises:
        InputError: it cannot be read, or lines are of another form; told without the lines.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        refuse(path, f"cannot be read: {problem}", field="secrets")
    found: dict[str, str] = {}
    mistakes = []
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            problem = "is not KEY=VALUE (the line is not shown, since it may be a secret)"
            mistakes.append(Mistake(where=f"{path}:{number}", problem=problem))
        else:
            found[match[1]] = _unquoted(match[2])
    if mistakes:
        raise InputError(mistakes)
    return found


def _unquoted(value: str) -> str:
    quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value

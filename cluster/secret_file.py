"""Files of lines KEY=VALUE whose values are shown nowhere.

python -m cluster.secret_file FILE    # its plain lines, for a pipe that leads to who keeps them
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NoReturn

from cifake.errors import InputError, Mistake, refuse, run_command

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


def secret_problems(path: str | None) -> list[Mistake]:
    """What is wrong with such a file; nothing where a profile names none."""
    if path is None:
        return []
    try:
        read_secrets(Path(path).expanduser())
    except InputError as error:
        return list(error.mistakes)
    return []


def main() -> NoReturn:
    """Print a file's settings without quotes, comments and blank lines."""

    def act() -> None:
        for key, value in read_secrets(Path(sys.argv[1]).expanduser()).items():
            print(f"{key}={value}")

    run_command(act, "cluster.secret_file")


if __name__ == "__main__":
    main()

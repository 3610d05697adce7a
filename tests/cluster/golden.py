"""Texts that programs generate, kept as files: a change to one is seen, and decided on."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

FOLDER = Path(__file__).parent / "golden"


def check(name: str, text: str) -> None:
    """Compare a generated text with the one that was accepted.

    Args:
        name: of the file in the folder `golden`.
        text: as it is generated now, without what is of this machine.

    Raises:
        AssertionError: they differ; it shows where, and says how to accept the change.
    """
    path = FOLDER / name
    if os.environ.get("ACCEPT_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    accepted = path.read_text(encoding="utf-8") if path.is_file() else ""
    if text != accepted:
        lines = difflib.unified_diff(
            accepted.splitlines(), text.splitlines(), f"golden/{name}", "generated now", lineterm=""
        )
        shown = "\n".join(lines)
        accept = f"If that is meant, run the test again with ACCEPT_GOLDEN=1 and commit {path}"
        raise AssertionError(f"{shown}\n\n{accept}")

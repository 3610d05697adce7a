"""The token of a cluster: made by Ray into a file that its owner alone can read."""

from __future__ import annotations

import sys
from pathlib import Path

from cluster.actions import Action, Command


def token_path(folder: Path) -> Path:
    """Where the token of the cluster is whose folder on this machine it is."""
    return folder / "home" / ".ray" / "auth_token"


def make_token(folder: Path) -> list[Action]:
    """What makes it; a token that is there stays.

    Args:
        folder: of the cluster on this machine.
    """
    home = token_path(folder).parents[1]
    make = 'umask 077; mkdir -p "$1"; shift; exec "$@" > /dev/null'
    # A token that the user has for another cluster would be taken for this one's.
    without = ("env", "-u", "RAY_AUTH_TOKEN", "-u", "RAY_AUTH_TOKEN_PATH")
    generate = (sys.executable, "-m", "ray.scripts.scripts", "get-auth-token", "--generate")
    return [
        Command(
            what="make a token that the cluster asks for",
            argv=(
                *("sh", "-c", make, "sh", str(home)),
                *(*without, f"HOME={home}", "RAY_AUTH_MODE=token", *generate),
            ),
        )
    ]

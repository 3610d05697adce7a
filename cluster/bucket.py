"""Whether a store can be written, as a cluster's nodes would write it.

python -m cluster.bucket STORE
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from cifake.errors import Mistake, refuse, run_command
from cifake.places import open_place
from cluster.launcher import Profile
from cluster.secret_file import read_secrets

_PATIENCE = 15.0
_WITHIN = 60.0


def check(where: str, whose: str = "with what its nodes would have") -> None:
    """Write a small file to a store and remove it.

    Args:
        where: the store.
        whose: hands or credentials that do so, for people.

    Raises:
        InputError: one of the two is not possible.
    """
    place = open_place(where, _PATIENCE)
    name = f"probe-{os.urandom(8).hex()}"
    try:
        place.write(name, b"")
        place.remove(name)
    except OSError as error:
        problem = f"cannot be written {whose}: {error.strerror or error}"
        refuse(where, problem, field="store")


def problems(profile: Profile) -> list[Mistake]:
    """What keeps an object store from being written with what a profile gives its nodes.

    Args:
        profile: whose environment and secrets are taken on top of this machine's.
    """
    if profile.store is None or "://" not in profile.store:
        return []
    secrets = {} if profile.secrets is None else read_secrets(Path(profile.secrets).expanduser())
    try:
        result = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "cluster.bucket", profile.store],
            env={**os.environ, **profile.environment, **secrets},
            capture_output=True,
            text=True,
            timeout=_WITHIN,
            check=False,
        )
    except subprocess.TimeoutExpired:
        problem = f"does not answer within {_WITHIN:g} s"
        return [Mistake(where=profile.store, field="store", problem=problem)]
    if result.returncode == 0:
        return []
    last = result.stderr.strip().splitlines()[-1]
    problem = (
        f"{last.partition(': store: ')[2] or last}; see cluster/permissions for what a store needs"
    )
    return [Mistake(where=profile.store, field="store", problem=problem)]


def main() -> NoReturn:
    """Check the store that the command line names."""
    run_command(lambda: check(sys.argv[1]), "cluster")


if __name__ == "__main__":
    main()

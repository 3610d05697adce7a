"""How a command ends."""

from __future__ import annotations

import subprocess
import sys

ENDING = """
import atexit, gc

def look():
    print(gc.get_freeze_count(), len(gc.get_objects()))

atexit.register(look)

from cifake.errors import run_command

run_command(lambda: None, "name")
"""


def test_at_the_end_of_a_command_nothing_is_left_to_search_for_what_could_be_freed() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ENDING], capture_output=True, text=True, check=True
    )
    frozen, searched = map(int, ended.stdout.split())
    assert frozen > 1000
    assert searched < 100

"""How commands end that do not reach their end: what they say, and their exit codes."""

from __future__ import annotations

UNFINISHED = 1
"""Exit code of what could not be trained to its end."""

INTERRUPTED = 130
"""Exit code after Ctrl-C or SIGTERM."""

STOPPED = "stopped; finished epochs are kept, and the same command goes on from there"
"""What training says that was interrupted."""

"""A machine that commands are run on: this one, or one that is reached by ssh."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.actions import Command

UNREACHABLE = 255
"""Exit code of ssh where it is ssh itself that failed."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command came to."""

    code: int
    output: str
    errors: str

    @property
    def complaint(self) -> str:
        """What it said was wrong, in a line."""
        lines = [line.strip() for line in self.errors.splitlines() if line.strip()]
        return "; ".join(lines[-3:]) or f"exit code {self.code}"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine, and where on it what belongs to a cluster is."""

    name: str
    """For people, and of its node."""

    folder: str
    """Of the node; one that does not begin with a slash begins at the home folder."""

    python: str
    """Interpreter that has the project there; by a path from that folder, where by a path."""

    ssh: tuple[str, ...] = ()
    """Program and arguments that run there what follows, as one shell command; empty: this one."""

    def line(self, script: str) -> tuple[str, ...]:
        """Program and arguments, on this machine, that run a shell command there."""
        return (*self.ssh, script) if self.ssh else ("sh", "-c", script)

    def inside(self, script: str) -> str:
        """A shell command that is run in the folder."""
        return f"cd {shlex.quote(self.folder)} && {script}"

    def node(self, command: str, *arguments: str) -> str:
        """The shell command that has `cluster.node` do something with the folder."""
        words = [self.python, "-m", "cluster.node", command, ".", *arguments]
        return self.inside(f"exec {shlex.join(words)}")

    def action(
        self, what: str, script: str, *, stdin: Path | None = None, limit: float = 600.0
    ) -> Command:
        """A shell command there, as an action.

        Args:
            what: it does, for people.
            script: the command.
            stdin: file of this machine that it reads.
            limit: seconds that it may take.
        """
        argv = self.line(script)
        return Command(what=f"{what} on {self.name}", argv=argv, stdin=stdin, limit=limit)

    def bring(self, path: Path, name: str) -> Command:
        """A file of this machine is brought to the folder, where its owner alone may read it.

        Args:
            path: of the file.
            name: there.
        """
        # One that is there keeps its mode when it is written to: it is another file, then renamed.
        name = shlex.quote(name)
        folder = shlex.quote(self.folder)
        write = self.inside(f"cat > {name}.new && mv {name}.new {name}")
        return self.action(
            f"write {name}", f"umask 077 && mkdir -p {folder} && {write}", stdin=path
        )

    def ask(self, script: str, *, text: str = "", within: float = 60.0) -> Answer:
        """Run a shell command there and wait for it.

        Args:
            script: the command.
            text: that it reads from standard input.
            within: seconds.
        """
        return ask(self.line(script), text=text, within=within)


def ask(argv: Sequence[str], *, text: str = "", within: float = 60.0) -> Answer:
    """Run a program on this machine and wait; one that cannot be run is as an ssh that fails."""
    try:
        result = subprocess.run(  # noqa: S603 - what a launcher says
            argv, input=text, capture_output=True, text=True, timeout=within, check=False
        )
    except subprocess.TimeoutExpired:
        return Answer(code=UNREACHABLE, output="", errors=f"no answer within {within:g} s")
    except OSError as error:
        return Answer(code=UNREACHABLE, output="", errors=f"{argv[0]}: {error.strerror}")
    return Answer(code=result.returncode, output=result.stdout, errors=result.stderr)

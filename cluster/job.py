"""A sweep as a Ray job: what Ray runs on the head, which keeps the log and says how it ended.

python -m cluster.job FOLDER
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from cifake.files import write_aside

SUBMISSION, LOG, CODE, STOPPED = "job.json", "log", "code", "stopped"
"""Files of a job's folder: what was submitted, what it printed, its exit code once it has ended,
and whether somebody stopped it."""

_DYING_SECONDS = 5.0
"""After a failure: a head that dies takes this process with it meanwhile, and the job goes on."""


def entrypoint(folder: Path) -> str:
    """The command line that Ray is given."""
    return shlex.join([sys.executable, "-m", "cluster.job", str(folder)])


def command(folder: Path, address: str) -> list[str]:
    """The command that is the sweep."""
    job = json.loads((folder / SUBMISSION).read_text())
    spec = str(folder / job["file"])
    run = [sys.executable, "-m", "sweeps", "run", spec, "--address", address]
    return [*run, *job["arguments"]]


def main(folder: Path) -> int:
    """Run the sweep to its end and keep what it prints; its exit code."""
    # Ray interrupts the sweep too, and its end is waited for.
    signal.signal(signal.SIGINT, lambda *_: None)
    # Ray's workers block it, and what they start inherits that.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    with (
        (folder / LOG).open("ab") as log,
        subprocess.Popen(  # noqa: S603 - our own command
            command(folder, os.environ["RAY_ADDRESS"]),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        if process.stdout is not None:
            _copy(process.stdout, log)
        code = process.wait()
    if code and not (folder / STOPPED).exists():
        time.sleep(_DYING_SECONDS)
    write_aside(folder / CODE, str(code if code >= 0 else 128 - code).encode())
    return code


def _copy(source: IO[bytes], log: IO[bytes]) -> None:
    """To the job's own log at once, and to Ray's."""
    while chunk := source.read1(2**16):  # type: ignore[attr-defined]
        log.write(chunk)
        log.flush()
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

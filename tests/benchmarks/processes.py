"""Commands with all the processes that they start: what time and processor time they take.

Nobody waits for Ray's workers, so the system adds their processor time to nobody's: it is read
while they live.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.measure import Timed
from tests.sweeps.drivers import Driver, start

ROOT = Path(__file__).parents[2]
_EVERY = 0.5
_TICKS = os.sysconf("SC_CLK_TCK")
_LOG_LINES = 30


class Usage:
    """Processor time of a command's processes, dead ones included."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.seconds: dict[tuple[int, str], float] = {}
        """By process and the time it was started at."""

    def look(self) -> None:
        """Read what each process has used. What one uses after the last look is lost."""
        for process in self.driver.relatives():
            try:
                # The name of the program, in parentheses, may hold anything.
                stat = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            self.seconds[process, stat[19]] = (int(stat[11]) + int(stat[12])) / _TICKS

    @property
    def total(self) -> float:
        """Seconds of all processes."""
        return sum(self.seconds.values())


def run(work: float, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Timed:
    """Run a command to its end, until nothing of it is left.

    Args:
        work: how much it does.
        command: program and arguments.
        environment: of the process.
        folder: where it runs; `log` there holds its output.

    Raises:
        RuntimeError: it failed.
    """
    log = folder / "log"
    begun = time.perf_counter()
    driver = start(command, environment, log)
    usage = Usage(driver)
    try:
        while True:
            usage.look()
            try:
                driver.process.wait(_EVERY)
                break
            except subprocess.TimeoutExpired:
                continue
        wall = time.perf_counter() - begun
    finally:
        driver.end()
    if driver.process.returncode:
        last = "\n".join(log.read_text().splitlines()[-_LOG_LINES:])
        raise RuntimeError(f"{' '.join(command)} ended with {driver.process.returncode}:\n{last}")
    return Timed(work, wall, usage.total)


@contextmanager
def apart(cache: Path | None = None) -> Iterator[dict[str, str]]:
    """An environment in which no store or cluster of the user's is found, and one thread is used.

    Args:
        cache: where data sets are packed; by default where they are packed already.
    """
    # A socket's path has at most 107 characters, which longer folders would exceed.
    ray = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    left_out = ("RAY_", "CIFAKE_STORE", "CIFAKE_DATA")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    own = {
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": "1",
        "RAY_TMPDIR": ray,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    if cache is not None:
        own["CIFAKE_CACHE"] = str(cache)
    try:
        yield kept | own
    finally:
        shutil.rmtree(ray, ignore_errors=True)


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Keep this process and all it starts to some cores.

    Raises:
        RuntimeError: there are fewer.
    """
    cores = os.sched_getaffinity(0)
    if len(cores) < count:
        raise RuntimeError(f"{count} cores are needed, and {len(cores)} may be used")
    os.sched_setaffinity(0, set(sorted(cores)[:count]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)

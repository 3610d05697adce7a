"""The default branch of a repository on GitHub, as one archive."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from cifake.data.download import download
from cifake.data.repositories import Repository

SERVER = "https://codeload.github.com"


def get(repository: Repository, staging: Path, mirror: str | None, console: Console) -> Path:
    """Download the archive into a folder and return its path.

    Raises:
        InputError: the server cannot be reached or refuses.
        OSError: the folder cannot be written.
    """
    # HEAD is the default branch, whatever its name.
    url = f"{(mirror or SERVER).rstrip('/')}/{repository.name}/tar.gz/HEAD"
    archive = staging / "archive.tar.gz"
    if archive.exists():
        return archive  # whole: it was being checked when an earlier call was interrupted
    columns = (
        TextColumn("downloading"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("download", total=None)
        download(url, archive, lambda here, total: bar.update(task, completed=here, total=total))
    return archive

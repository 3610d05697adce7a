"""Files of a data set on Hugging Face, through its own client."""

from __future__ import annotations

import fnmatch
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from cifake.data.repositories import Repository
from cifake.errors import one_line, refuse


def get(repository: Repository, staging: Path, mirror: str | None, console: Console) -> Path:
    """Download the wanted files into a folder; return it, or the file where there is only one.

    The client takes up a cut connection where it was cut, and shows its own bars. Files that are
    whole are not asked for again after an interruption.

    Raises:
        InputError: the server cannot be reached or refuses, or lacks the files.
        OSError: the folder cannot be written.
    """
    del console
    folder = staging / "files"
    with _failures_said(repository):
        from huggingface_hub import HfApi

        api = HfApi(endpoint=mirror or os.environ.get("HF_ENDPOINT"), library_name="cifake-sweeps")
        # One commit for all files, so that a change meanwhile mixes nothing.
        info = api.dataset_info(repository.name)
        wanted = _wanted(repository, [entry.rfilename for entry in info.siblings or []])
        for name in wanted:
            api.hf_hub_download(
                repository.name, name, repo_type="dataset", revision=info.sha, local_dir=folder
            )
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the client's notes on what it fetched
    return folder / wanted[0] if repository.lands_as.endswith(".parquet") else folder


def _wanted(repository: Repository, names: list[str]) -> list[str]:
    """The files of a repository that its patterns ask for, in order."""
    wanted = sorted(
        name for name in names if any(fnmatch.fnmatch(name, p) for p in repository.files)
    )
    if not wanted:
        refuse(
            f"huggingface {repository.name}",
            f"holds no {' or '.join(repository.files)}; it has changed, try another --from",
        )
    for name in wanted:
        if ".." in name.split("/") or name.startswith("/"):
            refuse(f"huggingface {repository.name}", "leaves its folder; nothing kept", field=name)
    return wanted


@contextmanager
def _failures_said(repository: Repository) -> Iterator[None]:
    """Turn the client's exceptions into one line each."""
    # The client hands its HTTP library's base class on without exporting it.
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    where = f"huggingface {repository.name}"
    try:
        yield
    except HfHubHTTPError as error:
        _refuse_status(where, error.response.status_code)
    except (ValueError, KeyError, TypeError):
        refuse(where, "the answer is not that of a Hugging Face server; see --mirror, HF_ENDPOINT")
    except OfflineModeIsEnabled:
        refuse(where, "HF_HUB_OFFLINE is set; unset it to download")
    except (HTTPError, LocalEntryNotFoundError) as error:
        reason = error.__cause__ or error
        if isinstance(reason, HfHubHTTPError):
            _refuse_status(where, reason.response.status_code)
        refuse(
            where,
            f"the connection failed ({one_line(reason)}); check the network and HF_ENDPOINT, "
            "then repeat the command",
        )


def _refuse_status(where: str, status: int) -> NoReturn:
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        refuse(
            where,
            f"access is refused ({status}): it does not exist, is private or has terms to accept; "
            "set HF_TOKEN to a token that may read it",
        )
    if status == HTTPStatus.NOT_FOUND:
        refuse(where, "not found (404); was it moved? try another --from, or see --mirror")
    refuse(where, f"the server answers {status}; repeat the command later")

"""What `sweeps serve` does."""

from __future__ import annotations

import functools
import json
import math
import os
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping

from rich.console import Console

from cifake.runs import digest
from cifake.tables import encode
from sweeps.outcome import count_by_status
from sweeps.report.content import PAGE
from sweeps.reporting import subject_of
from sweeps.serve.app import Site, guarded
from sweeps.serve.live import LivePage, Standing
from sweeps.serve.server import LOOPBACK, open_server
from sweeps.spec import Spec
from sweeps.store import Store

RAY_DASHBOARD = "http://127.0.0.1:8265"
"""Where Ray's dashboard listens unless it was told otherwise."""

RAY_ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
"""Variable of the environment with the address of another one."""

_PROBED_EVERY = 30.0
_PATIENCE = 2.0
"""Seconds that a page which is being made is waited for at the end."""


def serve_sweep(spec: Spec, store: Store, port: int, console: Console) -> None:
    """Serve a sweep's page until Ctrl-C.

    Raises:
        InputError: the port cannot be used.
    """
    sweep = store.sweep(spec.name)
    live = LivePage(
        look=functools.partial(standing, spec, store),
        make=functools.partial(make_page, spec, store),
        page=_last_page(spec, store),
    )
    links, dashboard = [ray_link()], None
    if spec.search is not None:
        from sweeps.search.dashboard import is_installed, study_dashboard
        from sweeps.search.storage import has_storage

        if is_installed():
            dashboard = study_dashboard(sweep)
            links.append(lambda: {"Optuna dashboard": "/dashboard/"} if has_storage(sweep) else {})
    site = Site(spec.name, spec.question, live, sweep, tuple(links), dashboard)
    with open_server(guarded(site), port) as server:
        live.start()
        url = f"http://{LOOPBACK}:{server.server_port}/"
        console.print(f"{spec.name}: {url} – for this machine alone; Ctrl-C ends it")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            console.print("ended; the sweep goes on, if it runs")
    if not live.stop(_PATIENCE):
        # A page is being made still. What it writes appears whole or not at all, and a thread of
        # Arrow's that lives when Python ends would abort the process.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def standing(spec: Spec, store: Store) -> Standing | None:
    """How far a sweep is; null where the store has nothing of it."""
    found = store.read_sweep(spec.name, "cells")
    if found is None or not len(found):
        return None
    cells = found.select(["run_id", "epochs"]).to_pylist()
    run_ids = {cell["run_id"] for cell in cells}
    states = store.run_states(run_ids)
    runs = tuple((state.run_id, state.row["updated_at"]) for _, state in sorted(states.items()))
    return Standing(
        stamp=(digest(encode("cells", found)), runs),
        cells=len(cells),
        cells_done=sum(
            cell["run_id"] in states and states[cell["run_id"]].epochs_done >= cell["epochs"]
            for cell in cells
        ),
        by_status=count_by_status(states.values(), len(run_ids)),
    )


def make_page(spec: Spec, store: Store) -> bytes:
    """The page of what the store has of a sweep; nothing is written."""
    from sweeps.gather import gather  # imports what reports are made with
    from sweeps.report.page import page

    return page(gather(subject_of(spec, store), store)).encode()


def _last_page(spec: Spec, store: Store) -> bytes:
    """The page that the sweep's last report left; nothing where there is none."""
    try:
        return store.sweep(spec.name).read(PAGE)
    except FileNotFoundError:
        return b""


def ray_link() -> Callable[[], Mapping[str, str]]:
    """What links to Ray's dashboard where one answers, which is asked rarely."""
    found: dict[str, str] = {}
    asked_at = -math.inf

    def link() -> Mapping[str, str]:
        nonlocal found, asked_at
        now = time.monotonic()
        if now - asked_at >= _PROBED_EVERY:
            asked_at = now
            url = ray_dashboard_address()
            mode = ray_dashboard_mode(url)
            name = f"Ray dashboard{' (asks for its token)' if mode == 'token' else ''}"
            found = {} if mode is None else {name: url}
        return found

    return link


def ray_dashboard_address() -> str:
    """Where Ray's dashboard is, by the variable that Ray's own commands go by."""
    told = os.environ.get(RAY_ADDRESS_VARIABLE, "")
    return told.rstrip("/") if told.startswith(("http://", "https://")) else RAY_DASHBOARD


def ray_dashboard_mode(url: str, seconds: float = 0.5) -> str | None:
    """How Ray's dashboard lets readers in, as in `token`; null where none answers.

    It is asked at the one address that needs no token.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/api/authentication_mode", timeout=seconds) as answer:
            return str(json.loads(answer.read(10_000))["authentication_mode"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
